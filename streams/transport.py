"""Faust's transport, fenced: whole polls for agents, positions from SQL, nothing skipped in silence.

Stock Faust hands over one record at a time, acknowledges a record even if its handler raised, reads uncommitted records
and takes its position from Kafka. Here one Faust event carries what one poll brought for one topic, positions come from
the claims in our store, and Kafka's committed offset only trails them, for lag tools.

All private names of Faust 0.15.3 and aiokafka 0.14.0 that we rely on are used in this file and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, Protocol

import faust
import faust.tables
import faust.tables.recovery
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.utils.futures import notify

from streams import access
from streams.store import Partition, Position

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.1, 3.0)
"""Shortest and longest pause between attempts to claim partitions while the database is away."""

BESIDE_FULL_SECONDS = 0.01
"""How long a poll of the other partitions may wait while an agent has as many polls as it may have."""


class Part:
    """One partition's share of one poll.

    Attributes:
        records: may be empty, when only the position moved: aborted or compacted records leave holes.
        follows: where the previous part of this partition ended.
        next: the position after this part.
    """

    __slots__ = ("follows", "next", "partition", "records", "topic")

    def __init__(self, topic: str, partition: int, records: Sequence[Any], follows: int, next_position: int) -> None:
        self.topic = topic
        self.partition = partition
        self.records = records
        self.follows = follows
        self.next = next_position

    @property
    def key(self) -> Partition:
        return self.topic, self.partition

    def split(self, most: int) -> tuple[Part, Part | None]:
        """The first so many records, and the rest if there is any."""
        if len(self.records) <= most:
            return self, None
        middle = self.records[most].offset
        first = Part(self.topic, self.partition, self.records[:most], self.follows, middle)
        return first, Part(self.topic, self.partition, self.records[most:], middle, self.next)


class Poll:
    """What one poll brought for one topic: the value of one Faust event.

    Attributes:
        epoch: which seek it follows; what was fetched before the newest seek is stale.
    """

    __slots__ = ("epoch", "parts", "topic")

    def __init__(self, topic: str, epoch: int) -> None:
        self.topic = topic
        self.epoch = epoch
        self.parts: list[Part] = []

    def split(self, most: int) -> tuple[Poll, Poll | None]:
        """About so many of the first records, evenly of all parts, and the rest if there is any."""
        each = -(-most // len(self.parts))
        first, rest = Poll(self.topic, self.epoch), Poll(self.topic, self.epoch)
        for part in self.parts:
            piece, left = part.split(each)
            first.parts.append(piece)
            if left is not None:
                rest.parts.append(left)
        return first, rest if rest.parts else None


class Ledger(Protocol):
    """Who owns the partitions and where each begins: what the transport asks of its application."""

    def claim(self, partitions: Collection[Partition]) -> Mapping[Partition, Position]:
        """Claim them in SQL; blocking, called on a thread of its own, tried again when it raises."""

    async def settle(
        self,
        positions: Mapping[Partition, Position],
        begins: Mapping[Partition, int],
        ends: Mapping[Partition, int],
    ) -> Mapping[Partition, int]:
        """Decide where to read on, given what SQL says and what the log holds; called after every assignment."""

    def overtaken(self, at: Mapping[Partition, int]) -> NoReturn:
        """The log does not hold the offsets any more that are to be read next; called on the consumer's thread."""


class SameNumberTogether(RoundRobinPartitionAssignor):  # type: ignore[misc]
    """Gives partition p of every topic to one member, so that a user's events meet wherever keys are user ids."""

    name = "headstream-same-number-together"

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        names = sorted(members)
        shares: dict[str, dict[str, list[int]]] = {name: {} for name in names}
        for topic in sorted({topic for member in members.values() for topic in member.subscription}):
            able = [name for name in names if topic in members[name].subscription]
            for partition in sorted(cluster.partitions_for_topic(topic) or ()):
                shares[able[partition % len(able)]].setdefault(topic, []).append(partition)
        return {
            name: ConsumerProtocolMemberAssignment(cls.version, sorted(share.items()), b"")
            for name, share in shares.items()
        }


class ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """The thread that owns the aiokafka consumer: it stamps every part with where it follows and where it ends."""

    epoch = 0

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust offers no setting for these; `start()`, which reads them, has not run yet.
        consumer._isolation_level = "read_committed"
        # One fetch per broker is in flight: a long poll on idle partitions would hold up those just drained.
        consumer._fetch_max_wait_ms = 50
        consumer._partition_assignment_strategy = (SameNumberTogether,)
        self._ends: dict[TopicPartition, int] = {}
        return consumer

    async def on_start(self) -> None:
        await super().on_start()
        # What any partition has buffered delays the fetch of all by this, in seconds (0.1 in aiokafka).
        self._consumer._fetcher._prefetch_backoff = 0.005

    async def seek_all(self, offsets: Mapping[Partition, int]) -> int:
        """Seek and begin a new epoch, in one step of this thread."""
        consumer = self._ensure_consumer()
        self.epoch += 1
        self._ends = {TopicPartition(*key): offset for key, offset in offsets.items()}
        for partition, offset in self._ends.items():
            consumer.seek(partition, offset)
        return self.epoch

    async def _fetch_records(
        self, consumer: Any, active_partitions: set[Any], timeout: float | None = None, max_records: int | None = None
    ) -> dict[str, Poll]:
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise driver.ConsumerStoppedError
        subscriptions = fetcher._subscriptions
        with subscriptions.fetch_context():
            try:
                fetched = await self._fetched(fetcher, active_partitions, timeout, max_records)
            except OffsetOutOfRangeError as error:
                self.consumer.app.ledger.overtaken({tuple(tp): offset for tp, offset in error.args[0].items()})
            except NoOffsetForPartitionError:
                # Another member came or went while this waited: partitions are assigned anew, Kafka's group has no
                # offset for them yet, and `seek_all`, which needs none, is still to come.
                return {}
        # No await from here on: records and positions belong to one instant of this thread.
        polls: dict[str, Poll] = {}
        subscription = subscriptions.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or not assignment.active:
            return polls
        for active in active_partitions:
            partition = TopicPartition(*active)
            follows, state = self._ends.get(partition), assignment.state_value(partition)
            if follows is None or state is None or not state.has_valid_position:
                continue
            position, records = state.position, fetched.get(partition, ())
            if records or position != follows:
                poll = polls.setdefault(partition.topic, Poll(partition.topic, self.epoch))
                poll.parts.append(Part(partition.topic, partition.partition, records, follows, position))
                self._ends[partition] = position
        return polls

    async def _fetched(
        self, fetcher: Any, active_partitions: set[Any], timeout: float | None, max_records: int | None
    ) -> dict[Any, Any]:
        """At most `max_records` of each partition; stock lets the first one fill the poll, again and again."""
        fetched: dict[Any, Any] = {}
        for partition in [each for each in fetcher._records if each in active_partitions]:
            try:
                fetched.update(await fetcher.fetched_records((partition,), 0, max_records))
            except Exception:
                if not fetched:
                    raise
                log.warning("a fetch error on %s waits for the next poll", partition, exc_info=True)
                break
        return fetched or await fetcher.fetched_records(active_partitions, timeout, max_records)


class Consumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer with our positions.

    Attributes:
        epoch: of the newest seek.
        done: for each partition the end of what was worked in this process.
        durable: for each partition the end of what SQL holds.
        claims: under which each partition is read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.epoch = 0
        self.done: dict[Partition, int] = {}
        self.durable: dict[Partition, int] = {}
        self.claims: dict[Partition, int] = {}
        self._told_kafka: dict[Partition, int] = {}
        # One after the other: a claim that another rebalance has overtaken must not come after that one's.
        self._claiming = ThreadPoolExecutor(1, thread_name_prefix="claims")
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> dict[TP, int]:
        """Claim what was assigned and seek to where SQL says; waits while the database is away."""
        assigned = self.assignment()
        keys = [(tp.topic, tp.partition) for tp in assigned]
        ledger: Ledger = self.app.ledger
        pause, longest = RETRY_SECONDS
        while True:
            try:
                positions = await asyncio.get_running_loop().run_in_executor(self._claiming, ledger.claim, keys)
                break
            except Exception as error:
                log.warning("cannot claim partitions, again in %.1f s: %s", pause, str(error).splitlines()[0])
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)
                if self.should_stop or self.assignment() != assigned:
                    return {}
        raw = [TopicPartition(*key) for key in keys]
        begins = (
            {tuple(tp): offset for tp, offset in (await self._thread.earliest_offsets(*raw)).items()} if raw else {}
        )
        ends = {tuple(tp): offset for tp, offset in (await self._thread.highwaters(*raw)).items()} if raw else {}
        at = dict(await ledger.settle(positions, begins, ends))
        self.epoch = await self._thread.call_thread(self._thread.seek_all, at)
        self.done = dict(at)
        self.durable = {key: at[key] if position.next is None else position.next for key, position in positions.items()}
        self.claims = {key: position.claim for key, position in positions.items()}
        self._told_kafka = {}
        log.info("reading %d partitions", len(at))
        return {TP(*key): offset for key, offset in at.items()}

    async def perform_seek(self) -> None:
        offsets = await self.seek_to_committed()
        self._read_offset.update(offsets)
        self._committed_offset.update(offsets)

    def ack(self, message: Any) -> bool:
        """Bookkeeping only: what is done is decided by SQL."""
        if message.acked:
            return False
        message.acked = True
        self._unacked_messages.discard(message)
        notify(self._waiting_for_ack)
        return True

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Tell Kafka what SQL holds, for lag tools: never ahead of it, never raising."""
        try:
            mine = {(tp.topic, tp.partition) for tp in self.assignment()}
            news = {
                key: offset
                for key, offset in self.durable.items()
                if key in mine and self._told_kafka.get(key) != offset
            }
            if not news:
                return False
            consumer = self._thread._ensure_consumer()
            offsets = {TopicPartition(*key): OffsetAndMetadata(offset, "") for key, offset in news.items()}
            await asyncio.wait_for(self._thread.call_thread(consumer.commit, offsets), 5)
            self._told_kafka.update(news)
        except Exception as error:
            log.warning("Kafka's own offsets were not moved: %r", error)
            return False
        return True

    async def _drain_messages(self, fetcher: Any) -> None:
        """Hand whole polls to the agents; a full one is left out of the poll, so that it never holds up the others."""
        app, limit = self.app, self.app.conf.stream_buffer_maxsize
        waiting: dict[str, Any] = {}  # by topic, the queue to its agent
        most, pause = app.conf.broker_max_poll_records, app.coalesce_seconds
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                    continue
                active = self._get_active_partitions()
                full = {topic for topic, queue in waiting.items() if queue.qsize() >= limit}
                free = {tp for tp in active if tp.topic not in full} if full else active
                if not free:
                    await asyncio.sleep(0.005 if active else 0.1)
                    continue
                polls = await self._getmany(active_partitions=free, timeout=BESIDE_FULL_SECONDS if full else 1.0)
                if self.should_stop:
                    break
                for poll in polls.values():
                    if not self.flow_active or poll.epoch != self.epoch:
                        break
                    self._deliver(poll, waiting)
                behind = any(len(part.records) >= most for poll in polls.values() for part in poll.parts)
                await asyncio.sleep(0 if behind else pause)
        except self.consumer_stopped_errors:
            if not app.should_stop:
                raise
        except asyncio.CancelledError:
            if not app.should_stop:
                raise

    def _deliver(self, poll: Poll, waiting: dict[str, Any]) -> None:
        """Put the poll into the queue of its topic's agent, and note that queue."""
        tp = TP(*poll.parts[0].key)
        for channel in self.app.topics._tp_index.get(tp, ()):
            message = ConsumerMessage(
                tp.topic, tp.partition, poll.parts[0].next - 1, 0.0, 0, None, None, None, None, 0, 0, tp,
                generation_id=self.app.consumer_generation_id,
            )  # fmt: skip
            message.incref(1)
            channel.queue.force_put_nowait(self.app.create_event(None, poll, None, message))
            waiting[tp.topic] = channel.queue


