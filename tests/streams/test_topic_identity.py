"""A topic that was deleted and made anew is never read on as if it were the one before (cases K8 and S20)."""

from __future__ import annotations

import signal
from pathlib import Path

from confluent_kafka.admin import AdminClient

from schemas.topics import Topic
from streams.administration import ensure_topics
from streams.topic_identity import IdentityWatch, read_topic_ids
from streams.worker import EXIT_CONFIGURATION
from tests.streams.test_watchdog import Worked, working
from tests.system.installation import until


def replace(broker: str, topic: str) -> None:
    """Delete it, and make it again."""
    before = read_topic_ids(broker, [topic])
    client = AdminClient({"bootstrap.servers": broker})
    client.delete_topics([topic])[topic].result(20)
    until(lambda: read_topic_ids(broker, [topic]) == {}, "the topic is gone")
    ensure_topics(broker, [Topic(topic, 1, {})], replication=1)
    until(lambda: read_topic_ids(broker, [topic]), "the topic is there again")
    assert read_topic_ids(broker, [topic]) != before


def test_a_topic_of_the_same_name_is_another_and_one_that_is_gone_is_no_other(broker: str, prefix: str) -> None:
    topic = f"{prefix}identity"
    ensure_topics(broker, [Topic(topic, 1, {})], replication=1)
    known = read_topic_ids(broker, [topic, f"{prefix}nowhere"])
    assert known.keys() == {topic}
    watch = IdentityWatch(broker, lambda: known, lambda _: None)
    assert watch.look() is None
    replace(broker, topic)
    assert watch.look() == topic
    assert IdentityWatch("127.0.0.1:9", lambda: known, lambda _: None).look() is None


def test_a_worker_ends_with_a_sentence_when_its_topic_is_replaced_and_does_not_begin_on_it(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    topic = f"{prefix}replaced"
    with working(broker, topic, tmp_path, "commit", 0.0) as worked:
        replace(broker, topic)
        worked.publish(10, 11, 12, 13)  # longer than what was worked of the one before
        assert worked.process.wait(60) == EXIT_CONFIGURATION
        assert f"topic {topic} was deleted and made anew" in worked.log().splitlines()[-1]
    again = Worked(broker, topic, tmp_path, "commit", 0.0)
    try:
        assert again.process.wait(60) == EXIT_CONFIGURATION
        assert "made anew" in again.log().splitlines()[-1]
        assert again.worked_up_to() == 2
    finally:
        again.close()


def test_a_worker_whose_offset_is_gone_says_so_of_the_topic_rather_than_of_retention(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    """It fetches, when it goes on, before it looks again: the new topic is shorter than what was worked."""
    topic = f"{prefix}shorter"
    with working(broker, topic, tmp_path, "commit", 0.0) as worked:
        worked.process.send_signal(signal.SIGSTOP)
        replace(broker, topic)
        worked.process.send_signal(signal.SIGCONT)
        assert worked.process.wait(60) == EXIT_CONFIGURATION
        assert f"topic {topic} was deleted and made anew" in worked.log().splitlines()[-1]
