"""The outbox waits for a Kafka that is away, sends everything once, and says that it was fenced off.

No dead letter stops it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.decoding import Invalid
from schemas.topics import LARGEST_DEAD_LETTER_BYTES, LARGEST_INPUT_BYTES, Topic
from streams.administration import ensure_topics
from streams.broker import EmbeddedBroker
from streams.outbox import Outbox, PublishFailed, TransactionTooLong
from tests.system.installation import until


def test_a_producer_whose_place_was_taken_fails_in_words(broker: str, prefix: str) -> None:
    """DESIGN §5, invariant 2. confluent-kafka 2.16 raises SystemError here, without a reason."""
    topic = f"{prefix}any"
    ensure_topics(broker, [Topic(topic, 1, {})], 1)
    first = Outbox(broker, transactional_id=prefix)
    first.begin()
    first.send(topic, b"key", b"value", partition=0)
    first.flush()
    first.commit()
    second = Outbox(broker, transactional_id=prefix)
    first.begin()
    with pytest.raises(PublishFailed):
        first.send(topic, b"key", b"value", partition=0)
        first.flush()
    second.close()


def test_a_cluster_that_allows_no_transaction_so_long_is_told_what_to_set(broker: str, prefix: str) -> None:
    """Kafka's own limit is 900 s unless the brokers are told otherwise."""
    with pytest.raises(TransactionTooLong, match=r"up to 901 s.* transaction\.max\.timeout\.ms to 901000 or more"):
        Outbox(broker, timeout=901, transactional_id=prefix)


class Aside(NamedTuple):
    """A record as the transport gives it."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    partition: int = 3
    offset: int = 81
    timestamp: int = 1_700_000_000_000


@pytest.mark.parametrize(
    "record",
    [
        Aside(b"k", bytes(LARGEST_INPUT_BYTES - 100), (("mine", b"\xff"),)),
        Aside(bytes(LARGEST_INPUT_BYTES - 100), None, ()),
        Aside(b"k", bytes(LARGEST_INPUT_BYTES + 1), ()),
        Aside(bytes(2 * LARGEST_INPUT_BYTES), b"", ()),
        Aside(b"k", b"", (("mine", bytes(LARGEST_INPUT_BYTES)),)),
    ],
)
def test_a_dead_letter_is_always_taken_whole_where_it_fits_and_as_its_headers_where_not(
    broker: str, prefix: str, record: Aside
) -> None:
    """Case K14: a topic whose owner lets in larger records than ours do must not stand still at one of them."""
    topic = f"{prefix}dead-letters"
    ensure_topics(broker, [Topic(topic, 1, {"max.message.bytes": str(LARGEST_DEAD_LETTER_BYTES)})], replication=1)
    outbox = Outbox(broker)
    outbox.put_aside(topic, record, "events", Invalid("too-large", "why"))
    outbox.flush()
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": topic,
            "enable.auto.commit": False,
            "fetch.message.max.bytes": LARGEST_DEAD_LETTER_BYTES,
            "fetch.max.bytes": LARGEST_DEAD_LETTER_BYTES,
            "receive.message.max.bytes": 2 * LARGEST_DEAD_LETTER_BYTES,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    letter = consumer.poll(30)
    consumer.close()
    assert letter is not None and not letter.error()
    size = len(record.key or b"") + len(record.value or b"") + sum(len(content or b"") for _, content in record.headers)
    fits = size < LARGEST_INPUT_BYTES
    assert (letter.key(), letter.value()) == ((record.key, record.value) if fits else (None, None))
    headers = letter.headers() or []
    assert headers[:-6] == (list(record.headers) if fits else [])
    assert dict(headers)["source.offset"] == b"81"


def test_a_transaction_is_committed_once_by_the_same_producer_after_kafka_was_away(
    kafka_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """DESIGN §5, invariant 1; the log has a line when Kafka goes and one when it is back, not one for each attempt."""
    with EmbeddedBroker(kafka_folder) as broker:
        ensure_topics(broker.address, [Topic("once", 1, {})], 1)
        outbox = Outbox(broker.address, transactional_id="once")

        def publish(first: int) -> None:
            outbox.send("once", b"key", str(first).encode(), partition=0)
            outbox.flush()
            outbox.send("once", b"key", str(first + 1).encode(), partition=0)
            outbox.flush()
            outbox.commit()

        outbox.begin()
        publish(0)
        outbox.begin()
        outbox.send("once", b"key", b"2", partition=0)
        outbox.flush()  # Kafka has a part of the transaction when it goes
        broker.stop()
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publish, 3)
            until(lambda: "Kafka fails" in caplog.text, "it is said that Kafka is away", 60)
            assert not publishing.done()
            broker.start()
            publishing.result(60)
        outbox.begin()
        publish(5)
        outbox.close()
        assert committed(broker.address, "once", 7) == [str(number).encode() for number in range(7)]
    said = [message for message in caplog.messages if message.startswith("Kafka ")]
    assert len([message for message in said if "works again, after" in message]) == 1
    assert len(said) < 30  # a line every ten seconds, however slowly Kafka starts


def committed(broker: str, topic: str, count: int) -> list[bytes | None]:
    """What a reader of committed records finds, and that there is no more."""
    reader = Consumer({"bootstrap.servers": broker, "group.id": "reader", "isolation.level": "read_committed"})
    reader.assign([TopicPartition(topic, 0, 0)])
    found = [record.value() for record in reader.consume(count + 1, 3.0)]
    reader.close()
    return found
