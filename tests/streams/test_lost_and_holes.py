"""What is no longer in a topic: lost records are counted and told once, and holes of compaction hold nobody up."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from streams.administration import begin_offsets, end_offsets
from streams.worker import EXIT_TRY_AGAIN
from tests.streams.test_watchdog import Worked, working
from tests.system.installation import until

LOST = re.compile(r"(\d+) records are lost \(offsets (\d+) to (\d+)\): retention removed them unread")


def remove_before(broker: str, topic: str, offset: int) -> None:
    """What retention does, at once."""
    client, at = AdminClient({"bootstrap.servers": broker}), TopicPartition(topic, 0, offset)
    client.delete_records([at])[at].result(20)
    assert begin_offsets(broker, [topic]) == {(topic, 0): offset}


def test_what_retention_removed_while_nobody_read_is_counted_and_told_once(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    """Case K7. The alert on `headstream_lost_records_total` is tested with the other rules."""
    topic = f"{prefix}retained"
    with working(broker, topic, tmp_path, "commit", 0.0) as worked:
        worked.process.kill()
        worked.process.wait()
        worked.publish(10, 11, 12, 13, 14)
        remove_before(broker, topic, 4)
    for told_now in ([("2", "2", "3")], []):
        again = Worked(broker, topic, tmp_path, "commit", 0.0)
        try:
            until(lambda again=again: again.worked(7), "it reads on where the topic begins now", 120)
            assert again.lost() == 2
            assert LOST.findall(again.log()) == told_now
        finally:
            again.close()


def test_what_retention_removes_before_a_reader_that_is_behind_is_not_jumped_over(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    """Case K7, of a process that runs: it ends with a sentence, and the next one counts what is lost."""
    topic = f"{prefix}overtaken"
    with working(broker, topic, tmp_path, "commit", 0.0) as worked:
        worked.process.send_signal(signal.SIGSTOP)
        time.sleep(1)  # by now Kafka has answered the fetch under way, which would bring what is about to be removed
        worked.publish(10, 11, 12, 13, 14)
        remove_before(broker, topic, 4)
        worked.process.send_signal(signal.SIGCONT)
        assert worked.process.wait(120) == EXIT_TRY_AGAIN
        assert f"topic {topic}, partition 0: offset 2, which is read next" in worked.log().splitlines()[-1]
        assert worked.worked_up_to() == 2


def test_an_offset_that_compaction_removed_holds_nobody_up(broker: str, prefix: str, tmp_path: Path) -> None:
    """Case K3: the stored offset, and most that follow, are holes."""
    topic = f"{prefix}holes"
    with working(broker, topic, tmp_path, "commit", 0.0):
        pass
    compact = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.001",
        "max.compaction.lag.ms": "1",
    }
    entries = [ConfigEntry(*each, incremental_operation=AlterConfigOpType.SET) for each in compact.items()]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = AdminClient({"bootstrap.servers": broker})
    client.incremental_alter_configs([resource])[resource].result(20)
    producer = Producer({"bootstrap.servers": broker})
    for version in range(100):
        for key in range(100):
            producer.produce(topic, str(version).encode(), str(key).encode(), partition=0)
        assert producer.flush(20) == 0
    end = end_offsets(broker, [topic])[topic, 0]

    def offsets() -> list[int]:
        """Of the records that the topic holds."""
        consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": topic,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(topic, 0, 0)])
        found = []
        while not (record := consumer.poll(20)).error():  # type: ignore[union-attr]
            found.append(record.offset())
        consumer.close()
        return found

    def kept() -> list[int]:
        producer.produce(topic, b"a new segment", b"last", partition=0)
        assert producer.flush(20) == 0
        return [offset for offset in offsets() if offset < end]

    until(lambda: len(kept()) <= 100, "it is compacted", 120)
    assert min(kept()) > 2
    worked = Worked(broker, topic, tmp_path, "commit", 0.0)
    try:
        ended = end_offsets(broker, [topic])[topic, 0]
        until(lambda: worked.worked(ended), "it reaches the end", 120)
        assert "lost" not in worked.log()
    finally:
        worked.close()
