"""SERVE: events become user states, training examples and recommendations; requests are answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from index.compactor import Compactor
from learner.ranking import OWN_CANDIDATES, Question, rank, reasons, warm_up
from schemas.decoding import Invalid
from schemas.events import Event, decode_event
from schemas.packed import pack, unpack, unpack_times
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
from schemas.reports import dead_letter_headers
from schemas.settings import Settings
from schemas.times import say_time
from schemas.topics import Topics
from streams.background import give_way
from streams.following import Following
from streams.mirror import Head, Mirror
from streams.outbox import Outbox
from streams.signals import StopSignals
from streams.similar import AskedForSimilar, similar_items
from streams.store import Conflict, Partition, Store
from streams.transport import Part
from streams.users import User, UserCache
from streams.worker import Commit, Worker

log = logging.getLogger(__name__)

RANKED_AT_ONCE = 64
REPORT_SECONDS = 2.0
SHOWN_KEPT = 20
"""Of the newest list, remembered where a scenario learns from impressions: an event then passes fewer items over."""
SMALLEST_LIST_WITH_A_NEW_ITEM = 3


@dataclass(frozen=True)
class Asked:
    """A recommendation to be made: for whom, where, and in answer to which record."""

    trigger: Trigger
    user_id: str
    user: User
    scenario: str
    now: float
    k: int
    request: Request | None = None
    item_id: None = None


@dataclass
class Outcome:
    """What a batch comes to, before any of it is published or committed."""

    users: dict[str, User] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    asked_for_similar: list[AskedForSimilar] = field(default_factory=list)
    tallies: Counter[tuple[int, str]] = field(default_factory=Counter)

    def tally(self, part: Part, counts: Mapping[str, int]) -> None:
        self.tallies.update({(part.partition, code): count for code, count in counts.items()})


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

    def assigned(self, at: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Nothing to restore: all that SERVE knows of users is read from the store when it is needed."""
        return at

    def work(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:
        """decode → load → apply → recommend → publish → commit; redone whole if a user was changed elsewhere."""
        while True:
            try:
                self._work_once(topic, parts, commit)
                return
            except Conflict as conflict:
                log.info("%s; the batch is worked again", conflict)
                self._cache.clear()
            except BaseException:
                self._cache.clear()
                raise

    def _work_once(self, topic: str, parts: Sequence[Part], commit: Commit) -> None:
        scenario = self._scenario_of.get(topic)
        outcome = self._requests(parts) if scenario is None else self._events(scenario, parts)
        self._recommend(outcome.asked)
        self._find_similar(outcome.asked_for_similar)
        self._outbox.flush()
        rows = self._cache.rows(outcome.users)

        def effect(connection: Connection) -> None:
            self._store.save_users(connection, rows)
            self._store.add_tallies(connection, topic, outcome.tallies)

        commit(effect)
        self._cache.keep(rows)

    # decode → load → apply

    def _events(self, scenario: str, parts: Sequence[Part]) -> Outcome:
        settings, outcome = self._settings.scenarios[scenario], Outcome()
        decoded: list[tuple[Part, Any, Event]] = []
        for part in parts:
            counts: Counter[str] = Counter()
            for record in part.records:
                if record.value is None:
                    counts["nulls"] += 1
                    continue
                event = decode_event(record.value, record.timestamp / 1000, scenario, settings.events, counts)
                if isinstance(event, Invalid):
                    self._put_aside(record, part, event)
                    counts[f"dead:{event.code}"] += 1
                else:
                    decoded.append((part, record, event))
            outcome.tally(part, counts)
        users = self._cache.load(event.user_id for _, _, event in decoded)
        latest: dict[str, Asked] = {}
        examples_topic, length = self._topics.examples(scenario), self._settings.model.history
        for part, record, event in decoded:
            user = users[event.user_id]
            if event.event_id is not None and user.has_event_id(event.event_id):
                outcome.tallies[part.partition, "duplicates"] += 1
                continue
            example = user.example(event, scenario, part.partition, record.offset, repeat=settings.repeat)
            self._outbox.send(examples_topic, event.user_id.encode(), encode(example), partition=0)
            user.apply(event, scenario, self._settings.serve, length)
            outcome.users[event.user_id] = user
            outcome.tallies[part.partition, "events"] += 1
            if settings.triggers is None or event.event in settings.triggers:
                trigger = Trigger(part.topic, part.partition, record.offset)
                latest[event.user_id] = Asked(trigger, event.user_id, user, scenario, event.time, settings.k)
        outcome.asked = list(latest.values())
        return outcome

    def _requests(self, parts: Sequence[Part]) -> Outcome:
        outcome = Outcome()
        decoded: list[tuple[Part, Any, Request]] = []
        for part in parts:
            counts: Counter[str] = Counter()
            for record in part.records:
                request = (
                    Invalid("null", "a request needs a value")
                    if record.value is None
                    else decode_request(record.value, counts)
                )
                if isinstance(request, Invalid):
                    self._put_aside(record, part, request)
                    counts[f"dead:{request.code}"] += 1
                else:
                    decoded.append((part, record, request))
                    counts["requests"] += 1
            outcome.tally(part, counts)
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
            outcome.asked.append(Asked(trigger, request.user_id, user, request.scenario, received, k, request))
            if known and known.impressions and request.history is None:
                outcome.users[request.user_id] = users[request.user_id]
        return outcome

    def _put_aside(self, record: Any, part: Part, invalid: Invalid) -> None:
        """To the dead letters, untouched but for headers that say why."""
        headers = [*record.headers, *dead_letter_headers(invalid, part.topic, part.partition, record.offset)]
        self._outbox.send(self._topics.dead_letters, record.key, record.value, headers=headers)

    # recommend → publish

    def _recommend(self, asked: Sequence[Asked]) -> None:
        by_scenario: dict[str, list[Asked]] = {}
        for each in asked:
            by_scenario.setdefault(each.scenario, []).append(each)
        for scenario, group in by_scenario.items():
            plain = [each for each in group if each.request is None or not each.request.categories]
            for start in range(0, len(plain), RANKED_AT_ONCE):
                self._rank_and_publish(scenario, plain[start : start + RANKED_AT_ONCE], frozenset())
            for each in group:
                if each.request is not None and each.request.categories:
                    self._rank_and_publish(scenario, [each], frozenset(each.request.categories))

    def _rank_and_publish(self, scenario: str, asked: Sequence[Asked], categories: frozenset[str]) -> None:
        mirror, table = self._mirror, self._mirror.table
        shelf, known = self._shelf(scenario), scenario in self._settings.scenarios
        repeat = self._settings.scenarios[shelf].repeat
        unwanted = [
            frozenset(unpack(each.user.excluded(shelf, repeat)))
            | frozenset(each.request.exclude if each.request else ())
            for each in asked
        ]
        questions = [
            self._question(each, list(names), known, unpack(each.user.may_return(shelf, repeat)))
            for each, names in zip(asked, unwanted, strict=True)
        ]
        allowed = torch.tensor(mirror.rows_in(categories), dtype=torch.long) if categories else None
        head = mirror.head(shelf)
        most = max(each.k for each in asked)
        ranking = rank(
            head.model, table, mirror.number(shelf), mirror.clocks(shelf), questions, mirror.search(shelf), allowed,
            minimum=most,
        )  # fmt: skip
        tops = ranking.rows[:, :most].tolist()
        scores = ranking.scores[:, :most].tolist()
        generated_at = say_time(time.time())
        lists = [[row for row in top[: each.k] if row] for each, top in zip(asked, tops, strict=True)]
        because = reasons(table, questions, lists)
        for number, each in enumerate(asked):
            source = "model" if questions[number].history else "popular"
            items = [
                RecommendedItem(str(table.id_of[row]), score, source, reason)
                for row, score, reason in zip(lists[number], scores[number], because[number], strict=False)
            ]
            self._give_new_item_a_chance(shelf, each, unwanted[number], categories, items)
            if known and self._settings.scenarios[shelf].impressions:
                each.user.shown[shelf] = pack(item.item_id for item in items[:SHOWN_KEPT])
            self._publish(each, items, head, generated_at)

    def _question(self, asked: Asked, unwanted: list[str], known: bool, used: list[str]) -> Question:
        user, table = asked.user, self._mirror.table
        length = self._settings.model.history
        items = unpack(user.items)[-length:] if known else []
        times = unpack_times(user.times)[-length:] or [asked.now] * len(items)
        history = [(row, at) for row, at in zip(table.rows(items), times, strict=False) if row]
        return Question(
            history=[row for row, _ in history],
            times=[at for _, at in history],
            now=asked.now,
            excluded=[row for row in table.rows(unwanted) if row],
            used=[row for row in table.rows(used[-OWN_CANDIDATES:]) if row],
        )

    def _give_new_item_a_chance(
        self,
        shelf: str,
        asked: Asked,
        unwanted: frozenset[str],
        categories: frozenset[str],
        items: list[RecommendedItem],
    ) -> None:
        """The last place of a list is for the newest item that nobody has seen yet: how else would it be learnt?"""
        if self._settings.serve.fresh_impressions == 0 or len(items) < SMALLEST_LIST_WITH_A_NEW_ITEM:
            return
        newest = self._mirror.newest(shelf, time.time(), unwanted, categories)
        if newest is None:
            return
        if all(item.item_id != newest for item in items):
            if len(items) == asked.k:
                items.pop()
            items.append(RecommendedItem(newest, items[-1].score, "fresh"))
        self._mirror.count_impression(shelf, newest)

    def _shelf(self, scenario: str) -> str:
        """A scenario that is not configured is answered from the first one's shelf, from what is popular there."""
        return scenario if scenario in self._settings.scenarios else self._mirror.scenarios[0]

    def _find_similar(self, asked: Sequence[AskedForSimilar]) -> None:
        groups: dict[tuple[str, frozenset[str]], list[AskedForSimilar]] = {}
        for each in asked:
            groups.setdefault((each.scenario, frozenset(each.request.categories)), []).append(each)
        for (scenario, _), group in groups.items():
            shelf = self._shelf(scenario)
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


def run_serve(
    settings: Settings, broker: str, store: Store, stops: StopSignals, on_ready: Callable[[], None]
) -> NoReturn:
    """Run SERVE until it is told to stop; `on_ready` is called once it answers."""
    torch.set_num_threads(1)
    topics = Topics(settings)
    following = Following(settings, broker)
    worker = Worker(
        f"{settings.kafka.prefix}serve",
        broker=broker,
        store=store,
        handler=Serve(settings, store, Outbox(broker), following.mirror),
        topics=[*(topics.events(name) for name in settings.scenarios), topics.requests],
        records_per_partition=settings.serve.batch_records,
        coalesce_seconds=settings.serve.coalesce_milliseconds / 1000,
        data=Path(settings.data) / "faust",
        admit=following.ready.wait,
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
    async def begin() -> None:
        await asyncio.get_running_loop().run_in_executor(None, warm_up, settings.model)
        await following.begin()
        on_ready()

    @worker.app.task  # type: ignore[untyped-decorator]
    async def keep_snapshots() -> None:
        await following.keep_snapshots()

    worker.run(stops, before_exit=following.write_last)
