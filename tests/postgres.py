"""A PostgreSQL of its own: a cluster in a temporary folder, on loopback, that can be restarted at any moment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from streams.kafka_files import HOST, free_port


class PostgresServer:
    """A running server, as a context manager.

    Attributes:
        url: for SQLAlchemy.
    """

    def __init__(self) -> None:
        """Make and start it.

        Raises:
            FileNotFoundError: PostgreSQL is not installed.
        """
        self._programs = _programs()
        self._folder = TemporaryDirectory(prefix="headstream-postgres-")
        folder = Path(self._folder.name)
        self._data = folder / "data"
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(folder, "postgres", "postgres")
        _as_postgres(self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync")
        # Chosen only now: another run of the suite beside this one looks for a port too.
        port = free_port()
        self._start = ("-l", folder / "log", "-o", f"-p {port} -h {HOST} -k {folder} -c fsync=off", "-w", "start")
        self._control(*self._start)
        self.url = f"postgresql+psycopg://postgres@{HOST}:{port}/postgres"

    def restart(self) -> None:
        """End it at once, whatever it is doing, and start it again."""
        self._control("-m", "immediate", "-w", "stop")
        self._control(*self._start)

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._control("-m", "immediate", "-w", "stop")
        self._folder.cleanup()

    def _control(self, *arguments: str | Path) -> None:
        _as_postgres(self._programs / "pg_ctl", "-D", self._data, *arguments)


def _programs() -> Path:
    """The folder of `initdb` and `pg_ctl`: on the PATH, else the newest of Debian's places."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not installed:
        raise FileNotFoundError(
            "PostgreSQL's initdb is neither on the PATH nor under /usr/lib/postgresql; install postgresql"
        )
    return installed[-1].parent


def _as_postgres(*command: str | Path) -> None:
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*user, *command], stdin=subprocess.DEVNULL, capture_output=True, cwd="/", timeout=60)
    assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
