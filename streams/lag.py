"""Lag: how many records of its topics an application has not worked yet, over all of its processes."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from streams.access import librdkafka
from streams.store import Store

TIMEOUT_SECONDS = 5.0
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class Lag:
    """Asks the broker for ends and the database for positions, so that it is right whichever process works what."""

    def __init__(self, broker: str, store: Store, topics: Mapping[str, str], partitions: int) -> None:
        """Connect when first asked.

        Args:
            store: of the application.
            topics: for each scenario the topic that is read.
            partitions: of each of these topics.
        """
        self._store = store
        self._scenario_of = {topic: name for name, topic in topics.items()}
        self._broker = broker
        self._admin: AdminClient | None = None
        self._wanted = {
            TopicPartition(topic, number): topic for topic in topics.values() for number in range(partitions)
        }

    def records(self) -> dict[str, int]:
        """For each scenario the records between position and end.

        Raises:
            KafkaException: the broker does not say.
            DBAPIError: the database does not.
        """
        positions = self._store.positions()
        # A client that saw its broker restart goes on naming the leader's old epoch, and is refused for ever.
        admin, self._admin = self._admin or AdminClient({**librdkafka(self._broker), "log_level": 2}), None
        answers = admin.list_offsets(
            dict.fromkeys(self._wanted, LATEST),
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=TIMEOUT_SECONDS,
        )
        behind = dict.fromkeys(self._scenario_of.values(), 0)
        for each, answer in answers.items():
            stored = positions.get((each.topic, each.partition))
            end = answer.result(TIMEOUT_SECONDS * 2).offset
            behind[self._scenario_of[each.topic]] += max(0, end - ((stored.next if stored else None) or 0))
        self._admin = admin
        return behind
