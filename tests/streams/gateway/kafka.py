"""What the tests of GATEWAY publish beside it, and read behind it."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition


def publish(broker: str, topic: str, value: bytes | None, key: bytes | None = None, **more: Any) -> tuple[int, int]:
    """Returns partition and offset."""
    places: list[tuple[int, int]] = []
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(
        topic,
        value,
        key,
        on_delivery=lambda _error, record: places.append((record.partition(), record.offset())),
        **more,
    )
    assert producer.flush(20) == 0
    return places[0]


def records(broker: str, topic: str) -> list[Any]:
    """All that a topic holds, by partition and offset."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "test-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        found, ended = [], set()
        while len(ended) < len(partitions):
            record = consumer.poll(10)
            assert record is not None
            if record.error():
                ended.add(record.partition())
            else:
                found.append(record)
        return sorted(found, key=lambda each: (each.partition(), each.offset()))
    finally:
        consumer.close()
