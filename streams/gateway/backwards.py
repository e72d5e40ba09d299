"""Reading backwards: the newest records of a partition, a bounded stretch of them at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.access import librdkafka
from streams.client import LEADER_PAUSE_SECONDS, NO_LEADER_YET
from streams.gateway.refusal import Refusal

METADATA_SECONDS = 3.0
READ_SECONDS = 8.0
CHUNK_RECORDS = 200
LARGEST_FETCH_BYTES = 16 << 20
QUEUED_KIBIBYTES = 32 << 10


@contextmanager
def reading(broker: str) -> Iterator[Consumer]:
    """A consumer of no group, for one call."""
    consumer = Consumer(
        {
            **librdkafka(broker),
            # The library wants a name, but partitions are assigned by hand and nothing is ever committed.
            "group.id": "headstream-gateway-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
            "fetch.message.max.bytes": LARGEST_FETCH_BYTES,
            "fetch.max.bytes": LARGEST_FETCH_BYTES,
            "queued.max.messages.kbytes": QUEUED_KIBIBYTES,
            "log_level": 2,
            "error_cb": lambda _error: None,  # said by the call that fails
        }
    )
    try:
        yield consumer
    except KafkaException as failure:
        raise no_broker(failure.args[0].str()) from None
    finally:
        consumer.close()


def no_broker(reason: str) -> Refusal:
    message = f"Kafka does not answer: {reason}; try again in a moment"
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no-broker", message, headers={"Retry-After": "5"})


def partitions_of(consumer: Consumer, topic: str) -> list[int]:
    """The partitions of a topic; none where it does not exist."""
    return sorted(consumer.list_topics(topic, timeout=METADATA_SECONDS).topics[topic].partitions)


def bounds(consumer: Consumer, topic: str, partition: int = 0) -> tuple[int, int]:
    """The first offset that is held, and the one after the last."""
    deadline = time.monotonic() + METADATA_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=METADATA_SECONDS)
        except KafkaException as failure:
            if failure.args[0].code() not in NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(LEADER_PAUSE_SECONDS)


def newest_first(
    consumer: Consumer, topic: str, before: int | None, most: int, partition: int = 0
) -> Iterator[Message]:
    """Records before an offset (None: the end), newest first; at most `most` offsets back.

    Raises:
        Refusal: 503, if the broker does not give them in time.
    """
    begin, end = bounds(consumer, topic, partition)
    upper = end if before is None else min(before, end)
    lowest = max(begin, upper - most)
    while upper > lowest:
        lower = max(lowest, upper - CHUNK_RECORDS)
        yield from reversed(_between(consumer, topic, partition, lower, upper))
        upper = lower


def _between(consumer: Consumer, topic: str, partition: int, lower: int, upper: int) -> list[Message]:
    """Records from one offset to before another, oldest first; where none lies there is none."""
    consumer.assign([TopicPartition(topic, partition, lower)])
    found: list[Message] = []
    deadline = time.monotonic() + READ_SECONDS
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            continue
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                return found
            raise KafkaException(error)
        offset = message.offset()
        if offset is None or offset >= upper:
            return found
        found.append(message)
        if offset == upper - 1:
            return found
    raise no_broker(f"{topic} {partition} could not be read within {READ_SECONDS:.0f} s")
