"""The system under attack: a real broker, a real database and supervised processes, each within reach of a fault."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from schemas.configuration import load
from schemas.failpoints import FOLDER_VARIABLE, Failpoint
from schemas.migrations import upgrade
from schemas.settings import Settings
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.broker import EmbeddedBroker
from streams.store import Store, database_url, open_engine
from streams.supervisor import Child, KeepsDying
from tests.postgres import PostgresServer

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 180.0
LOOK_SECONDS = 0.1
DISK_MIB = 1024
STOP_SECONDS = 20.0

CONFIGURATION = """\
data = "{data}"
[kafka]
broker = "{broker}"
partitions = {partitions}
[database]
url = "{database}"
[serve]
batch_records = 40
cached_users = 30
snapshot_seconds = 4
[index]
kind = "ivf"
delta_items = 32
[learn]
micro_batch = 1
coalesce_milliseconds = 0
replay_batch = 4
checkpoint_seconds = 3
probe_rows = 0
[model]
items = 2000
dimension = 16
adapter_rank = 4
[gate]
seconds = 1e9
[gateway]
port = 0
[scenarios.shop]
[scenarios.video]
[scenarios.news]
"""


STOPPING = threading.Event()
"""Set where a person wants the campaign to end: whoever waits for something then gives up."""


class NotWithin(Exception):
    """Something that was waited for did not happen."""


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until `condition` gives something true, and return it.

    Raises:
        NotWithin: it does not in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if STOPPING.wait(LOOK_SECONDS / 2):
            raise NotWithin(f"stopped before {what}")
    raise NotWithin(f"not within {seconds:.0f} s: {what}")


@dataclass(frozen=True)
class Death:
    """How a process has ended.

    Attributes:
        struck: whether a fault had ended it from outside, or from within at a failpoint.
        last_words: of its log.
    """

    name: str
    pid: int
    code: int
    struck: bool
    last_words: str


class System:
    """One installation and everything that can be done to it. Faults come on threads of their own.

    Attributes:
        deaths: of its processes so far.
        full: whether the disk can be filled: it is a file system of its own where that may be mounted.
    """

    def __init__(self, folder: Path, postgres: PostgresServer | None, *, partitions: int = 4) -> None:
        """Make its disk, its broker, its topics and its tables; no process runs yet."""
        self.folder = folder
        self.data, self.logs, self.failpoints = folder / "data", folder / "logs", folder / "failpoints"
        for each in (self.data, self.logs, self.failpoints):
            each.mkdir(parents=True)
        self.full = _mounted(self.data)
        self.postgres = postgres
        self.partitions = partitions
        self.deaths: list[Death] = []
        self.children: dict[str, Child] = {}
        self._struck: set[int] = set()
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self.broker = EmbeddedBroker(folder / "kafka")
        try:
            self.broker.start()
            self.broker_wanted = True
            self.settings = self.configure(partitions)
            self.topics = Topics(self.settings)
            ensure_topics(self.broker.address, self.topics.all(), 1)
            engine = open_engine(database_url(self.settings))
            upgrade(engine)
            self.serve_store = Store(engine, f"{self.settings.kafka.prefix}serve", "campaign")
            self.learn_store = Store(engine, f"{self.settings.kafka.prefix}learn", "campaign")
        except BaseException:
            self._give_back()
            raise
        self._supervision = threading.Thread(target=self._supervise, name="supervision")

    def configure(self, partitions: int) -> Settings:
        """Write the configuration that processes read at their next start."""
        file = self.folder / "headstream.toml"
        database = self.postgres.url if self.postgres else ""
        text = CONFIGURATION.format(
            data=self.data, broker=self.broker.address, partitions=partitions, database=database
        )
        file.write_text(text)
        self.partitions = partitions
        return load(file, {}, {})

    def __enter__(self) -> System:
        for name in ("serve", "learn", "gateway"):
            self.start(name)
        self._supervision.start()
        try:
            self.wait_ready()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._stop.set()
        self._supervision.join()
        for child in self.children.values():
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGCONT)
            child.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for child in self.children.values():
            child.reap(deadline)
        self.serve_store.close()
        self._give_back()

    def _give_back(self) -> None:
        self.broker.stop()
        if self.full:
            subprocess.run(["umount", "--lazy", str(self.data)], check=True)

    # Processes

    def start(self, name: str) -> None:
        """Start a process; `serve 2` is another SERVE."""
        command = [
            sys.executable,
            "-m",
            "streams.cli",
            name.split()[0],
            "--config",
            str(self.folder / "headstream.toml"),
        ]
        environment: Mapping[str, str] = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONUNBUFFERED": "1",
            FOLDER_VARIABLE: str(self.failpoints),
        }
        with self._lock:
            self.children[name] = Child(name, command, environment, self.log_file(name))
            self.children[name].start()

    def end(self, name: str) -> None:
        """Stop a process for good."""
        with self._lock:
            child = self.children.pop(name)
        child.terminate()
        child.reap(time.monotonic() + STOP_SECONDS)

    def log_file(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def ready(self, name: str) -> bool:
        with self._lock:
            child = self.children[name]
            return child.state == "ready" and child.process is not None and child.process.poll() is None

    def wait_ready(self, *names: str) -> None:
        for name in names or tuple(self.children):
            until(lambda name=name: self.ready(name), f"{name} is ready")

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a process that is ready, and return its pid.

        Raises:
            NotWithin: it does not become ready.
        """
        while True:
            self.wait_ready(name)
            with self._lock:
                process = self.children[name].process
                if process is not None and process.poll() is None:
                    if number in (signal.SIGKILL, signal.SIGTERM):
                        self._struck.add(process.pid)
                    process.send_signal(number)
                    return process.pid

    def arm(self, failpoint: Failpoint, order: str, seconds: float) -> int:
        """Let the next process that comes by a failpoint be struck, wait until it was, and return its pid.

        Raises:
            NotWithin: none came by; the failpoint is no longer armed then.
        """
        file = self.failpoints / failpoint
        prepared = file.with_name(f".{failpoint}.prepared")
        prepared.write_text(order)
        prepared.rename(file)
        struck = lambda: list(self.failpoints.glob(f".{failpoint}.by.*"))  # noqa: E731
        try:
            until(struck, f"a process comes by {failpoint}", seconds)
        except NotWithin:
            file.unlink(missing_ok=True)
            if not struck():
                raise
        (left,) = struck()
        left.unlink()
        return int(left.name.rsplit(".", 1)[1])

    def _supervise(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            with self._lock:
                for child in list(self.children.values()):
                    self._look_after(child)
            if self.broker_wanted and not self.broker.running:
                log.info("the broker has ended and starts again")
                try:
                    self.broker.start()
                except Exception as error:
                    log.warning("the broker does not start: %s", error)

    def _look_after(self, child: Child) -> None:
        process = child.process
        if process is not None and (code := process.poll()) is not None:
            struck = process.pid in self._struck or code == -signal.SIGKILL
            self.deaths.append(Death(child.name, process.pid, code, struck, child.last_words()))
        try:
            child.check()
        except KeepsDying as keeps:
            log.info("%s ended %s", keeps.name, "often; the campaign strikes more often than life does")

    # The broker and the database

    def stop_broker(self) -> None:
        self.broker_wanted = False
        self.broker.stop()

    def resume_broker(self) -> None:
        self.broker_wanted = True
        until(lambda: self.broker.running, "the broker runs again")

    def lock_database(self, seconds: float) -> None:
        """Hold SQLite's only write lock."""
        connection = sqlite3.connect(self.data / "headstream.db", isolation_level=None, timeout=60)
        try:
            connection.execute("BEGIN IMMEDIATE")
            STOPPING.wait(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    # The disk

    def fill_disk(self, seconds: float) -> None:
        """Leave no byte free, for a while."""
        ballast = self.data / "ballast"
        try:
            with ballast.open("wb", buffering=0) as file:
                block = b"\0" * (1 << 20)
                try:
                    while True:
                        file.write(block)
                except OSError:
                    STOPPING.wait(seconds)
        finally:
            ballast.unlink(missing_ok=True)

    # What can be seen

    def examples_published(self) -> int:
        """How many examples LEARN has learnt from, as it said last."""
        return sum(head.examples for head in self.learn_store.heads().values())

    def memory(self) -> dict[str, int]:
        """Resident bytes of each process."""
        found = {}
        with self._lock:
            for name, child in self.children.items():
                if child.process is not None:
                    try:
                        found[name] = psutil.Process(child.process.pid).memory_info().rss
                    except psutil.NoSuchProcess:
                        continue
        return found

    @property
    def gateway(self) -> str:
        return self.children["gateway"].address


def _mounted(folder: Path) -> bool:
    """Put a small file system under the folder, where this user may do that."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "headstream-faults", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0
