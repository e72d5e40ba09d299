"""LEARN: examples become weights, item texts become vectors, and both are published and checkpointed."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import torch
from confluent_kafka import KafkaException
from sqlalchemy.engine import Connection

from learner.checkpoint import CheckpointMismatch, DamagedCheckpoint
from learner.encoder import TextEncoder
from learner.online import OnlineLearner
from learner.publication import Publication
from learner.saved import StateMismatch
from learner.strategy import MakeStrategy
from schemas.control import Control, decode_control
from schemas.decoding import Invalid
from schemas.items import Item, decode_item, decode_item_key
from schemas.records import ItemVector, OtherVersion, decode_example, encode
from schemas.reports import dead_letter_headers
from schemas.settings import Settings
from schemas.topics import Topics
from streams import metrics
from streams.broadcast import Broadcast
from streams.checkpoint_lock import share_checkpoints
from streams.device import choose_device
from streams.history import History
from streams.learn_metrics import LearnMetrics
from streams.operations import Operations
from streams.outbox import Outbox
from streams.reporting import Reporter
from streams.shortlists import Shortlists
from streams.signals import StopSignals
from streams.store import Effect, Partition, Position, Progress, Store
from streams.transport import Part
from streams.versions import to_drop
from streams.watching import Watching
from streams.worker import EXIT_CONFIGURATION, EXIT_TRY_AGAIN, Commit, Worker, stop_process

log = logging.getLogger(__name__)

TEXTS_AT_ONCE = 64
STANCE_SECONDS = 5.0
NEWS_SECONDS = 0.05
"""How often LEARN looks whether there is news to publish."""


@dataclass
class ItemNews:
    """What some records of the items topic say, decoded."""

    changed: dict[str, Item]
    deleted: list[str]


class Learn:
    """The handler of LEARN's batches, and all that it publishes.

    One LEARN at a time writes: the producer's transactional id fences an older one off Kafka, the claims fence it off
    the database. Another one may stand by; it takes over from the newest checkpoint.

    Attributes:
        active: whether partitions were assigned to this process.
        done: for each partition of examples the end of what was learnt.
        item_positions: for each partition of items the end of what was taken in.
    """

    def __init__(
        self, settings: Settings, broker: str, store: Store, learner: OnlineLearner, encoder: TextEncoder
    ) -> None:
        self._settings = settings
        self._broker = broker
        self._store = store
        self._learner = learner
        self._encoder = encoder
        self._shortlists = Shortlists(learner.table, settings.index)
        learner.search_of = self._shortlists.search_of
        self._topics = Topics(settings)
        self._history = History(store.engine)
        self.watching = Watching(settings, broker, store, learner)
        self._folder = Path(settings.data).resolve() / "checkpoints"
        self._scenario_of = {self._topics.examples(name): name for name in settings.scenarios}
        self._outbox: Outbox
        self._dead_letters: Outbox
        self.operations: Operations
        self._durable: dict[Partition, int] = {}
        self._items_counted: dict[Partition, Position] = {}
        self._checkpointed: tuple[int, Mapping[Partition, int]] | None = None
        self._claims: Callable[[], Mapping[Partition, int]] = dict
        self.active = False
        self.done: dict[Partition, int] = {}
        self.item_positions: dict[Partition, int] = {}
        self.control_positions: dict[Partition, int] = {}

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
            if self._durable != dict(at):
                stop_process(EXIT_TRY_AGAIN, "another LEARN has learnt meanwhile; this one starts again")
            return self.done
        self._outbox = Outbox(self._broker, transactional_id=f"{self._settings.kafka.prefix}learn")
        self._dead_letters = Outbox(self._broker)
        reporter = Reporter(self._dead_letters, self._topics.drift, self._history)
        self.operations = Operations(
            self._settings, self._learner, self._store, self._history, reporter, self.publish, self._write_checkpoint
        )
        self.watching.on_reports = self.operations.doubt
        self._durable = dict(at)
        learnt = self._restore()
        self.done = {key: learnt.get(key, offset) for key, offset in at.items()}
        self.active = True
        return self.done

    def work(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:  # noqa: ARG002
        """Learn in memory; the offsets become durable with the next checkpoint."""
        examples = [decode_example(record.value) for part in parts for record in part.records]
        began, scenario = time.perf_counter(), self._scenario_of[topic]
        new = self._learner.learn(scenario, examples)
        self.watching.worked(scenario, new, time.perf_counter() - began)
        for part in parts:
            self.done[part.key] = part.next
        self.operations.heed()

    # Orders

    def obey(self, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        """Carry out records of the control topic; what is no order goes to the dead letters."""
        self.control_positions.update(after)
        for record in records:
            order = (
                Invalid("null", "an order needs a value")
                if record.value is None
                else decode_control(record.value, record.timestamp / 1000, Counter())
            )
            if isinstance(order, Control):
                self.operations.perform(order)
                continue
            where = self._topics.control, record.partition, record.offset
            log.warning("an order cannot be taken: %s", order.message)
            headers = [*record.headers, *dead_letter_headers(order, *where)]
            self._dead_letters.send(self._topics.dead_letters, record.key, record.value, headers=headers)
            self._dead_letters.flush()

    # Items

    def claim_items(self, partitions: Collection[Partition]) -> None:
        """Records that were counted before this process began are not counted again."""
        self._items_counted = self._store.claim(partitions)

    def read_items(self, records: Sequence[Any], after: Mapping[Partition, int]) -> ItemNews:
        """Decode records of the items topic; bad ones go to the dead letters, all are put on record in SQL."""
        if not self._items_counted:
            self.claim_items(after.keys())
        news, topic, tallies = ItemNews({}, []), self._topics.items, Counter[tuple[int, str]]()
        for record in records:
            counts: Counter[str] = Counter()
            item: Item | str | Invalid = (
                decode_item_key(record.key)
                if record.value is None
                else decode_item(record.value, record.timestamp / 1000, counts)
            )
            counted = record.offset < (self._items_counted[topic, record.partition].next or 0)
            if isinstance(item, Item):
                news.changed[item.item_id] = item
            elif isinstance(item, str):
                news.changed.pop(item, None)
                news.deleted.append(item)
            elif not counted:
                headers = [*record.headers, *dead_letter_headers(item, topic, record.partition, record.offset)]
                self._dead_letters.send(self._topics.dead_letters, record.key, record.value, headers=headers)
                counts[f"dead:{item.code}"] += 1
            if not counted:
                tallies.update({(record.partition, code): count for code, count in counts.items()})
        self._dead_letters.flush()
        self._record_items(news, tallies, after)
        return news

    def _record_items(
        self, news: ItemNews, tallies: Mapping[tuple[int, str], int], after: Mapping[Partition, int]
    ) -> None:
        progress = [
            Progress(*key, position.next or 0, after[key], position.claim)
            for key, position in self._items_counted.items()
            if after[key] > (position.next or 0)
        ]
        if not progress:
            return  # read again after a restart: all of it is on record

        def effect(connection: Connection) -> None:
            self._store.add_tallies(connection, self._topics.items, tallies)
            self._store.save_items(connection, list(news.changed.values()), news.deleted)

        self._store.commit(progress, effect)
        metrics.count_batch({}, {self._topics.items: tallies})
        for key, position in self._items_counted.items():
            self._items_counted[key] = Position(max(after[key], position.next or 0), position.claim)

    def encode_items(self, items: Sequence[Item]) -> torch.Tensor:
        """Text vectors; (items, encoder dimension). Runs beside learning, on a thread of its own."""
        return self._encoder.encode([item.prose for item in items])

    def put_items(self, items: Sequence[Item], texts: torch.Tensor) -> None:
        """Give items their vectors and publish those at once, so that the next recommendation may hold them."""
        self._publish_vectors(self._learner.put_items(items, texts))

    def remove_items(self, item_ids: Sequence[str]) -> None:
        gone = [item_id for item_id in item_ids if self._learner.remove_item(item_id)]
        if gone:
            self._outbox.begin()
            for item_id in gone:
                self._outbox.send(self._topics.vectors, item_id.encode(), None, partition=0)
            self._finish_transaction()

    # Publishing

    def publish(self, publication: Publication | None) -> None:
        """Vectors, then the weights that belong to them, in one Kafka transaction."""
        if publication is None:
            return
        self._outbox.begin()
        self._send_vectors(publication.vectors)
        self._outbox.flush()
        through = self._outbox.end_offsets.get((self._topics.vectors, 0), 0)
        names = [weights.scenario for weights in publication.weights]
        heads = [
            msgspec.structs.replace(weights, vectors_through=through, published_with=names)
            for weights in publication.weights
        ]
        for head in heads:
            self._outbox.send(self._topics.weights, head.scenario.encode(), encode(head), partition=0)
        self._finish_transaction()
        metrics.publications.inc()
        self._store.save_heads(heads)

    def publish_news(self) -> None:
        self.operations.publish_news()

    def publish_everything(self) -> None:
        self.publish(self._learner.republish())

    def _publish_vectors(self, vectors: Sequence[ItemVector]) -> None:
        if vectors:
            self._outbox.begin()
            self._send_vectors(vectors)
            self._finish_transaction()

    def _send_vectors(self, vectors: Iterable[ItemVector]) -> None:
        told = []
        for vector in vectors:
            self._outbox.send(self._topics.vectors, vector.item_id.encode(), encode(vector), partition=0)
            told.append(vector.row)
        self._shortlists.tell(told)

    def _finish_transaction(self) -> None:
        self._outbox.flush()
        try:
            self._outbox.commit()
        except KafkaException as error:
            stop_process(EXIT_TRY_AGAIN, f"a publication was refused (is another LEARN running?): {error}")

    # Checkpoints

    def checkpoint(self) -> Mapping[Partition, int]:
        """Write all that was learnt, if that is news; returns the offsets that are durable now."""
        state = (self._learner.step, {**self.done, **self.item_positions})
        if state == self._checkpointed:
            return self._durable
        self.watching.test_probes()
        return self._write_checkpoint({}, lambda _: None)

    def _write_checkpoint(self, kept: Mapping[str, int], effect_too: Effect) -> Mapping[Partition, int]:
        """Write all that was learnt, then point the database at it together with the offsets it covers.

        Args:
            kept: versions by scenario that this checkpoint is kept for.
            effect_too: that belongs to the same transaction.

        Returns:
            The offsets that are durable now.
        """
        claims = self._claims()
        if not claims:
            return self._durable  # the next owner begins from the newest checkpoint, and is told all of it again
        state = (self._learner.step, {**self.done, **self.item_positions})
        began = time.perf_counter()
        newest = self._store.checkpoints()
        number = newest[0].number + 1 if newest else 1
        folder = self._folder / f"{number:08d}"
        done = {key: self.done[key] for key in claims}
        extra = {
            "examples": _listed(done),
            "items": _listed(self.item_positions),
            "control": _listed(self.control_positions),
            "performed": self.operations.remembered(),
            "consolidating": self.operations.under_way(),
        }
        sha256 = self._learner.save(folder, extra)
        progress = [Progress(*key, self._durable[key], done[key], claim) for key, claim in claims.items()]

        def effect(connection: Connection) -> None:
            self._store.add_checkpoint(connection, number, folder, sha256, self._learner.step)
            for name, version in kept.items():
                self._history.save_version(self._described(name, version, number), connection)
            effect_too(connection)

        self._store.commit(progress, effect)
        self._durable, self._checkpointed = done, state
        metrics.checkpoint_seconds.observe(time.perf_counter() - began)
        self._tidy()
        return done

    def _described(self, name: str, version: int, checkpoint: int) -> dict[str, Any]:
        standing = self._learner.promotion.standings[name]
        return {
            "scenario": name,
            "version": version,
            "lineage": self._learner.lineage,
            "step": self._learner.step,
            "made_at": standing.since,
            "checkpoint": checkpoint,
            "metrics": self._learner.figures(name),
            "note": standing.reason,
        }

    def _tidy(self) -> None:
        """Drop versions that there are too many of, and checkpoints that nothing needs any more."""
        kept = self._history.versions()
        standings, dropped = self._learner.promotion.standings, []
        for name in {each.scenario for each in kept}:
            of_it = [each for each in kept if each.scenario == name]
            needed = [each for each in (standings[name].good,) if each is not None] if name in standings else []
            dropped += to_drop(of_it, time.time(), self._settings.gate.versions_kept, needed)
        if dropped:
            gone = [(each.scenario, each.version) for each in dropped]
            with self._store.engine.begin() as connection:
                self._history.forget_versions(gone, connection)
            kept = [each for each in kept if (each.scenario, each.version) not in set(gone)]
        needed_for_versions = {each.checkpoint for each in kept}
        for old in self._store.checkpoints()[self._settings.learn.checkpoints_kept :]:
            if old.number not in needed_for_versions:
                self._store.forget_checkpoint(old.number)
                shutil.rmtree(old.folder, ignore_errors=True)

    def _restore(self) -> Mapping[Partition, int]:
        """Load the newest checkpoint that is whole; returns the offsets of the examples it has learnt."""
        checkpoints = self._store.checkpoints()
        for checkpoint in checkpoints:
            try:
                facts = self._learner.restore(Path(checkpoint.folder))
            except DamagedCheckpoint as damaged:
                log.error("%s; the one before it is tried", damaged)
                continue
            except (CheckpointMismatch, StateMismatch, OtherVersion) as mismatch:
                stop_process(EXIT_CONFIGURATION, str(mismatch))
            log.info("restored checkpoint %d, step %d", checkpoint.number, self._learner.step)
            if new := facts.new(list(self._settings.scenarios)):
                # Which items are theirs only the items' records say, so those are read from the beginning.
                log.info("new scenarios begin: %s", ", ".join(new))
            else:
                self.item_positions = _unlisted(facts.extra["items"])
            self.control_positions = _unlisted(facts.extra.get("control", []))
            self.operations.resume(
                msgspec.convert(facts.extra.get("performed", []), list[str]),
                msgspec.convert(facts.extra.get("consolidating"), Control | None),
            )
            return _unlisted(facts.extra["examples"])
        if checkpoints:
            names = ", ".join(checkpoint.folder for checkpoint in checkpoints)
            stop_process(EXIT_CONFIGURATION, f"no checkpoint can be read ({names}); restore one, or use a fresh --data")
        log.info("no checkpoint yet: learning begins from text and popularity")
        return {}


def _listed(positions: Mapping[Partition, int]) -> list[list[Any]]:
    return [[topic, partition, offset] for (topic, partition), offset in positions.items()]


def _unlisted(positions: Any) -> dict[Partition, int]:
    return {(topic, partition): offset for topic, partition, offset in positions}


def run_learn(
    settings: Settings, broker: str, store: Store, stops: StopSignals, on_ready: Callable[[], None]
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
        if learner.step == 0 or not items.caught_up.is_set():
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
    )

    async def on_worker(call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(worker.thread, call, *arguments)

    async def apply_items(_topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        loop = asyncio.get_running_loop()
        news = await loop.run_in_executor(encoding, learn.read_items, records, after)
        changed = list(news.changed.values())
        await on_worker(learn.remove_items, news.deleted)
        for start in range(0, len(changed), TEXTS_AT_ONCE):
            some = changed[start : start + TEXTS_AT_ONCE]
            texts = await loop.run_in_executor(encoding, learn.encode_items, some)
            await on_worker(learn.put_items, some, texts)
        await on_worker(learn.item_positions.update, dict(after))

    async def obey(_topic: str, records: Sequence[Any], after: Mapping[Partition, int]) -> None:
        await on_worker(learn.obey, records, dict(after))

    items = Broadcast(broker, [topics.items], apply_items)
    orders = Broadcast(broker, [topics.control], obey)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def follow() -> None:
        while not learn.active:  # a LEARN that stands by publishes nothing
            await asyncio.sleep(NEWS_SECONDS)
        await on_worker(learn.publish_everything)
        items.positions.update(learn.item_positions)
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
        worker.consumer.durable.update(learn.checkpoint())

    @worker.app.task  # type: ignore[untyped-decorator]
    async def obey_orders() -> None:
        await ready.wait()
        orders.positions.update(learn.control_positions)
        await orders.run()

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
        # Avalanche takes long to import, and nobody shall wait for it: the plain strategy learns the same meanwhile.
        await ready.wait()
        try:
            make = await asyncio.get_running_loop().run_in_executor(None, _avalanche)
        except Exception as error:  # whatever: it reads and writes the home folder, and brings a hundred libraries
            log.warning("Avalanche cannot be imported, learning goes on with the plain strategy: %r", error)
            return
        await on_worker(learner.adopt, make)
        learn.watching.knows_avalanche = True
        log.info("learning through Avalanche from step %d on", learner.step)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def publish() -> None:
        await every(settings.learn.publish_seconds, learn.publish_news)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def save() -> None:
        await every(settings.learn.checkpoint_seconds, checkpoint)

    worker.run(stops, before_exit=checkpoint)


def _avalanche() -> MakeStrategy:
    from learner.avalanche import AvalancheStrategy

    return AvalancheStrategy
