"""The worker loop: "agent over a topic" becomes batches that are worked, committed and acknowledged, once each."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, Protocol

import faust
import sqlalchemy as sa

from schemas.records import OtherVersion
from streams import metrics
from streams.last_words import end_within, say_stacks
from streams.outbox import PublishFailed
from streams.patience import PAUSES_SECONDS, Patience, reason_of
from streams.signals import StopSignals
from streams.store import Effect, Fenced, Partition, Position, Progress, Store
from streams.topic_identity import IdentityWatch, TopicReplaced, read_topic_ids
from streams.transport import App, Consumer, Part, Poll, add_agent, make_app
from streams.turns import Turns
from streams.watchdog import Watchdog

log = logging.getLogger(__name__)

# Exit codes, after sysexits(3) where one fits.
EXIT_BUG = 70
EXIT_TRY_AGAIN = 75
EXIT_CONFIGURATION = 78

SWITCH_SECONDS = 0.0005
"""Each of the many small tensor operations of a ranking gives the interpreter up and wants it back from the loop."""
GARBAGE_THRESHOLD = 50_000
"""Objects made before the garbage collector looks at the youngest; batches make many that all live a little while."""
STOP_SECONDS = 8.0

# mallopt(3): blocks up to the first are taken from the heap, and the heap is given back only beyond the second. What a
# batch frees the next one needs again, and fetching fresh pages costs more than most tensor operations.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
HEAP_BLOCK_BYTES, HEAP_KEPT_BYTES = 32 << 20, 64 << 20

Commit = Callable[[Effect], None]


class Handler(Protocol):
    """What an application does with a batch. Called on the worker thread, one batch at a time."""

    def work(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:
        """Work these records.

        Effects go to SQL through `commit`, together with the batch's offsets and at most once; outputs must be
        acknowledged by Kafka before that. A handler that keeps its effects in memory does not call it, and makes
        offsets durable with its own checkpoint. A database error makes the batch be worked again from the start.
        """

    def assigned(self, at: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """These partitions are ours now, and SQL holds all before these offsets.

        Returns:
            Where to read on: the same, unless what the handler holds in memory is ahead of SQL or behind it.
        """


class LogTruncated(Exception):
    """A stored offset lies beyond the end of its partition: the topic was made anew, or this is another cluster."""

    def __init__(self, topic: str, partition: int, stored: int, begin: int, end: int) -> None:
        self.topic, self.partition, self.stored, self.begin, self.end = topic, partition, stored, begin, end
        super().__init__(
            f"topic {topic}, partition {partition}: the database says that all before offset {stored} is worked, "
            f"but the log holds only {begin} to {end}. Was the topic made anew, or is this another cluster? "
            "Use a fresh --data folder (or database) for it."
        )


def stop_process(code: int, reason: str) -> NoReturn:
    """End at once, saying why; the supervisor starts a fresh process, and SQL decides where it begins."""
    log.critical("%s", reason)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)


def _end_for(replaced: str) -> NoReturn:
    """End the process for a topic that is not the one that was worked."""
    stop_process(EXIT_CONFIGURATION, str(TopicReplaced(replaced)))


def end_if_stuck(seconds: float, loop: asyncio.AbstractEventLoop) -> None:
    """End a process that is told to stop now, if it has not within so long."""

    def end() -> NoReturn:
        say_stacks(loop)
        stop_process(EXIT_TRY_AGAIN, f"stopping took longer than {seconds:g} s; where, the stacks above say")

    end_within(seconds, end)


class Worker:
    """Runs one application: a Faust app whose agents hand whole polls to a handler on one worker thread.

    The one thread keeps order and keeps torch off the event loop; Faust's own thread goes on sending heartbeats
    however long a batch takes.
    """

    def __init__(
        self,
        application: str,
        *,
        broker: str,
        store: Store,
        handler: Handler,
        topics: Collection[str],
        records_per_partition: int,
        coalesce_seconds: float,
        data: Path,
        admit: Callable[[], Awaitable[object]],
        patience: Patience,
        turn_seconds: float = math.inf,
        watchdog_seconds: float = 0.0,
    ) -> None:
        """Put the application together; nothing runs yet.

        Args:
            admit: awaited before every batch, so that the application can first get ready for it.
            patience: with the database; what it does not take is tried again as long as that lasts.
            turn_seconds: about so long a topic is worked before the others have their turn.
            watchdog_seconds: for which records may wait of which none is worked; 0 is for ever.
        """
        self.store = store
        self.handler = handler
        self._admit = admit
        self._patience = patience
        self._turns = Turns(turn_seconds)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="worker")
        self.app: App = make_app(
            application,
            broker=broker,
            ledger=self,
            records_per_partition=records_per_partition,
            coalesce_seconds=coalesce_seconds,
            data=data,
        )
        self._broker = broker
        self._topic_ids: Mapping[str, str] = {}
        for topic in topics:
            add_agent(self.app, topic, self._agent)
        self._identities = self._keep_identity_watch()
        if watchdog_seconds:
            self._keep_watchdog(broker, watchdog_seconds)

    def _keep_identity_watch(self) -> IdentityWatch:
        identities = IdentityWatch(self._broker, lambda: self._topic_ids, _end_for)

        @self.app.task  # type: ignore[untyped-decorator]
        async def watch() -> None:
            identities.start()

        return identities

    def _keep_watchdog(self, broker: str, seconds: float) -> None:
        @self.app.task  # type: ignore[untyped-decorator]
        async def watch() -> None:
            loop = asyncio.get_running_loop()

            def bite(matter: str) -> None:
                say_stacks(loop)
                stop_process(EXIT_TRY_AGAIN, f"{matter}: this process hangs and ends; where, the stacks above say")

            Watchdog(broker, seconds, lambda: self.consumer.done, self._patience, bite).start()

    @property
    def consumer(self) -> Consumer:
        consumer: Consumer = self.app.consumer
        return consumer

    # The ledger: asked by the transport after every assignment

    def claim(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        ids = read_topic_ids(self._broker, {topic for topic, _ in partitions})
        worked = self.store.topic_ids()
        for topic in sorted(ids):
            if worked.get(topic, {ids[topic]}) != {ids[topic]}:
                _end_for(topic)
        self._topic_ids = ids
        return self.store.claim(partitions, ids)

    async def settle(
        self, positions: Mapping[Partition, Position], begins: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> Mapping[Partition, int]:
        """Read on where SQL says. Records that retention removed first are counted and reported, never jumped over."""
        at: dict[Partition, int] = {}
        for key, position in positions.items():
            stored, begin, end = position.next, begins[key], ends[key]
            if stored is not None and stored > end:
                stop_process(EXIT_CONFIGURATION, str(LogTruncated(*key, stored, begin, end)))
            if stored is not None and stored < begin:
                self._report_lost(key, position.claim, stored, begin)
            at[key] = begin if stored is None else max(stored, begin)
        return await asyncio.get_running_loop().run_in_executor(self.thread, self.handler.assigned, at)

    def overtaken(self, at: Mapping[Partition, int]) -> NoReturn:
        """A fresh process asks what the log holds, and says what is lost; but one of another topic would not help."""
        if (replaced := self._identities.look()) is not None:
            _end_for(replaced)
        (topic, partition), offset = next(iter(at.items()))
        stop_process(
            EXIT_TRY_AGAIN,
            f"topic {topic}, partition {partition}: offset {offset}, which is read next, is not in the log any more: "
            "starting again, which tells what is lost",
        )

    def _report_lost(self, key: Partition, claim: int, stored: int, begin: int) -> None:
        topic, partition = key
        log.critical(
            "topic %s, partition %d: %d records are lost (offsets %d to %d): retention removed them unread",
            topic, partition, begin - stored, stored, begin - 1,
        )  # fmt: skip
        metrics.lost_records.labels(topic).inc(begin - stored)
        self.store.commit(
            [Progress(topic, partition, stored, begin, claim)],
            lambda connection: self.store.add_tallies(connection, topic, {(partition, "lost"): begin - stored}),
        )

    # The loop of every agent

    async def _agent(self, stream: Any) -> None:
        try:
            async for poll in stream:
                await self._admit()
                for turn in self._turns.cut(poll):
                    await self._take(turn)
        except asyncio.CancelledError:
            raise
        except OtherVersion as error:
            stop_process(EXIT_CONFIGURATION, str(error))  # it would fail again
        except PublishFailed as error:
            stop_process(EXIT_TRY_AGAIN, f"{error}; the batch comes again after a new start")
        except Exception:
            # Crash-only: Faust would restart the agent and drop the batch.
            traceback.print_exc()
            stop_process(EXIT_BUG, "an agent failed; see the traceback above")

    async def _take(self, poll: Poll) -> None:
        loop, consumer = asyncio.get_running_loop(), self.consumer
        pause, longest = PAUSES_SECONDS
        while not self.app.should_stop:
            if poll.epoch != consumer.epoch:
                return  # fetched before the newest seek: these records come again
            parts = [part for part in poll.parts if part.key in consumer.done]
            for part in parts:
                if part.follows != consumer.done[part.key]:
                    stop_process(
                        EXIT_TRY_AGAIN,
                        f"a batch of {part.topic} {part.partition} was lost: worked up to {consumer.done[part.key]}, "
                        f"the next one follows {part.follows}",
                    )
            if not parts:
                return
            claims = {part.key: consumer.claims[part.key] for part in parts}
            try:
                durable = await loop.run_in_executor(self.thread, self._work, poll.topic, parts, claims)
            except Fenced as fenced:
                log.warning("%s", fenced)
                if poll.epoch == consumer.epoch:
                    for key in fenced.partitions:
                        consumer.done.pop(key, None)
                continue  # the other partitions of this batch are still ours
            except sa.exc.DBAPIError as error:
                if self._patience.failed(error):
                    stop_process(
                        EXIT_TRY_AGAIN, f"the database fails for {self._patience.seconds:.0f} s: {reason_of(error)}"
                    )
                metrics.database_retries.inc()
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                continue
            if durable:
                self._patience.succeeded()
            if poll.epoch == consumer.epoch:  # a seek may have come while we worked
                for part in parts:
                    consumer.done[part.key] = part.next
                    if durable:
                        consumer.durable[part.key] = part.next
            return

    def _work(self, topic: str, parts: Sequence[Part], claims: Mapping[Partition, int]) -> bool:
        """On the worker thread; returns whether the handler committed."""
        committed, began = False, time.perf_counter()

        def commit(effect: Effect) -> None:
            nonlocal committed
            progress = [Progress(*part.key, part.follows, part.next, claims[part.key]) for part in parts]
            self.store.commit(progress, effect)
            committed = True

        self.handler.work(topic, parts, commit)
        records, seconds = sum(len(part.records) for part in parts), time.perf_counter() - began
        self._turns.took(topic, records, seconds)
        metrics.batch_records.labels(topic).observe(records)
        metrics.batch_seconds.labels(topic).observe(seconds)
        return committed

    # The process

    def run(
        self, stops: StopSignals, before_exit: Callable[[], None] | None = None, stop_seconds: float = STOP_SECONDS
    ) -> NoReturn:
        """Run until a stop signal, then stop cleanly within `stop_seconds`, and end the process.

        Args:
            before_exit: called on the worker thread after the last batch, if nothing has failed.
        """
        worker = faust.Worker(self.app, override_logging=False, redirect_stdouts=False, quiet=True)
        worker.spinner = None

        def stop() -> None:
            end_if_stuck(stop_seconds, worker.loop)
            self._patience.end()
            worker.loop.call_soon_threadsafe(worker._schedule_shutdown, signal.SIGTERM)

        stops.then(stop)
        # What the libraries have made by now lives as long as the process: the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        _keep_freed_memory()
        sys.setswitchinterval(SWITCH_SECONDS)
        code = 0
        try:
            worker.execute_from_commandline()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        except BaseException:
            traceback.print_exc()
            code = EXIT_BUG
        if code == 0 and before_exit is not None:
            try:
                self.thread.submit(before_exit).result()
            except (Fenced, sa.exc.DBAPIError) as error:
                log.warning("not saved at the end: %s", error)
        self.thread.shutdown(wait=True)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)


def _keep_freed_memory() -> None:
    """Let the C library keep what is freed, where it is one that can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES)
        mallopt(M_TRIM_THRESHOLD, HEAP_KEPT_BYTES)
