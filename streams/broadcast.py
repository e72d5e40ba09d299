"""Broadcast reading: every partition of some topics, by a consumer without a group that never gives up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from schemas.topics import LARGEST_INPUT_BYTES
from streams.access import aiokafka
from streams.store import Partition

log = logging.getLogger(__name__)

Apply = Callable[[str, Sequence[Any], Mapping[Partition, int]], Awaitable[None]]
"""Takes records of one topic in, and the position of every partition read once they are."""


class Broadcast:
    """Follows topics from given positions; a record counts as read only when `apply` has returned.

    Attributes:
        positions: of each partition, the offset that is read next; set before `run` to go on from there.
        caught_up: set once all that was in the topics at the start has been applied.
    """

    def __init__(
        self,
        broker: str,
        topics: Sequence[str],
        apply: Apply,
        *,
        records: int = 500,
        pause_seconds: float = 0.002,
        made_anew: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Prepare to read.

        Args:
            records: of one poll, at most.
            made_anew: told of a topic that ends before what was read of it, which is then read from its start.
        """
        self._broker = broker
        self._topics = topics
        self._apply = apply
        self._records = records
        self._pause_seconds = pause_seconds
        self._made_anew = made_anew
        self.positions: dict[Partition, int] = {}
        self.caught_up = asyncio.Event()
        self._consumer: Any = None

    async def run(self) -> None:
        """Read for ever; a failing broker is asked again each second."""
        while True:
            consumer = AIOKafkaConsumer(
                **aiokafka(self._broker),
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=LARGEST_INPUT_BYTES,
                max_poll_records=self._records,
                metadata_max_age_ms=5000,
            )
            try:
                await consumer.start()
                self._consumer = consumer
                await self._follow(consumer)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.warning("cannot read %s, again in 1 s: %r", ", ".join(self._topics), error)
                await asyncio.sleep(1)
            finally:
                await asyncio.shield(consumer.stop())

    async def catch_up(self) -> None:
        """Wait until all that the topics hold at this moment has been applied."""
        await self.caught_up.wait()
        ends = await self._consumer.end_offsets([TopicPartition(*key) for key in self.positions])
        while any(self.positions[tp.topic, tp.partition] < end for tp, end in ends.items()):
            await asyncio.sleep(0.02)

    async def _follow(self, consumer: Any) -> None:
        partitions = [
            TopicPartition(topic, partition)
            for topic in self._topics
            for partition in sorted(consumer.partitions_for_topic(topic) or await self._partitions(consumer, topic))
        ]
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        for tp in partitions:
            at = self.positions.get((tp.topic, tp.partition), 0)
            if at > ends[tp]:
                self._made_anew(tp.topic)
            # A compacted topic may begin late, and one that was made anew ends early: it is then read from its start.
            self.positions[tp.topic, tp.partition] = begins[tp] if at > ends[tp] else max(at, begins[tp])
            consumer.seek(tp, self.positions[tp.topic, tp.partition])
        while True:
            if not self.caught_up.is_set() and all(
                self.positions[tp.topic, tp.partition] >= ends[tp] for tp in partitions
            ):
                self.caught_up.set()
            polled = await consumer.getmany(timeout_ms=200, max_records=self._records)
            by_topic: dict[str, list[Any]] = {}
            for tp, records in polled.items():
                by_topic.setdefault(tp.topic, []).extend(records)
            # Holes left by compaction and transactions move the position without any record.
            after = {(tp.topic, tp.partition): await consumer.position(tp) for tp in partitions}
            for topic in self._topics:
                if records := by_topic.get(topic):
                    await self._apply(topic, records, after)
            self.positions.update(after)
            if polled:
                await asyncio.sleep(self._pause_seconds)  # leaves the loop to the agents while a backlog is read

    async def _partitions(self, consumer: Any, topic: str) -> set[int]:
        while True:
            await consumer._client.force_metadata_update()
            if found := consumer.partitions_for_topic(topic):
                partitions: set[int] = found
                return partitions
            log.warning("waiting for topic %s to be created", topic)
            await asyncio.sleep(1)
