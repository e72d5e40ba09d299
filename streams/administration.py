"""Topic administration: what must exist is made, what contradicts the configuration is named, and where topics end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import (
    GroupAuthorizationFailedError,
    InvalidReplicationFactorError,
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    TransactionalIdNotFoundError,
    for_code,
)
from kafka.protocol.consumer import OffsetSpec

from schemas.errors import ExplainedError
from schemas.topics import Topic
from streams.access import access_to, kafka_python
from streams.handshake import AccessRefused, Address, BrokerUnreachable, advertised_addresses, connect_failure
from streams.rights import Right, RightsMissing

__all__ = ["Address", "BrokerUnreachable", "advertised_addresses"]

TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = 0.1
REQUEST_MILLISECONDS = 10_000

# What a cluster answers about one resource, whatever state it is in itself.
NOT_OF_THE_CLUSTER = (
    GroupAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    TransactionalIdNotFoundError,
)

Answer = TypeVar("Answer")


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
        RightsMissing: we may not see one, or not create one that is missing.
    """
    with _cluster(broker, timeout) as cluster:
        missing = _missing(topics, cluster.partitions([topic.name for topic in topics]))
        created = cluster.create(missing, replication)
        cluster.wait_for(topics)
        _missing(topics, cluster.partitions([topic.name for topic in topics]))
        return created


def check_rights(broker: str, rights: Sequence[Right], topics: Sequence[str], timeout: float = TIMEOUT_SECONDS) -> None:
    """Ask the cluster whether we may do what we are about to do; one without ACLs allows everything.

    Who comes without a name has what everybody has, and is not asked about.

    Args:
        rights: what is needed.
        topics: all that exist of those that the names with "*" in `rights` may mean.

    Raises:
        RightsMissing: names each right that is missing.
        BrokerUnreachable: as for `ensure_topics`.
    """
    if not access_to(broker).user:
        return
    with _cluster(broker, timeout) as cluster:
        allowed, missing = cluster.allowed_on_topics(topics), []
        for right in rights:
            if right.kind == "topic":
                covered = [topic for topic in topics if right.covers(topic) and topic in allowed]
                missing += [right._replace(name=each) for each in covered if right.operation not in allowed[each]]
            elif not (cluster.allows_on_group if right.kind == "group" else cluster.allows_transactions)(right):
                missing.append(right)
    if missing:
        raise RightsMissing(access_to(broker).user, missing)


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
            **(kafka_python(broker) | {"bootstrap_servers": [str(address) for address in addresses]}),
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
    bootstrap, access = [Address.parse(part) for part in broker.split(",")], access_to(broker)
    while True:
        reasons = []
        for address in bootstrap:
            try:
                advertised = advertised_addresses(address, access)
            except AccessRefused:
                raise  # it would be refused again
            except OSError as error:
                reasons.append(f"{address}: {error}")
                continue
            failures = {each: connect_failure(each) for each in advertised}
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


class _Cluster:
    """A connected administration client whose requests are repeated until a deadline while the cluster settles."""

    def __init__(self, client: Any, broker: str, deadline: float) -> None:
        self._client = client
        self._broker = broker
        self._deadline = deadline

    def _describe(self, names: Sequence[str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._settled(lambda: self._client.describe_topics(list(names)))
        unseen = [each["name"] for each in found if for_code(each["error_code"]) is TopicAuthorizationFailedError]
        if unseen:
            self._lack([Right("Describe", "topic", name) for name in unseen])
        return found

    def _lack(self, missing: Sequence[Right]) -> NoReturn:
        raise RightsMissing(access_to(self._broker).user or "who comes without a name", missing)

    def allowed_on_topics(self, names: Sequence[str]) -> dict[str, set[str]]:
        """The operations that are allowed on each of these topics, where the cluster says so (from Kafka 2.3 on)."""
        return {
            topic["name"]: {_spelt(each) for each in topic["authorized_operations"]}
            for topic in self._describe(names)
            if topic["authorized_operations"]
        }

    def allows_on_group(self, right: Right) -> bool:
        name = right.name.removesuffix("*")
        try:
            group = self._settled(lambda: self._client.describe_groups([name]))[name]
        except GroupAuthorizationFailedError:
            return False
        return not group["authorized_operations"] or right.operation in map(_spelt, group["authorized_operations"])

    def allows_transactions(self, right: Right) -> bool:
        """As far as the cluster says: it tells only who may not even describe them."""
        try:
            self._settled(lambda: self._client.describe_transactions([right.name]))
        except TransactionalIdNotFoundError:
            return True
        except TransactionalIdAuthorizationFailedError:
            return False
        return True

    def partitions(self, names: Sequence[str]) -> dict[str, int]:
        """How many partitions each of these topics has; those that do not exist are left out."""
        found = self._describe(names)
        return {topic["name"]: len(topic["partitions"]) for topic in found if topic["partitions"]}

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
                elif error is TopicAuthorizationFailedError:
                    self._lack([Right("Create", "topic", each) for each in wanted])
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
            except NOT_OF_THE_CLUSTER:
                raise
            except KafkaError as error:
                if not error.retriable or time.monotonic() > self._deadline:
                    raise BrokerUnreachable(self._broker, f"{type(error).__name__}: {error}") from error
            time.sleep(RETRY_SECONDS)


def _spelt(operation: str) -> str:
    """DESCRIBE_CONFIGS as Kafka's tools write it."""
    return operation.title().replace("_", "")
