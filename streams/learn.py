"""LEARN: examples become weights, item texts become vectors; both are published, and orders are carried out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import torch
from confluent_kafka import KafkaException
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from learner.encoder import TextEncoder
from learner.online import OnlineLearner
from learner.strategy import MakeStrategy
from schemas.control import Control, decode_control
from schemas.decoding import Invalid
from schemas.failpoints import failpoint
from schemas.records import decode_example
from schemas.reports import Erasure
from schemas.settings import Settings
from schemas.topics import Topics
from streams import metrics
from streams.broadcast import Broadcast
from streams.catalogue import Catalogue
from streams.checkpoint_lock import share_checkpoints
from streams.checkpoints import Checkpoints, Positions
from streams.device import choose_device
from streams.history import History
from streams.learn_erasing import LearnErasing
from streams.learn_metrics import LearnMetrics
from streams.operations import Operations
from streams.outbox import Outbox, PublishFailed, TransactionTooLong
from streams.patience import Patience, reason_of
from streams.publishing import Publisher
from streams.reporting import Reporter
from streams.serve_erasing import name_of, read_wish
from streams.shortlists import Shortlists
from streams.signals import StopSignals
from streams.store import Effect, Fenced, Partition, Store
from streams.transport import Part
from streams.watching import Watching
from streams.worker import EXIT_CONFIGURATION, EXIT_TRY_AGAIN, Commit, Worker, stop_process

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 64
STANCE_SECONDS = 5.0
NEWS_SECONDS = 0.05
"""How often LEARN looks whether there is news to publish."""


class Learn:
    """The handler of LEARN's batches and of its orders.

    One LEARN at a time writes: the producer's transactional id fences an older one off Kafka, the claims fence it off
    the database. Another one may stand by; it takes over from the newest checkpoint. What publishes is made only then.

    Attributes:
        active: whether partitions were assigned to this process.
        positions: how far it has come.
        watching, erasing, operations, catalogue: what it does beside learning; the latter two are there once it is
            active.
    """

    catalogue: Catalogue
    operations: Operations
    _publisher: Publisher
    _dead_letters: Outbox

    def __init__(
        self, settings: Settings, broker: str, store: Store, learner: OnlineLearner, encoder: TextEncoder
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._store = store
        self._learner = learner
        self._encoder = encoder
        self._topics = Topics(settings)
        self._scenario_of = {self._topics.examples(name): name for name in settings.scenarios}
        self._shortlists = Shortlists(learner.table, settings.index)
        learner.examiner.search_of = self._shortlists.search_of
        self._history = History(store.engine)
        self._claims: Callable[[], Mapping[Partition, int]] = dict
        self.active = False
        self.positions = Positions()
        self._checkpoints = Checkpoints(settings, store, self._history, learner, self.positions)
        self.watching = Watching(settings, broker, store, learner)
        self.erasing = LearnErasing(
            store, learner, self._checkpoints.folder, lambda: self._claims(), self._write_checkpoint
        )

    def follow_claims(self, claims: Callable[[], Mapping[Partition, int]]) -> None:
        """Be told where the claims are to be had under which offsets are committed."""
        self._claims = claims

    # Examples

    def assigned(self, at: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Begin from the newest checkpoint, or go on in memory if nobody else has learnt meanwhile."""
        if not at:
            if self.active:
                stop_process(EXIT_TRY_AGAIN, "another LEARN has taken over; this one starts again and stands by")
            return at
        if self.active:
            if self._checkpoints.durable != dict(at):
                stop_process(EXIT_TRY_AGAIN, "another LEARN has learnt meanwhile; this one starts again")
            return self.positions.examples
        self._begin()
        self._restore(at)
        self.active = True
        return self.positions.examples

    def _begin(self) -> None:
        """Make what publishes; from here on an older LEARN is fenced off."""
        try:
            outbox = Outbox(self._broker, transactional_id=f"{self._settings.kafka.prefix}learn")
        except TransactionTooLong as error:
            stop_process(EXIT_CONFIGURATION, str(error))
        self._dead_letters = Outbox(self._broker)
        self._publisher = Publisher(outbox, self._topics, self._store, self._shortlists)
        self.catalogue = Catalogue(
            self._topics, self._store, self._learner, self._encoder, self._publisher, self._dead_letters
        )
        self.operations = Operations(
            self._settings,
            self._learner,
            self._store,
            self._history,
            Reporter(self._dead_letters, self._topics.drift, self._history),
            self._publisher.publish,
            self._write_checkpoint,
        )

    def _restore(self, at: Mapping[Partition, int]) -> None:
        facts = self._checkpoints.restore(at)
        if facts is not None:
            self.operations.resume(
                msgspec.convert(facts.extra.get("performed", []), list[str]),
                msgspec.convert(facts.extra.get("consolidating"), Control | None),
            )

    def work(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:  # noqa: ARG002
        """Learn in memory; the offsets become durable with the next checkpoint."""
        examples = [decode_example(record.value) for part in parts for record in part.records]
        began, scenario = time.perf_counter(), self._scenario_of[topic]
        new = self._learner.learn(scenario, examples)
        failpoint("learn.learnt")
        self.watching.worked(scenario, new, time.perf_counter() - began)
        self.erasing.count_refused()
        for part in parts:
            self.positions.examples[part.key] = part.next
        self.operations.heed()

    # Orders

    def obey(self, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        """Carry out records of the control topic; what is no order goes to the dead letters."""
        for record in records:
            order = (
                Invalid("null", "an order needs a value")
                if record.value is None
                else decode_control(record.value, record.timestamp / 1000, Counter())
            )
            if isinstance(order, Control):
                self.operations.perform(order)
                continue
            log.warning("an order cannot be taken: %s", order.message)
            self._dead_letters.put_aside(self._topics.dead_letters, record, self._topics.control, order)
            self._dead_letters.flush()
        # Only now: each order has a checkpoint of its own, which must not pass over those that are still to be obeyed.
        self.positions.control.update(after)

    # Publishing

    def publish_everything(self) -> None:
        """For readers that may have none of it."""
        self._publisher.publish(self._learner.versions.republish())

    # Checkpoints

    def checkpoint(self) -> Mapping[Partition, int]:
        """Write all that was learnt, if that is news; returns the offsets that are durable now."""
        if not self.active or self._checkpoints.up_to_date:
            return self._checkpoints.durable
        self.watching.test_probes()
        return self._write_checkpoint({}, lambda _: None)

    def _write_checkpoint(self, kept: Mapping[str, int], effect_too: Effect) -> Mapping[Partition, int]:
        orders = {"performed": self.operations.remembered(), "consolidating": self.operations.under_way()}

        def effect(connection: Connection) -> None:
            self.erasing.say_refused(connection)
            effect_too(connection)

        return self._checkpoints.write(self._claims(), orders, kept, effect)


def run_learn(
    settings: Settings,
    broker: str,
    store: Store,
    patience: Patience,
    stops: StopSignals,
    on_ready: Callable[[], None],
) -> NoReturn:
    """Run LEARN until it is told to stop; `on_ready` is called once its first weights are published."""
    share_checkpoints(Path(settings.data).resolve())
    torch.set_num_threads(settings.learn.threads)
    device = choose_device(settings.learn.device)
    topics = Topics(settings)
    encoder = TextEncoder(settings.model.encoder, device)
    learner = OnlineLearner(settings, encoder.dimension, device)
    learn = Learn(settings, broker, store, learner, encoder)
    ready = asyncio.Event()
    encoding = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def admit() -> None:
        await ready.wait()
        if learner.run.step == 0 or not items.caught_up.is_set():
            # The text projection is fitted at the first step, to the catalogue that is known by then; and a model that
            # was warmed elsewhere learns which of its items may be recommended here.
            await items.catch_up()

    worker = Worker(
        f"{settings.kafka.prefix}learn",
        broker=broker,
        store=store,
        handler=learn,
        topics=[topics.examples(name) for name in settings.scenarios],
        records_per_partition=settings.learn.micro_batch,
        coalesce_seconds=settings.learn.coalesce_milliseconds / 1000,
        data=Path(settings.data) / "faust",
        admit=admit,
        patience=patience,
        watchdog_seconds=settings.kafka.watchdog_seconds,
    )

    async def on_worker(call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(worker.thread, call, *arguments)
        except Fenced as fenced:
            stop_process(EXIT_TRY_AGAIN, f"another LEARN has taken over; this one starts again and stands by: {fenced}")
        except DBAPIError as error:
            # What is in memory may be ahead of what was to be kept: the newest checkpoint is whole.
            stop_process(EXIT_TRY_AGAIN, f"the database has failed, LEARN starts again: {reason_of(error)}")
        except (PublishFailed, KafkaException) as error:
            stop_process(EXIT_TRY_AGAIN, f"Kafka has failed, LEARN starts again from its newest checkpoint: {error}")

    async def apply_items(_topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        loop = asyncio.get_running_loop()
        news = await loop.run_in_executor(encoding, learn.catalogue.read, records, after)
        changed = list(news.changed.values())
        await on_worker(learn.catalogue.remove, news.deleted)
        for start in range(0, len(changed), TEXTS_AT_ONCE):
            some = changed[start : start + TEXTS_AT_ONCE]
            texts = await loop.run_in_executor(encoding, learn.catalogue.encode, some)
            await on_worker(learn.catalogue.put, some, texts)
        await on_worker(learn.positions.items.update, dict(after))

    async def obey(_topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        await on_worker(learn.obey, records, dict(after))

    items = Broadcast(broker, [topics.items], apply_items)
    orders = Broadcast(broker, [topics.control], obey)

    async def erase(_topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        for record in records:
            wish = read_wish(record)
            if not isinstance(wish, Erasure):
                continue  # SERVE puts it aside
            name = name_of(wish, record)
            # A step at a time, so that examples are learnt between.
            done = False
            while not done:
                await on_worker(learn.erasing.forget, name, wish)
                while await on_worker(learn.erasing.rewrite_one, name, wish):
                    pass
                done = await on_worker(learn.erasing.finish, name)
        await on_worker(learn.positions.erasures.update, dict(after))

    erasures = Broadcast(broker, [topics.erasures], erase)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def follow() -> None:
        while not learn.active:  # a LEARN that stands by publishes nothing
            await asyncio.sleep(NEWS_SECONDS)
        await on_worker(learn.publish_everything)
        items.positions.update(learn.positions.items)
        ready.set()
        on_ready()
        await items.run()

    async def every(seconds: float, call: Callable[[], Any]) -> None:
        await ready.wait()
        while True:
            began = time.monotonic()
            await on_worker(call)
            await asyncio.sleep(max(NEWS_SECONDS, seconds - (time.monotonic() - began)))

    learn.follow_claims(lambda: dict(worker.consumer.claims))

    def checkpoint() -> None:
        try:
            worker.consumer.durable.update(learn.checkpoint())
        except (OSError, DBAPIError) as error:
            # Such as for want of space. Learning goes on; what is not on record is learnt again after a restart.
            log.warning("the checkpoint could not be written, offsets stay where they were: %s", reason_of(error))
            metrics.checkpoint_failures.inc()

    @worker.app.task  # type: ignore[untyped-decorator]
    async def obey_orders() -> None:
        await ready.wait()
        orders.positions.update(learn.positions.control)
        await orders.run()

    @worker.app.task  # type: ignore[untyped-decorator]
    async def obey_erasures() -> None:
        await ready.wait()
        erasures.positions.update(learn.positions.erasures)
        await erasures.run()

    @worker.app.task  # type: ignore[untyped-decorator]
    async def consolidate() -> None:
        await ready.wait()
        while True:
            under_way = await on_worker(learn.operations.consolidate)
            await asyncio.sleep(NEWS_SECONDS if under_way else STANCE_SECONDS / 5)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def judge() -> None:
        await every(settings.gate.seconds, lambda: learn.operations.judge())

    @worker.app.task  # type: ignore[untyped-decorator]
    async def say_stances() -> None:
        await every(STANCE_SECONDS, lambda: learn.operations.say_stances())

    @worker.app.task  # type: ignore[untyped-decorator]
    async def measure() -> None:
        await ready.wait()
        await LearnMetrics(settings, broker, store, learner).run(worker.thread)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def watch() -> None:
        await ready.wait()
        await learn.watching.run(worker.thread)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def adopt() -> None:
        if not settings.learn.avalanche:
            return
        # Avalanche takes long to import, and nobody shall wait for it: the plain strategy learns the same meanwhile.
        await ready.wait()
        try:
            make = await asyncio.get_running_loop().run_in_executor(None, _avalanche)
        except Exception as error:  # whatever: it reads and writes the home folder, and brings a hundred libraries
            log.warning("Avalanche cannot be imported, learning goes on with the plain strategy: %r", error)
            return
        await on_worker(learner.adopt, make)
        learn.watching.knows_avalanche = True
        log.info("learning through Avalanche from step %d on", learner.run.step)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def publish() -> None:
        await every(settings.learn.publish_seconds, lambda: learn.operations.publish_news())

    @worker.app.task  # type: ignore[untyped-decorator]
    async def save() -> None:
        await every(settings.learn.checkpoint_seconds, checkpoint)

    worker.run(stops, checkpoint, settings.stop_seconds)


def _avalanche() -> MakeStrategy:
    from learner.avalanche import AvalancheStrategy

    return AvalancheStrategy
