"""A PostgreSQL server of a test's own, which may be stopped and started again over what it holds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from streams.kafka_files import HOST, free_port


class PostgresServer:
    """Runs within its `with`, in a folder that goes with it.

    Attributes:
        url: as SQLAlchemy wants it; the same after a restart.
    """

    def __init__(self) -> None:
        self._programs = _programs()

    def __enter__(self) -> PostgresServer:
        self._temporary = TemporaryDirectory(prefix="headstream-postgres-")
        self._folder = Path(self._temporary.name)
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "-U", "postgres", "-A", "trust", "--no-sync")
        # Chosen only now: another run of the suite beside this one looks for a port too.
        self._port = free_port()
        self.url = f"postgresql+psycopg://postgres@{HOST}:{self._port}/postgres"
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.stop()
        self._temporary.cleanup()

    @property
    def running(self) -> bool:
        return (self._folder / "data" / "postmaster.pid").exists()

    def start(self) -> None:
        options = f"-p {self._port} -h {HOST} -k {self._folder} -c fsync=off"
        self._run("pg_ctl", "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        """As a power cut would: nobody is asked to finish."""
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(self._programs / program), "-D", str(self._folder / "data"), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, cwd="/", timeout=60)
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()


def _programs() -> Path:
    """The folder of `initdb` and `pg_ctl`: on the PATH, else the newest of Debian's places."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not installed:
        pytest.fail("PostgreSQL's initdb is neither on the PATH nor under /usr/lib/postgresql; install postgresql")
    return installed[-1].parent
