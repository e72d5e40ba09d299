"""The outbox says that it was fenced off, whatever its client library makes of that, and no dead letter stops it."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.decoding import Invalid
from schemas.topics import LARGEST_DEAD_LETTER_BYTES, LARGEST_INPUT_BYTES, Topic
from streams.administration import ensure_topics
from streams.outbox import Outbox, PublishFailed


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


class Aside(NamedTuple):
    """A record as the transport gives it."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    partition: int = 3
    offset: int = 81


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
    assert headers[:-5] == (list(record.headers) if fits else [])
    assert dict(headers)["source.offset"] == b"81"
