"""SERVE: events become user states, training examples and recommendations; requests are answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from index.compactor import Compactor
from learner.ranking import warm_up
from schemas.decoding import Invalid
from schemas.events import Event, decode_event
from schemas.failpoints import failpoint
from schemas.packed import pack
from schemas.recommendations import (
    ModelVersion,
    Recommendation,
    RecommendedItem,
    Request,
    Trigger,
    decode_request,
    encode_recommendation,
)
from schemas.records import encode
from schemas.settings import Settings
from schemas.times import say_time
from schemas.topics import Topics
from streams import metrics
from streams.background import give_way
from streams.exposure import Exposure
from streams.following import Following
from streams.mirror import Head, Mirror
from streams.outbox import Outbox
from streams.patience import Patience
from streams.recommender import RANKED_AT_ONCE, Asked, Made, Recommender
from streams.serve_erasing import ServeErasing
from streams.serve_series import ServeSeries
from streams.signals import StopSignals
from streams.similar import AskedForSimilar, similar_items
from streams.store import Conflict, Partition, Store
from streams.transport import Part
from streams.users import User, UserCache
from streams.worker import Commit, Worker

log = logging.getLogger(__name__)

REPORT_SECONDS = 2.0
TURN_SECONDS = 0.06
"""For which one topic is worked before the others have their turn, however many of its records wait."""
ERASURE_SECONDS = 1.0
"""How often SERVE looks whether somebody was erased elsewhere, and clears the database's files of who was."""


@dataclass
class Outcome:
    """What a batch comes to, before any of it is committed.

    Attributes:
        made: for each scenario the lists for users.
        used: the items that users acted on.
        tallies: by topic, then by partition and code.
    """

    users: dict[str, User] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    asked_for_similar: list[AskedForSimilar] = field(default_factory=list)
    made: dict[str, list[Made]] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    tallies: defaultdict[str, Counter[tuple[int, str]]] = field(default_factory=lambda: defaultdict(Counter))

    def tally(self, part: Part, counts: Mapping[str, int]) -> None:
        self.tallies[part.topic].update({(part.partition, code): count for code, count in counts.items()})


