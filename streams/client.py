"""The client: how an outside company talks to Headstream, with a Kafka library of its own and JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.errors import ExplainedError
from schemas.recommendations import Recommendation, Trigger
from streams.access import librdkafka

log = logging.getLogger(__name__)

METADATA_SECONDS = 20.0
DELIVERY_SECONDS = 30.0
CLOSING_SECONDS = 2.0
MOST_AT_ONCE = 1000

# A topic that was made a moment ago has no leader for a moment.
NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
LEADER_PAUSE_SECONDS = 0.1

Delivered = Callable[[Trigger | None], None]
"""Called with where a record came to lie, or with None if Kafka did not take it."""

_decode = msgspec.json.Decoder(Recommendation).decode


class TopicMissing(ExplainedError):
    """A topic that the client should read does not exist."""

    def __init__(self, topic: str, broker: str) -> None:
        self.topic = topic
        self.broker = broker
        super().__init__(f'topic "{topic}" does not exist at {broker}; start Headstream there first')


class NotDelivered(ExplainedError):
    """Kafka did not acknowledge records in time."""

    def __init__(self, records: int, broker: str) -> None:
        self.records = records
        self.broker = broker
        super().__init__(f"{records} records were not taken by Kafka at {broker} in {DELIVERY_SECONDS:.0f} s")


class Client:
    """A producer and a reader of recommendations, both served by one thread: the caller of `poll`."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._undelivered = 0
        shared: dict[str, Any] = {**librdkafka(broker), "log_level": 2, "error_cb": self._on_error}
        self._producer = Producer(
            {
                **shared,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 1,
                "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
                # What Java clients do, so that a user's events meet in one partition whoever sends them.
                "partitioner": "murmur2_random",
            }
        )
        self._consumer = Consumer(
            {
                **shared,
                # The library wants a name, but partitions are assigned by hand and nothing is ever committed.
                "group.id": "headstream-audience",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
            }
        )

    def listen(self, topics: Sequence[str]) -> None:
        """Read these topics from here on; what arrived before is not read.

        Raises:
            TopicMissing: one of them does not exist.
        """
        self._consumer.assign(ends(self._consumer, topics, self._broker))

    def send(self, topic: str, key: str, value: object | None, delivered: Delivered | None = None) -> None:
        """Queue a record; an object becomes JSON, None a delete."""

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._undelivered += 1
                log.warning("Kafka did not take a record of %s: %s", topic, error.str())
            if delivered is not None:
                delivered(None if error is not None else _place(message))

        body = None if value is None else msgspec.json.encode(value)
        while True:
            try:
                self._producer.produce(topic, body, key.encode(), on_delivery=report)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as failure:
                # Such as for want of a right, which may be known before the record is queued.
                self._undelivered += 1
                log.warning("Kafka did not take a record of %s: %s", topic, failure.args[0].str())
                if delivered is not None:
                    delivered(None)
                return

    def flush(self) -> None:
        """Wait until everything that was sent is acknowledged.

        Raises:
            NotDelivered: Kafka did not take some of what was sent since the last flush.
        """
        try:
            left = self._producer.flush(DELIVERY_SECONDS)
        except SystemError as error:
            # confluent-kafka 2.16 raises this where a producer has failed for good, such as for want of a right.
            raise NotDelivered(max(1, len(self._producer)), self._broker) from error
        undelivered, self._undelivered = self._undelivered, 0
        if left + undelivered:
            raise NotDelivered(left + undelivered, self._broker)

    def poll(self, timeout: float) -> list[Recommendation]:
        """Wait up to `timeout` seconds for recommendations, and report deliveries on the way."""
        found: list[Recommendation] = []
        self._producer.poll(0)
        message = self._consumer.poll(timeout)
        for _ in range(MOST_AT_ONCE):
            if message is None:
                break
            value = message.value()
            if message.error() is not None:
                log.warning("reading recommendations: %s", message.error())
            elif value is not None:
                found.append(_decode(value))
            message = self._consumer.poll(0)
        self._producer.poll(0)
        return found

    def close(self) -> None:
        """Give what was sent a last chance and leave."""
        self._producer.flush(CLOSING_SECONDS)
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        log.warning("Kafka client: %s", error.str())


def ends(consumer: Consumer, topics: Sequence[str], broker: str) -> list[TopicPartition]:
    """Where topics end now, to be read from there on; left to the library, it would be from its first fetch.

    Raises:
        TopicMissing: one of them does not exist.
    """
    places: list[TopicPartition] = []
    for topic in topics:
        known = consumer.list_topics(topic, timeout=METADATA_SECONDS).topics[topic]
        if known.error is not None:
            raise TopicMissing(topic, broker)
        places += [TopicPartition(topic, number, _end(consumer, topic, number)) for number in known.partitions]
    return places


def _end(consumer: Consumer, topic: str, partition: int) -> int:
    """The offset that the next record will have."""
    deadline = time.monotonic() + METADATA_SECONDS
    while True:
        try:
            _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=METADATA_SECONDS)
            return end
        except KafkaException as failure:
            if failure.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(LEADER_PAUSE_SECONDS)


def _place(message: Message) -> Trigger | None:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        return None
    return Trigger(topic, partition, offset)