class Transport(driver.Transport):  # type: ignore[misc]
    """aiokafka's transport with our consumer."""

    Consumer = Consumer


class Recovery(faust.tables.recovery.Recovery):  # type: ignore[misc]
    """The service of Faust that seeks and reads on after a rebalance, with all the time that this takes.

    Stock Faust gives the seek `broker_request_timeout`, and mode takes a wait that has run out for a stop: the service
    then ends in silence, and nothing is read ever again. A database that is away, and a large checkpoint, take longer.
    """

    async def _wait(self, coro: Any, timeout: Any = None) -> None:  # noqa: ARG002
        await super()._wait(coro)


class Tables(faust.tables.TableManager):  # type: ignore[misc]
    """Faust's tables, of which there are none, with our recovery."""

    _recovery: Recovery | None = None

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


class App(faust.App):  # type: ignore[misc]
    """A Faust app whose agents receive `Poll`s.

    Attributes:
        ledger: asked for positions after every assignment.
        coalesce_seconds: pause after a poll that left nothing behind; records gather meanwhile, and a batch of many
            costs little more than a batch of one.
    """

    ledger: Ledger
    coalesce_seconds: float


def make_app(
    name: str, *, broker: str, ledger: Ledger, records_per_partition: int, coalesce_seconds: float, data: Path
) -> App:
    """A Faust app on our transport; `name` is the consumer group."""
    app = App(
        name,
        **access.faust(broker),
        datadir=str(data),
        store="memory://",
        TableManager=Tables,
        web_enabled=False,
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        key_serializer="raw",
        value_serializer="raw",
        stream_wait_empty=False,
        stream_buffer_maxsize=1,
        worker_redirect_stdouts=False,
        broker_commit_interval=2.0,
        broker_max_poll_records=records_per_partition,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_request_timeout=20.0,
        broker_rebalance_timeout=30.0,
        consumer_metadata_max_age_ms=5000,
        consumer_auto_offset_reset="none",  # never jump over what retention has removed
    )
    app.ledger = ledger
    app.coalesce_seconds = coalesce_seconds
    app.transport = Transport(app.conf.broker_consumer, app)
    return app


AgentBody = Callable[[Any], Any]


def add_agent(app: App, topic: str, body: AgentBody) -> None:
    """Register an agent over a topic; `body` iterates over a stream of `Poll`s."""

    async def agent(stream: Any) -> None:
        await body(stream)

    name = "".join(character if character.isalnum() else "_" for character in topic)
    agent.__name__ = f"agent_{name}"
    app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw"), name=agent.__name__)(agent)
