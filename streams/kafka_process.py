"""The process of the embedded Kafka: it ends with the one that started it, and holds its folder alone meanwhile."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import psutil

from schemas.errors import ExplainedError

logger = logging.getLogger(__name__)

STOP_SECONDS = 10.0
ORPHAN_SECONDS = 10.0
CLOCK_SECONDS = 2.0
POLL_SECONDS = 0.03

LOCK_FILE = "lock"
OUTPUT_FILE = "kafka.out"

# Linux sends the signal when the parent is gone, however it went. It is asked for in a fresh interpreter that then
# becomes Java, since code between fork and exec of a process with threads (torch, librdkafka) can deadlock.
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class BrokerError(ExplainedError):
    """The embedded Kafka cannot do what was asked; the message says why and what helps."""


class FolderInUse(BrokerError):
    """Another process runs a Kafka over this folder."""

    def __init__(self, folder: Path, holder: int | None) -> None:
        self.folder = folder
        self.holder = holder
        super().__init__(
            f"the Kafka folder {folder} is in use by {described(holder)}; stop it, or choose another data folder"
        )


class Child:
    """A process in a session of its own that ends with this one.

    A thread starts it and waits for it, because Linux's parent-death signal follows the thread that forked: a start
    from a short-lived thread would end the child with that thread.
    """

    def __init__(self, command: Sequence[str], folder: Path, inherited: Sequence[int]) -> None:
        self.ended = threading.Event()
        spawned: Future[subprocess.Popen[bytes]] = Future()
        self._keeper = threading.Thread(
            target=self._keep, args=(command, folder, inherited, spawned), name="kafka-keeper", daemon=True
        )
        self._keeper.start()
        self._process = spawned.result()
        self.pid = self._process.pid

    def _keep(
        self,
        command: Sequence[str],
        folder: Path,
        inherited: Sequence[int],
        spawned: Future[subprocess.Popen[bytes]],
    ) -> None:
        try:
            with (folder / OUTPUT_FILE).open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Ctrl-C goes to the terminal's whole foreground group, and Kafka must outlive its clients.
                    start_new_session=True,
                    pass_fds=inherited,
                )
        except OSError as error:
            spawned.set_exception(error)
            return
        spawned.set_result(process)
        process.wait()
        self.ended.set()

    @property
    def running(self) -> bool:
        return not self.ended.is_set()

    def stop(self, timeout: float) -> None:
        """Ask it to end, and kill it after `timeout` seconds; it has ended when this returns."""
        self._process.terminate()
        if not self.ended.wait(timeout):
            logger.warning("process %d did not end within %.0f s of SIGTERM; killing it", self.pid, timeout)
            self._process.kill()
        self._keeper.join()


class FolderLock:
    """The right to run a Kafka over a folder; Java inherits it, so it stands until both processes have ended.

    The file says who holds it, as [pid, time of creation] of the owner and of its Kafka: a pid alone may have been
    given to another process since.
    """

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._path = folder / LOCK_FILE
        self.descriptor = descriptor
        self._owner = _identity(os.getpid())
        self._path.write_text(json.dumps({"owner": self._owner}))

    @classmethod
    def take(cls, folder: Path) -> FolderLock:
        """Take it; a Kafka whose owner is gone is ended first, and killed if it does not end in time.

        Raises:
            FolderInUse: the owner is alive, or the holder cannot be found or ended.
        """
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        begun = time.monotonic()
        while not _locked(descriptor):
            owner, kafka = _holders(folder)
            waited = time.monotonic() - begun
            if owner is not None or waited > (ORPHAN_SECONDS if kafka is None else 2 * ORPHAN_SECONDS):
                os.close(descriptor)
                holder = owner or kafka
                raise FolderInUse(folder, holder.pid if holder else None)
            if kafka is not None:
                with suppress(psutil.NoSuchProcess):
                    kafka.send_signal(signal.SIGTERM if waited < ORPHAN_SECONDS else signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        return cls(folder, descriptor)

    def name_child(self, pid: int) -> None:
        """Write down the Java process, so that it can be ended if this process cannot do it."""
        with suppress(psutil.NoSuchProcess):  # it has already ended
            self._path.write_text(json.dumps({"owner": self._owner, "kafka": _identity(pid)}))

    def give_back(self) -> None:
        os.close(self.descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(pid: int) -> tuple[int, float]:
    return pid, psutil.Process(pid).create_time()


def _holders(folder: Path) -> tuple[psutil.Process | None, psutil.Process | None]:
    """The owner and the Kafka that the lock file names, each if it is alive."""
    try:
        named = json.loads((folder / LOCK_FILE).read_text())
    except ValueError:  # read between the truncation and the write of another process
        return None, None
    return _alive(named.get("owner")), _alive(named.get("kafka"))


def running_kafka(folder: Path) -> int | None:
    """The pid of the Kafka that runs over a folder, in whichever process; None where none does."""
    if not (folder / LOCK_FILE).exists():
        return None
    _, kafka = _holders(folder)
    return kafka.pid if kafka else None


def _alive(identity: tuple[int, float] | None) -> psutil.Process | None:
    if identity is None:
        return None
    try:
        process = psutil.Process(identity[0])
        # A correction of the system's clock moves the time of creation a little.
        same = abs(process.create_time() - identity[1]) < CLOCK_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def described(pid: int | None) -> str:
    """A process as a person would look for it."""
    if pid is None:
        return "a process that this user may not see"
    try:
        return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:120]})"
    except psutil.Error:
        return f"process {pid}"
