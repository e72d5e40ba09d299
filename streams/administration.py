"""Topic administration: what must exist is made, what contradicts the configuration is named, and where topics end."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import InvalidReplicationFactorError, KafkaError, NoError, TopicAlreadyExistsError, for_code
from kafka.protocol.consumer import OffsetSpec

from schemas.errors import ExplainedError
from schemas.topics import Topic

TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = 0.1
CONNECT_SECONDS = 3.0
REQUEST_MILLISECONDS = 10_000

# A Metadata request, version 1, for no topic: key, version, correlation id, absent client id, empty array.
_METADATA_REQUEST = struct.pack(">hhihi", 3, 1, 1, -1, 0)

Answer = TypeVar("Answer")


class BrokerUnreachable(ExplainedError):
    """No broker of the cluster could be talked to in time."""

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(f"the Kafka broker {address} cannot be used: {reason}")


class PartitionsMismatch(ExplainedError):
    """An existing topic has another number of partitions than the configuration wants."""

    def __init__(self, topic: str, found: int, wanted: int) -> None:
        self.topic = topic
        self.found = found
        self.wanted = wanted
        super().__init__(
            f'topic "{topic}" has {found} partitions, but the configuration wants {wanted}: set kafka.partitions to '
            f"{found} if it is an events, requests or recommendations topic; else choose another kafka.prefix, or "
            f"delete the topic if its records are no longer needed"
        )


class TopicRefused(ExplainedError):
    """The cluster does not make a topic."""

    def __init__(self, topic: str, reason: str) -> None:
        self.topic = topic
        self.reason = reason
        super().__init__(f'the cluster does not create topic "{topic}": {reason}')


class Address(NamedTuple):
    """A host and a port, as Kafka writes them."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read host:port, with 9092 where no port is named; an IPv6 host stands in brackets.

        Raises:
            BrokerUnreachable: it is not of this form.
        """
        host, separator, port = text.strip().rpartition(":")
        if not separator or port.endswith("]"):
            host, port = text.strip(), "9092"
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise BrokerUnreachable(text, "a broker is written as host:port, such as kafka.example.org:9092")
        return cls(host.strip("[]"), int(port))


def ensure_topics(
    broker: str, topics: Sequence[Topic], replication: int, timeout: float = TIMEOUT_SECONDS
) -> list[str]:
    """Create the topics that are missing; any number of processes may do so at once.

    Args:
        broker: host:port, or several with commas between.
        topics: what must exist when this returns.
        replication: copies of each partition of a new topic.
        timeout: seconds to wait for the cluster, which may still be starting.

    Returns:
        Names of the topics that this call created.

    Raises:
        BrokerUnreachable: no broker answered in time, or only at addresses that cannot be reached from here.
        PartitionsMismatch: a topic exists with more or fewer partitions; nothing was created if it existed before.
        TopicRefused: the cluster does not create one, such as for want of brokers to replicate to.
    """
    with _cluster(broker, timeout) as cluster:
        missing = _missing(topics, cluster.partitions([topic.name for topic in topics]))
        created = cluster.create(missing, replication)
        cluster.wait_for(topics)
        _missing(topics, cluster.partitions([topic.name for topic in topics]))
        return created


def end_offsets(broker: str, topics: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> dict[tuple[str, int], int]:
    """The offset after the last record of each partition; a topic that does not exist has no entry.

    Raises:
        BrokerUnreachable: as for `ensure_topics`.
    """
    return _offsets(broker, topics, OffsetSpec.LATEST, timeout)


def begin_offsets(broker: str, topics: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> dict[tuple[str, int], int]:
    """The offset of the first record that each partition still holds; a topic that does not exist has no entry.

    Raises:
        BrokerUnreachable: as for `ensure_topics`.
    """
    return _offsets(broker, topics, OffsetSpec.EARLIEST, timeout)


def topic_ids(broker: str, topics: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> dict[str, str]:
    """The cluster's own id of each topic, another one after it was deleted and made anew.

    A topic that does not exist has no entry, nor has any on a cluster older than Kafka 2.8, which knows no ids.

    Raises:
        BrokerUnreachable: as for `ensure_topics`.
    """
    with _cluster(broker, timeout) as cluster:
        return cluster.ids(topics)


def advertised_addresses(address: Address, timeout: float = CONNECT_SECONDS) -> list[Address]:
    """Where the broker at `address` says that the brokers of its cluster are; empty while it is not yet part of one.

    It is asked in Kafka's own protocol, since client libraries follow these addresses at once and keep to themselves
    which one they failed to reach.

    Raises:
        OSError: it cannot be connected to, or does not speak Kafka.
    """
    with socket.create_connection(address, timeout) as connection:
        connection.sendall(struct.pack(">i", len(_METADATA_REQUEST)) + _METADATA_REQUEST)
        with connection.makefile("rb") as reply:
            try:
                _length, _correlation, count = struct.unpack(">iii", reply.read(12))
                return [_read_broker(reply.read) for _ in range(count)]
            except (struct.error, UnicodeDecodeError):
                raise ConnectionError("what listens there does not speak Kafka's protocol") from None


def _read_broker(read: Callable[[int], bytes]) -> Address:
    _node, host_length = struct.unpack(">ih", read(6))
    host = read(host_length).decode()
    port, rack_length = struct.unpack(">ih", read(6))
    read(max(rack_length, 0))
    return Address(host, port)


def _missing(topics: Sequence[Topic], found: dict[str, int]) -> list[Topic]:
    for topic in topics:
        if found.get(topic.name, topic.partitions) != topic.partitions:
            raise PartitionsMismatch(topic.name, found[topic.name], topic.partitions)
    return [topic for topic in topics if topic.name not in found]


def _offsets(broker: str, topics: Sequence[str], which: OffsetSpec, timeout: float) -> dict[tuple[str, int], int]:
    with _cluster(broker, timeout) as cluster:
        return cluster.offsets(cluster.partitions(topics), which)


@contextmanager
def _cluster(broker: str, timeout: float) -> Iterator[_Cluster]:
    deadline = time.monotonic() + timeout
    addresses = _await_reachable(broker, deadline)
    try:
        client = KafkaAdminClient(
            bootstrap_servers=[str(address) for address in addresses],
            bootstrap_timeout_ms=REQUEST_MILLISECONDS,
            request_timeout_ms=REQUEST_MILLISECONDS,
        )
    except KafkaError as error:
        raise BrokerUnreachable(broker, f"{type(error).__name__}: {error}") from error
    try:
        yield _Cluster(client, broker, deadline)
    finally:
        client.close()


def _await_reachable(broker: str, deadline: float) -> list[Address]:
    """The cluster's advertised addresses that can be connected to from here, once there are any."""
    bootstrap = [Address.parse(part) for part in broker.split(",")]
    while True:
        reasons = []
        for address in bootstrap:
            try:
                advertised = advertised_addresses(address)
            except OSError as error:
                reasons.append(f"{address}: {error}")
                continue
            failures = {each: _connect_failure(each) for each in advertised}
            if reachable := [each for each, failure in failures.items() if failure is None]:
                return reachable
            reasons += [
                f"{address} answers, but says that clients must connect to {each}, which fails ({failure}); correct "
                f"advertised.listeners of the broker, or make {each.host} known to this machine"
                for each, failure in failures.items()
            ] or [f"{address} is not yet part of a cluster"]
        if time.monotonic() > deadline:
            raise BrokerUnreachable(broker, "; ".join(reasons))
        time.sleep(RETRY_SECONDS)


