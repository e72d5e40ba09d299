"""Following: SERVE's mirror is kept up with its topics, from a snapshot or from their start, and a snapshot is kept."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch

from schemas.records import OtherVersion
from schemas.settings import Settings
from schemas.topics import Topics
from streams.administration import end_offsets
from streams.background import give_way
from streams.broadcast import Broadcast
from streams.mirror import Mirror, Noted
from streams.snapshot import Restored, SnapshotRefused, made_for, read_snapshot, write_snapshot
from streams.store import Partition
from streams.topic_identity import IdentityWatch, read_topic_ids
from streams.worker import EXIT_CONFIGURATION, EXIT_TRY_AGAIN, stop_process

log = logging.getLogger(__name__)

CROWDED_SECONDS = 0.05

CHEAP_SECONDS = 1.0
"""A snapshot that took no longer is also written when the process stops."""
UNCHANGED_SECONDS = 3600.0
"""After which a snapshot is written again although nothing has changed: an old one is refused."""
PAUSE_SECONDS = 0.0005
"""Between two slices of a snapshot, so that rankings come to their turn."""


class Following:
    """Keeps a mirror up with the topics of items, vectors and weights, and a snapshot of it on disk.

    Attributes:
        mirror: to be used on the thread of `begin` alone.
        ready: set once all that the topics held at the start is in the mirror.
    """

    def __init__(self, settings: Settings, broker: str) -> None:
        """Start from the snapshot, if there is one that can be used; nothing is read from Kafka yet.

        Raises:
            BrokerUnreachable: the broker does not answer.
        """
        self._topics = Topics(settings)
        self._seconds = settings.serve.snapshot_seconds
        self._broker = broker
        followed = [self._topics.items, self._topics.vectors, self._topics.weights]
        self._topic_ids = read_topic_ids(broker, followed)
        self._purpose = made_for(settings, self._topic_ids)
        self._file = snapshot_file(settings)
        self._restored = self._restore(settings, broker) if self._seconds else None
        self.mirror = self._restored.mirror if self._restored else Mirror(settings, torch.device("cpu"))
        self.mirror.hold()
        self.ready = asyncio.Event()
        self._broadcast = Broadcast(broker, followed, self._apply, made_anew=_begin_again)
        if self._restored:
            self._broadcast.positions.update(self._restored.positions)
        self._thread: Executor
        self._records = 0
        self._writing = threading.Lock()
        self._written: tuple[float, Mapping[Partition, int]] = (-UNCHANGED_SECONDS, {})
        self._took_seconds: float | None = None

    def _restore(self, settings: Settings, broker: str) -> Restored | None:
        ends = end_offsets(broker, [self._topics.items, self._topics.vectors])
        try:
            return read_snapshot(self._file, self._purpose, settings, ends, time.time())
        except SnapshotRefused as refused:
            log.warning("%s; the topics are read from their start", refused)
        except Exception:
            # Whatever is wrong with it, all of it is in the topics too: it must never keep SERVE from starting.
            log.exception("the snapshot %s is not used; the topics are read from their start", self._file)
        return None

    # Reading

    async def run(self, thread: Executor) -> None:
        """Read the topics for ever; what they bring is taken in on `thread`."""
        self._thread = thread
        # A topic that was made anew and is as long as what was read of the one before ends no read: its id tells it.
        IdentityWatch(self._broker, lambda: self._topic_ids, _begin_again).start()
        await self._broadcast.run()

    async def begin(self) -> None:
        """Wait until the mirror is up with the topics, and let it be used."""
        await self._broadcast.caught_up.wait()
        await self._on_thread(self.mirror.settle)
        if self._restored:
            log.info(
                "started from a snapshot of %d items, %.0f s old; %d records read since",
                self._restored.items, time.time() - self._restored.written_at, self._records,
            )  # fmt: skip
        self.ready.set()

    async def _on_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def _apply(self, topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        # What LEARN publishes waits in its topic while compactions do not keep up, and searches stay fast.
        while topic == self._topics.vectors and self.mirror.crowded:
            await asyncio.sleep(CROWDED_SECONDS)
        await self._on_thread(self._take, topic, records, after)
        self._records += len(records)

    def _take(self, topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        try:
            if topic == self._topics.items:
                self.mirror.take_items(records)
            elif topic == self._topics.vectors:
                self.mirror.take_vectors(records, after[topic, 0])
            else:
                self.mirror.take_weights(records)
        except OtherVersion as error:
            stop_process(EXIT_CONFIGURATION, str(error))  # it would fail again, and the mirror would stand still

    # Snapshots

    async def keep_snapshots(self) -> None:
        """Write a snapshot from time to time; the first one at once, unless the mirror began with one."""
        await self.ready.wait()
        if not self._seconds:
            return
        writer = ThreadPoolExecutor(1, thread_name_prefix="snapshot", initializer=give_way)
        if self._restored:
            await asyncio.sleep(self._seconds)
        while True:
            positions = self._items_read()
            noted = await self._on_thread(self.mirror.note)
            await asyncio.get_running_loop().run_in_executor(writer, self._write, noted, positions)
            await asyncio.sleep(self._seconds)

    def write_last(self) -> None:
        """Write a snapshot as the process stops, if that is soon done."""
        if self._took_seconds is not None and self._took_seconds < CHEAP_SECONDS:
            self._write(self.mirror.note(), self._items_read())

    def _items_read(self) -> dict[Partition, int]:
        """How far the items topic is in the mirror, or farther: a position moves once its records are applied."""
        return {key: at for key, at in self._broadcast.positions.items() if key[0] == self._topics.items}

    def _write(self, noted: Noted, items_read: Mapping[Partition, int]) -> None:
        began, now = time.monotonic(), time.time()
        positions = {**items_read, (self._topics.vectors, 0): noted.sequence}
        written, before = self._written
        if positions == before and began - written < UNCHANGED_SECONDS:
            return
        if not self._writing.acquire(blocking=False):
            return  # the process stops, and the one that is being written will not be finished
        try:
            size = write_snapshot(
                self._file, self._purpose, noted, positions, now, pause=partial(time.sleep, PAUSE_SECONDS)
            )
        except Exception as error:
            # SERVE answers as well without one, and would only start more slowly.
            log.warning("the snapshot %s was not written: %r", self._file, error)
            return
        finally:
            self._writing.release()
        self._written, self._took_seconds = (began, positions), time.monotonic() - began
        log.info("wrote a snapshot of %d items: %.0f MB in %.1f s", len(noted.item_ids), size / 1e6, self._took_seconds)


def snapshot_file(settings: Settings) -> Path:
    """Where the snapshots of an installation lie; any SERVE may start from what another one wrote."""
    return Path(settings.data).resolve() / "serve" / f"{settings.kafka.prefix}mirror.safetensors"


def _begin_again(topic: str) -> NoReturn:
    """What was read of a topic that is no more must not stay; the next process begins with what it holds now."""
    stop_process(EXIT_TRY_AGAIN, f"topic {topic} was deleted and made anew: starting again, with what it holds now")
