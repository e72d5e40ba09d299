"""The outbox waits for a Kafka that is away, sends everything once, and says that it was fenced off."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.topics import Topic
from streams.administration import ensure_topics
from streams.broker import EmbeddedBroker
from streams.outbox import Outbox, PublishFailed
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