def _connect_failure(address: Address) -> OSError | None:
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None


class _Cluster:
    """A connected administration client whose requests are repeated until a deadline while the cluster settles."""

    def __init__(self, client: Any, broker: str, deadline: float) -> None:
        self._client = client
        self._broker = broker
        self._deadline = deadline

    def partitions(self, names: Sequence[str]) -> dict[str, int]:
        """How many partitions each of these topics has; those that do not exist are left out."""
        found = self._settled(lambda: self._client.describe_topics(list(names)))
        return {topic["name"]: len(topic["partitions"]) for topic in found if topic["partitions"]}

    def ids(self, names: Sequence[str]) -> dict[str, str]:
        """The id of each of these topics that has one."""
        found = self._settled(lambda: self._client.describe_topics(list(names)))
        ids = {topic["name"]: str(topic.get("topic_id") or "") for topic in found if topic["partitions"]}
        return {name: topic_id for name, topic_id in ids.items() if topic_id.strip("0-")}

    def create(self, topics: Sequence[Topic], replication: int) -> list[str]:
        """Create these topics; one that another process created meanwhile is left to it."""
        wanted = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": replication,
                "configs": topic.settings,
            }
            for topic in topics
        }
        created = []
        while wanted:
            answer = self._settled(lambda: self._client.create_topics(wanted, raise_errors=False))
            for topic in answer["topics"]:
                name, error = topic["name"], for_code(topic["error_code"])
                if error in (NoError, TopicAlreadyExistsError):
                    created += [name] if error is NoError else []
                    del wanted[name]
                # A cluster that is starting counts too few brokers for a moment.
                elif time.monotonic() > self._deadline or not (
                    error.retriable or error is InvalidReplicationFactorError
                ):
                    raise TopicRefused(name, topic["error_message"] or error.__name__)
            if wanted:
                time.sleep(RETRY_SECONDS)
        return created

    def wait_for(self, topics: Sequence[Topic]) -> None:
        """Wait until every partition of these topics has a leader."""
        left = max(1.0, self._deadline - time.monotonic())
        try:
            self._client.wait_for_topics([topic.name for topic in topics], timeout_ms=left * 1000)
        except KafkaError as error:
            raise BrokerUnreachable(self._broker, str(error)) from error

    def offsets(self, partitions: dict[str, int], which: OffsetSpec) -> dict[tuple[str, int], int]:
        wanted = {TopicPartition(name, number): which for name, count in partitions.items() for number in range(count)}
        found = self._settled(lambda: self._client.list_partition_offsets(wanted))
        return {(each.topic, each.partition): position.offset for each, position in found.items()}

    def _settled(self, request: Callable[[], Answer]) -> Answer:
        while True:
            try:
                return request()
            except KafkaError as error:
                if not error.retriable or time.monotonic() > self._deadline:
                    raise BrokerUnreachable(self._broker, f"{type(error).__name__}: {error}") from error
            time.sleep(RETRY_SECONDS)
