"""The outbox says that it was fenced off, whatever its client library makes of that."""

from __future__ import annotations

import pytest

from schemas.topics import Topic
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
