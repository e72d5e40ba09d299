"""Reads topics from outside, as a consumer would: each committed record once, from where it stopped before."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

PATIENCE_SECONDS = 30.0
LARGEST_BYTES = 10_000_000


class TopicReader:
    """Follows some topics by hand, without a group."""

    def __init__(self, broker: str, topics: Sequence[str]) -> None:
        self._topics = topics
        self._at: dict[tuple[str, int], int] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": "fault-campaign",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.message.max.bytes": LARGEST_BYTES,
                "log_level": 2,
            }
        )

    def read(self) -> Iterator[Message]:
        """All that has come since the last time."""
        partitions = [(topic, number) for topic in self._topics for number in self._partitions(topic)]
        self._consumer.assign([TopicPartition(*key, self._at.get(key, 0)) for key in partitions])
        waiting = set(partitions)
        while waiting:
            message = self._consumer.poll(PATIENCE_SECONDS)
            if message is None:
                raise TimeoutError(f"no record and no end of {waiting} for {PATIENCE_SECONDS:.0f} s")
            key = (str(message.topic()), int(message.partition() or 0))
            if (error := message.error()) is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                waiting.discard(key)
                continue
            self._at[key] = int(message.offset() or 0) + 1
            yield message

    def next(self, topic: str, partition: int) -> int:
        return self._at.get((topic, partition), 0)

    def ends(self) -> dict[tuple[str, int], int]:
        """The offset after the last record of each partition."""
        found = {}
        for topic in self._topics:
            for number in self._partitions(topic):
                _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=PATIENCE_SECONDS)
                found[topic, number] = end
        return found

    def _partitions(self, topic: str) -> Collection[int]:
        """Asked again while no broker is there, as after a fault that has killed it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._consumer.list_topics(topic, timeout=PATIENCE_SECONDS).topics[topic].partitions.keys()
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def close(self) -> None:
        self._consumer.close()