class Serve:
    """The handler of SERVE's batches."""

    def __init__(self, settings: Settings, store: Store, outbox: Outbox, mirror: Mirror) -> None:
        self._settings = settings
        self._store = store
        self._outbox = outbox
        self._mirror = mirror
        self._topics = Topics(settings)
        self._cache = UserCache(store, settings.serve.cached_users)
        self._scenario_of = {self._topics.events(name): name for name in settings.scenarios}
        self._recommender = Recommender(settings, mirror)
        self.exposure = Exposure(mirror, time.time())
        self.erasing = ServeErasing(store, outbox, self._topics)

    def assigned(self, at: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Nothing to restore: all that SERVE knows of users is read from the store when it is needed."""
        if (self._topics.erasures, 0) in at:
            self.erasing.resume()
        return at

    def heed_erasures(self) -> None:
        """Keep nobody in memory who was erased, also while nothing comes that users would be read for."""
        self._cache.heed()

    def work(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:
        """decode → load → apply → recommend → publish → commit; redone whole if a user was changed elsewhere."""
        if topic == self._topics.erasures:
            self.erasing.work(parts, commit)
            self._cache.heed()
            return
        while True:
            try:
                self._work_once(topic, parts, commit)
                return
            except Conflict as conflict:
                log.info("%s; the batch is worked again", conflict)
                metrics.conflicts.inc()
                self._cache.clear()
            except BaseException:
                self._cache.clear()
                raise

    def _work_once(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:
        scenario = self._scenario_of.get(topic)
        outcome = self._requests(parts) if scenario is None else self._events(scenario, parts)
        failpoint("serve.decoded")
        self._recommend(outcome)
        self._find_similar(outcome.asked_for_similar)
        self._outbox.flush()
        failpoint("serve.published")
        published = time.time()
        rows = self._cache.rows(outcome.users)

        def effect(connection: Connection) -> None:
            self._store.save_users(connection, rows)
            self._cache.check(connection)
            for of_topic, tallies in sorted(outcome.tallies.items()):
                self._store.add_tallies(connection, of_topic, tallies)
            failpoint("serve.commit")

        commit(effect)
        failpoint("serve.committed")
        self._cache.keep(rows)
        self._tell(scenario, outcome, published)

    # decode → load → apply

    def _events(self, scenario: str, parts: Sequence[Part]) -> Outcome:
        settings, outcome = self._settings.scenarios[scenario], Outcome()
        decoded: list[tuple[Part, Any, Event]] = []
        refused: list[tuple[Part, Any, Invalid]] = []
        for part in parts:
            counts: Counter[str] = Counter()
            for record in part.records:
                if record.value is None:
                    counts["nulls"] += 1
                    continue
                event = decode_event(record.value, record.timestamp / 1000, scenario, settings.events, counts)
                if isinstance(event, Invalid):
                    refused.append((part, record, event))
                else:
                    decoded.append((part, record, event))
            outcome.tally(part, counts)
        self._put_aside(refused, outcome)
        users = self._cache.load(event.user_id for _, _, event in decoded)
        latest: dict[str, Asked] = {}
        tallies, ours = outcome.tallies[self._topics.events(scenario)], self._ours(scenario)
        window, impressions = self._settings.serve.attribution_seconds, settings.impressions > 0
        examples_topic, length = self._topics.examples(scenario), self._settings.model.history
        for part, record, event in decoded:
            user = users[event.user_id]
            if self._cache.is_past(event.user_id, event.time):
                tallies[part.partition, "erased"] += 1
                continue
            if event.event_id is not None and user.has_event_id(event.event_id):
                tallies[part.partition, "duplicates"] += 1
                continue
            example = user.example(
                event, scenario, part.partition, record.offset, repeat=settings.repeat, impressions=impressions
            )
            example.recommendation_id = event.recommendation_id or user.listed(event, scenario, window)
            self._outbox.send(examples_topic, event.user_id.encode(), encode(example), partition=0)
            control = self._recommender.in_control(event.user_id, scenario)
            named = event.recommendation_id
            if named is not None and not named.startswith(ours):
                named = None
            if user.click(event, scenario, named, window):
                tallies[part.partition, "control_clicks" if control else "clicks"] += 1
            user.apply(event, scenario, self._settings.serve, length)
            outcome.users[event.user_id] = user
            outcome.used.append(event.item_id)
            tallies[part.partition, "events"] += 1
            if settings.triggers is None or event.event in settings.triggers:
                trigger = Trigger(part.topic, part.partition, record.offset)
                received = record.timestamp / 1000
                latest[event.user_id] = Asked(
                    trigger, event.user_id, user, scenario, event.time, received, settings.k, control
                )
        outcome.asked = list(latest.values())
        return outcome

    def _requests(self, parts: Sequence[Part]) -> Outcome:
        outcome = Outcome()
        decoded: list[tuple[Part, Any, Request]] = []
        refused: list[tuple[Part, Any, Invalid]] = []
        for part in parts:
            counts: Counter[str] = Counter()
            for record in part.records:
                request = (
                    Invalid("null", "a request needs a value")
                    if record.value is None
                    else decode_request(record.value, counts)
                )
                if isinstance(request, Invalid):
                    refused.append((part, record, request))
                else:
                    decoded.append((part, record, request))
                    counts["requests"] += 1
            outcome.tally(part, counts)
        self._put_aside(refused, outcome)
        users = self._cache.load(request.user_id for _, _, request in decoded if request.user_id is not None)
        for part, record, request in decoded:
            known = self._settings.scenarios.get(request.scenario)
            k = request.k or (known.k if known else 10)
            trigger = Trigger(part.topic, part.partition, record.offset)
            if request.item_id is not None:
                outcome.asked_for_similar.append(
                    AskedForSimilar(trigger, request.item_id, request.scenario, k, request)
                )
            if request.user_id is None:
                continue
            user = users[request.user_id]
            if request.history is not None:
                user = User(items=pack(request.history), used=user.used, disliked=user.disliked)
            received = record.timestamp / 1000
            control = self._recommender.in_control(request.user_id, request.scenario)
            outcome.asked.append(
                Asked(trigger, request.user_id, user, request.scenario, received, received, k, control, request)
            )
            # Whoever is not known yet gets no row by asking: a flood of made-up ids would fill the table.
            if known and request.history is None and self._cache.has_row(request.user_id):
                outcome.users[request.user_id] = user
        return outcome

    def _ours(self, scenario: str) -> tuple[str, str]:
        """How the ids of a scenario's recommendations begin: with the topic of an event of its own, or of requests."""
        return f"{self._topics.events(scenario)}:", f"{self._topics.requests}:"

    def _put_aside(self, refused: Sequence[tuple[Part, Any, Invalid]], outcome: Outcome) -> None:
        """To the dead letters, untouched but for headers that say why.

        What names an erased user and is older than the erasure goes nowhere: a copy would stay in Kafka for longer than
        the receipt has said.
        """
        past = self.erasing.are_past([record for _, record, _ in refused])
        for (part, record, invalid), erased in zip(refused, past, strict=True):
            if not erased:
                self._outbox.put_aside(self._topics.dead_letters, record, part.topic, invalid)
            outcome.tallies[part.topic][part.partition, "erased" if erased else f"dead:{invalid.code}"] += 1

    # recommend → publish

    def _recommend(self, outcome: Outcome) -> None:
        for some in self._recommender.make(outcome.asked):
            scenario, generated_at = some[0].asked.scenario, say_time(time.time())
            head = self._mirror.head(self._recommender.shelf(scenario))
            for each in some:
                self._publish(each.asked, each.items, head, generated_at)
            if self._recommender.knows(scenario):
                self._remember(scenario, some, outcome)

    def _remember(self, scenario: str, lists: Sequence[Made], outcome: Outcome) -> None:
        """What was sent to whom, so that clicks on it are known as such."""
        for each in lists:
            asked = each.asked
            items = [item.item_id for item in each.items]
            asked.user.show(scenario, asked.trigger.recommendation_id, asked.now, items)
            code = "control_lists" if asked.control else "lists"
            outcome.tallies[self._topics.events(scenario)][asked.trigger.partition, code] += 1
        outcome.made.setdefault(scenario, []).extend(lists)

    def _find_similar(self, asked: Sequence[AskedForSimilar]) -> None:
        groups: dict[tuple[str, frozenset[str]], list[AskedForSimilar]] = {}
        for each in asked:
            groups.setdefault((each.scenario, frozenset(each.request.categories)), []).append(each)
        for (scenario, _), group in groups.items():
            shelf = self._recommender.shelf(scenario)
            for start in range(0, len(group), RANKED_AT_ONCE):
                part = group[start : start + RANKED_AT_ONCE]
                lists, generated_at = similar_items(self._mirror, shelf, part), say_time(time.time())
                for each, items in zip(part, lists, strict=True):
                    self._publish(each, items, self._mirror.head(shelf), generated_at)

    def _publish(
        self, asked: Asked | AskedForSimilar, items: list[RecommendedItem], head: Head, generated_at: str
    ) -> None:
        weights = head.weights
        recommendation = Recommendation(
            recommendation_id=asked.trigger.recommendation_id,
            user_id=asked.user_id,
            item_id=asked.item_id,
            scenario=asked.scenario,
            request_id=asked.request.request_id if asked.request else None,
            generated_at=generated_at,
            items=items,
            trigger=asked.trigger,
            model=ModelVersion(weights.version, weights.step, weights.restores),
            trained_through=weights.trained_through,
            index_sequence=self._mirror.sequence,
        )
        topic = self._topics.recommendations(asked.scenario)
        key = asked.item_id if asked.user_id is None else asked.user_id
        self._outbox.send(topic, key.encode(), encode_recommendation(recommendation))

    # What is told of it

    def _tell(self, scenario: str | None, outcome: Outcome, published: float) -> None:
        """Count a batch that is committed."""
        metrics.count_batch(self._scenario_of, outcome.tallies)
        metrics.users_cached.set(len(self._cache))
        for name, lists in outcome.made.items():
            sources = Counter("control" if each.asked.control else each.source for each in lists)
            for source, count in sources.items():
                metrics.recommendations.labels(name, source).inc(count)
            items = [[item.item_id for item in each.items] for each in lists]
            self.exposure.note_lists(name, items, sources["model"], published)
            seconds = [max(0.0, published - each.asked.received) for each in lists if each.asked.request is None]
            self.exposure.note_waits(name, [each * 1000 for each in seconds])
            observe = metrics.latency.labels(name).observe
            for each in seconds:
                observe(each)
        for name, count in Counter(each.scenario for each in outcome.asked_for_similar).items():
            if self._recommender.knows(name):
                metrics.recommendations.labels(name, "similar").inc(count)
        if scenario is not None:
            self.exposure.note_uses(scenario, outcome.used)


def run_serve(
    settings: Settings,
    broker: str,
    store: Store,
    patience: Patience,
    stops: StopSignals,
    on_ready: Callable[[], None],
) -> NoReturn:
    """Run SERVE until it is told to stop; `on_ready` is called once it answers."""
    torch.set_num_threads(1)
    topics = Topics(settings)
    following = Following(settings, broker)
    serve = Serve(settings, store, Outbox(broker), following.mirror)
    worker = Worker(
        f"{settings.kafka.prefix}serve",
        broker=broker,
        store=store,
        handler=serve,
        topics=[*(topics.events(name) for name in settings.scenarios), topics.requests, topics.erasures],
        records_per_partition=settings.serve.batch_records,
        coalesce_seconds=settings.serve.coalesce_milliseconds / 1000,
        data=Path(settings.data) / "faust",
        admit=following.ready.wait,
        patience=patience,
        turn_seconds=TURN_SECONDS,
        watchdog_seconds=settings.kafka.watchdog_seconds,
    )

    mirror = following.mirror
    # Ends with the process, which need not wait for a compaction: what it makes is made anew from the topics.
    Compactor(lambda: list(mirror.indexes.values()), give_way)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def follow() -> None:
        await following.run(worker.thread)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def report() -> None:
        said: dict[str, dict[str, Any]] = {}
        while True:
            stands = {name: asdict(index.report()) for name, index in mirror.indexes.items()}
            if stands != said:
                try:
                    await asyncio.get_running_loop().run_in_executor(None, store.save_indexes, stands)
                    said = stands
                except DBAPIError as error:
                    log.warning("cannot say how the indexes stand: %s", error)
            await asyncio.sleep(REPORT_SECONDS)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def finish_erasures() -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(ERASURE_SECONDS)
            try:
                await loop.run_in_executor(worker.thread, serve.heed_erasures)
                await loop.run_in_executor(None, serve.erasing.finish)
            except DBAPIError as error:
                log.warning("erasures wait for the database: %s", error)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def write_series() -> None:
        await following.ready.wait()
        await ServeSeries(settings, broker, store, mirror, serve.exposure).run(worker.thread)

    @worker.app.task  # type: ignore[untyped-decorator]
    async def begin() -> None:
        await asyncio.get_running_loop().run_in_executor(None, warm_up, settings.model)
        await following.begin()
        on_ready()

    @worker.app.task  # type: ignore[untyped-decorator]
    async def keep_snapshots() -> None:
        await following.keep_snapshots()

    worker.run(stops, following.write_last, settings.stop_seconds)
