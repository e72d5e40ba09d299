"""The embedded broker: a real Apache Kafka on loopback, as a child process over one folder that outlives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from streams.handshake import Address, advertised_addresses
from streams.kafka_files import (
    HOST,
    KAFKA,
    LOG_FILE,
    PROPERTIES_FILE,
    RECORDS,
    KafkaMissing,
    Ports,
    PortTaken,
    StartFailed,
    cache_folder,
    choose_ports,
    configure,
    format_folder,
    java_command,
    kafka_jars,
    log_size,
    reason_in_log,
    silent,
)
from streams.kafka_process import POLL_SECONDS, STOP_SECONDS, BrokerError, Child, FolderInUse, FolderLock

__all__ = ["BrokerError", "EmbeddedBroker", "FolderInUse", "KafkaMissing", "PortTaken", "StartFailed"]

START_SECONDS = 90.0


class EmbeddedBroker:
    """Apache Kafka as a child process over a folder that holds its records, its ports and its log.

    A restart on the same folder, wherever it was moved, finds every acknowledged record. The address stays the same as
    long as this object lives, and beyond unless another process took it. The child ends with this process, however
    this process ends.
    """

    def __init__(self, folder: Path, *, port: int = 0, on_step: Callable[[str], None] = silent) -> None:
        """Name the folder; nothing is started.

        Args:
            folder: made if it does not exist; one Kafka at a time runs over it.
            port: on loopback; 0 takes a free one at the first start and keeps it.
            on_step: told a sentence before each step that a person waits for.
        """
        self.folder = folder.resolve()
        self._port = port
        self._on_step = on_step
        self._lock: FolderLock | None = None
        self._ports: Ports | None = None
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """Where clients connect: host:port. Known once started, and kept after a stop."""
        if self._ports is None:
            raise BrokerError("the embedded Kafka has no address before its first start")
        return f"{HOST}:{self._ports.broker}"

    @property
    def pid(self) -> int:
        """The process id of the Java process; 0 while none runs."""
        return self._child.pid if self._child is not None and self._child.running else 0

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.running

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until Kafka has ended, for `timeout` seconds at most; True if it has."""
        return self._child is None or self._child.ended.wait(timeout)

    def start(self, timeout: float = START_SECONDS) -> str:
        """Start Kafka and return its address once it answers; a running one is left alone.

        Args:
            timeout: seconds for Kafka to be ready, not counting the fetching of its jars.

        Raises:
            FolderInUse, PortTaken, KafkaMissing, StartFailed: with nothing left running.
            OSError: the folder cannot be made or written to.
        """
        if self.running:
            return self.address
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock or FolderLock.take(self.folder)
        try:
            # Who uses a Kafka that has ended waits for it where it was.
            self._ports = choose_ports(self.folder, self._ports.broker if self._ports else self._port)
            jars = kafka_jars(cache_folder(), self._on_step)
            deadline = time.monotonic() + timeout
            java = java_command(jars)
            if not (self.folder / RECORDS).exists():
                self._on_step("preparing a new Kafka folder")
                format_folder(self.folder, java, self._ports, timeout)
            self._on_step(f"starting Apache Kafka {KAFKA} on {self.address}")
            configure(self.folder, self._ports, RECORDS)
            command = [*java, "kafka.Kafka", PROPERTIES_FILE]
            before = log_size(self.folder)
            self._child = Child(command, self.folder, [self._lock.descriptor])
            self._lock.name_child(self._child.pid)
            self._await_answer(deadline, timeout, before)
        except BaseException:
            self.stop()
            raise
        return self.address

    def _await_answer(self, deadline: float, timeout: float, before: int) -> None:
        assert self._child is not None and self._ports is not None
        log = self.folder / LOG_FILE
        while not _answers(self._ports.broker):
            if self._child.ended.wait(POLL_SECONDS):
                raise StartFailed("ended while it started", reason_in_log(self.folder, before), log)
            if time.monotonic() > deadline:
                raise StartFailed(f"did not answer within {timeout:.0f} s", reason_in_log(self.folder, before), log)

    def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Stop Kafka and give the folder back; it is killed if it has not ended after `timeout` seconds.

        No acknowledged record is lost either way; after a kill the next start takes some seconds more.
        """
        if self._child is not None:
            self._child.stop(timeout)
            self._child = None
        if self._lock is not None:
            self._lock.give_back()
            self._lock = None

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def _answers(port: int) -> bool:
    """Whether the broker names itself to clients, as it does once it takes part in its cluster."""
    try:
        return bool(advertised_addresses(Address(HOST, port)))
    except OSError:
        return False
