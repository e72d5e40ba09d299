"""The audience: users of the simulated world who act through Kafka, and react to the recommendations they read there.

It is an outside company in miniature. It knows the topics and the published messages, and nothing of the model.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import numpy as np

from schemas.control_group import in_control_group
from schemas.recommendations import Recommendation, Trigger
from schemas.topics import Topics
from streams.client import Client
from streams.figures import Clicks, Ledger, ScenarioFigures
from streams.shelf import ShelfItem
from streams.world import Act, World

log = logging.getLogger(__name__)

SEARCH_SHARE = 0.15
STAYS_AFTER_ACT = 0.8
ASKS_AGAIN = 0.3
THINK_SECONDS = 0.25
PATIENCE_SECONDS = 10.0

CATCH_UP_SECONDS = 1.0
LONGEST_WAIT = 0.05
# librdkafka counts in whole milliseconds; less would be a busy loop.
SHORTEST_WAIT = 0.002
SENT_KEPT = 20_000
EARLY_KEPT = 200

Value = TypeVar("Value")


@dataclass(frozen=True)
class Flood:
    """After so many seconds, so many new items arrive in one scenario at once."""

    scenario: str
    after_seconds: float
    items: int


@dataclass(eq=False)
class Session:
    """One user's stay in one scenario; it waits for a list, or thinks about one.

    Attributes:
        seat: the user's seat in the world.
        control: whether the user is shown what is popular, in place of what the model says.
        turn: grows with each wait, so that a deadline of an earlier one is known to be void.
        request_id: of the request whose answer is waited for.
        trigger: the event whose recommendation is waited for, once Kafka has said where it lies.
    """

    seat: int
    user_id: str
    scenario: str
    control: bool
    turn: int = 0
    waiting: bool = False
    request_id: str | None = None
    trigger: Trigger | None = None

    def wait(self, request_id: str | None) -> int:
        """Begin to wait; returns the turn."""
        self.turn += 1
        self.waiting, self.request_id, self.trigger = True, request_id, None
        return self.turn

    def awaits(self, answer: Recommendation) -> bool:
        """Whether this is what is waited for; a list for a later event of the same partition is as good."""
        if not self.waiting:
            return False
        if self.request_id is not None:
            return answer.request_id == self.request_id
        mine, its = self.trigger, answer.trigger
        return (
            mine is not None
            and (mine.topic, mine.partition) == (its.topic, its.partition)
            and its.offset >= mine.offset
        )


class Audience:
    """Runs all users in one thread, by a heap of what is due; made to `run` once.

    Args:
        broker: host:port.
        topics: the names to talk to.
        world: what is true of users and items; its scenarios must be those of the topics.
        control: for each scenario the share of the users who are in its control group.
        events_per_second: over all scenarios.
        seed: of every choice that users make.
        floods: of new items, beside those that arrive one by one.
        patience: seconds that a user waits for a list before leaving.
    """

    def __init__(
        self,
        broker: str,
        topics: Topics,
        world: World,
        *,
        control: Mapping[str, float],
        events_per_second: float,
        seed: int,
        floods: Sequence[Flood] = (),
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._floods = floods
        self._client = Client(broker)
        self._topics = topics
        self._world = world
        self._control = control
        self._rate = events_per_second
        self._patience = patience
        self._generator = np.random.default_rng(seed)
        self._ledgers = {name: Ledger() for name in world.scenarios}
        self._sessions: dict[tuple[str, str], Session] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._began: float | None = None
        self._acts = 0
        self._forgone = 0.0
        # Ids differ from run to run: Headstream rightly drops an event id that it has seen before.
        self._run = uuid.uuid4().hex[:8]
        self._numbers = itertools.count()
        self._sent: OrderedDict[Trigger, float] = OrderedDict()
        self._early: OrderedDict[Trigger, tuple[float, Recommendation]] = OrderedDict()

    def publish_items(self) -> int:
        """Publish every item of the world; returns how many.

        Raises:
            NotDelivered: Kafka did not take them.
        """
        items = self._world.items()
        for item in items:
            self._publish_item(item, age=-item.born)
        self._client.flush()
        return len(items)

    def run(self, stop: threading.Event, seconds: float | None) -> None:
        """Act until `stop` is set or `seconds` have passed.

        Raises:
            TopicMissing: a recommendations topic does not exist.
        """
        try:
            self._client.listen([self._topics.recommendations(name) for name in self._world.scenarios])
            self._began = time.monotonic()
            for scenario in self._world.scenarios:
                self._later(self._arrival_gap(scenario), partial(self._item_arrives, scenario))
            for flood in self._floods:
                self._later(flood.after_seconds, partial(self._items_flood, flood))
            while not stop.is_set() and (seconds is None or self._elapsed() < seconds):
                for shift in self._world.advance(self._elapsed()):
                    log.info("tastes of %.0f %% of the users shift in %s", shift.share * 100, shift.scenario)
                self._start_what_the_rate_allows()
                self._do_what_is_due()
                for answer in self._client.poll(self._time_to_wait()):
                    self._take(answer)
        finally:
            self._client.close()

    def snapshot(self) -> dict[str, ScenarioFigures]:
        """The figures of each scenario now; any thread may ask."""
        elapsed = self._elapsed()
        return {name: ledger.figures(elapsed) for name, ledger in self._ledgers.items()}

    def _elapsed(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self._elapsed() + seconds, next(self._order), action))

    def _do_what_is_due(self) -> None:
        while self._due and self._due[0][0] <= self._elapsed():
            heapq.heappop(self._due)[2]()

    def _time_to_wait(self) -> float:
        until_due = self._due[0][0] - self._elapsed() if self._due else LONGEST_WAIT
        return max(SHORTEST_WAIT, min(until_due, 1 / self._rate, LONGEST_WAIT))

    def _start_what_the_rate_allows(self) -> None:
        """Every open session promises an event, so new users come only while the promises fall short of the rate."""
        allowed = self._rate * self._elapsed() - self._forgone
        missing = allowed - self._acts - len(self._sessions)
        burst = max(1.0, self._rate * CATCH_UP_SECONDS)
        if missing > burst:
            # What a slow machine could not do in time is not made up for by a flood.
            self._forgone += missing - burst
            missing = burst
        if missing < 1:
            return
        weights = self._world.activity / self._world.activity.sum()
        for _ in range(int(missing)):
            seat = int(self._generator.choice(len(weights), p=weights))
            scenario = self._world.scenarios[int(self._generator.integers(len(self._world.scenarios)))]
            if self._generator.random() < SEARCH_SHARE:
                self._search(seat, scenario)
            elif (self._world.users[seat], scenario) not in self._sessions:
                self._open(seat, scenario)

    def _search(self, seat: int, scenario: str) -> None:
        found = self._world.search(seat, scenario, self._elapsed(), self._generator)
        if found is not None:
            self._act(seat, scenario, found)

    def _open(self, seat: int, scenario: str) -> None:
        user_id = self._world.users[seat]
        session = Session(seat, user_id, scenario, in_control_group(user_id, scenario, self._control[scenario]))
        self._sessions[user_id, scenario] = session
        self._ask(session)

    def _ask(self, session: Session) -> None:
        request_id = f"{self._run}-request-{next(self._numbers)}"
        self._wait(session, request_id)
        request = {"request_id": request_id, "user_id": session.user_id, "scenario": session.scenario}
        self._client.send(self._topics.requests, session.user_id, request)

    def _wait(self, session: Session, request_id: str | None) -> int:
        turn = session.wait(request_id)
        self._later(self._patience, partial(self._lose_patience, session, turn))
        return turn

    def _lose_patience(self, session: Session, turn: int) -> None:
        if session.waiting and session.turn == turn:
            self._ledgers[session.scenario].unanswered()
            self._close(session)

    def _close(self, session: Session) -> None:
        session.waiting = False
        self._sessions.pop((session.user_id, session.scenario), None)

    def _take(self, answer: Recommendation) -> None:
        elapsed = self._elapsed()
        self._ledgers[answer.scenario].recommendation(elapsed)
        sent = self._sent.pop(answer.trigger, None)
        if sent is not None:
            self._ledgers[answer.scenario].latency(elapsed - sent)
        elif answer.request_id is None:
            # It may have overtaken Kafka's word on where the event lies.
            _remember(self._early, answer.trigger, (elapsed, answer), EARLY_KEPT)
        self._hand_over(answer)

    def _hand_over(self, answer: Recommendation) -> None:
        if answer.user_id is None:
            return  # somebody else has asked what is similar to an item
        session = self._sessions.get((answer.user_id, answer.scenario))
        if session is not None and session.awaits(answer):
            session.waiting = False
            self._think(session, [item.item_id for item in answer.items], answer.recommendation_id)

    def _think(self, session: Session, item_ids: list[str], recommendation_id: str) -> None:
        pause = float(self._generator.exponential(THINK_SECONDS))
        self._later(pause, partial(self._read, session, item_ids, recommendation_id))

    def _read(self, session: Session, item_ids: list[str], recommendation_id: str) -> None:
        seat, scenario, elapsed = session.seat, session.scenario, self._elapsed()
        if self._world.users[seat] != session.user_id:
            self._close(session)
            return
        reading = self._world.read(seat, scenario, item_ids, elapsed, self._generator)
        clicks = Clicks(reading.looked_at, int(reading.clicked))
        self._ledgers[scenario].reading(elapsed, clicks, control=session.control)
        if reading.act is None:
            if self._generator.random() < ASKS_AGAIN:
                self._ask(session)
            else:
                self._close(session)
            return
        stays = self._generator.random() < STAYS_AFTER_ACT
        self._act(seat, scenario, reading.act, recommendation_id, session if stays else None)
        if not stays:
            self._close(session)

    def _act(
        self,
        seat: int,
        scenario: str,
        act: Act,
        recommendation_id: str | None = None,
        session: Session | None = None,
    ) -> None:
        """Publish an act; `session`, if given, waits for the recommendation that it triggers."""
        user_id, elapsed = self._world.users[seat], self._elapsed()
        event = {
            "user_id": user_id,
            "item_id": act.item_id,
            "event": act.event,
            "timestamp": datetime.now(UTC),
            "event_id": f"{self._run}-{next(self._numbers)}",
        }
        if recommendation_id is not None:
            event["recommendation_id"] = recommendation_id
        self._world.act(seat, scenario, act.item_id)
        self._ledgers[scenario].event(elapsed)
        self._acts += 1
        turn = 0 if session is None else self._wait(session, None)
        delivered = partial(self._delivered, scenario, elapsed, session, turn)
        self._client.send(self._topics.events(scenario), user_id, event, delivered)

    def _delivered(
        self, scenario: str, sent: float, session: Session | None, turn: int, trigger: Trigger | None
    ) -> None:
        if trigger is None:
            self._ledgers[scenario].undelivered()
            return
        if session is not None and session.turn == turn:
            session.trigger = trigger
        early = self._early.pop(trigger, None)
        if early is None:
            _remember(self._sent, trigger, sent, SENT_KEPT)
        else:
            self._ledgers[scenario].latency(early[0] - sent)
            self._hand_over(early[1])

    def _item_arrives(self, scenario: str) -> None:
        self._publish_new_item(scenario)
        self._later(self._arrival_gap(scenario), partial(self._item_arrives, scenario))

    def _items_flood(self, flood: Flood) -> None:
        log.info("%d new items flood %s", flood.items, flood.scenario)
        for _ in range(flood.items):
            self._publish_new_item(flood.scenario)

    def _publish_new_item(self, scenario: str) -> None:
        item, left = self._world.arrive(scenario, self._elapsed())
        self._publish_item(item, age=0.0)
        if left is not None:
            self._client.send(self._topics.items, left, None)

    def _arrival_gap(self, scenario: str) -> float:
        return float(self._generator.exponential(self._world.seconds_between_arrivals(scenario)))

    def _publish_item(self, item: ShelfItem, age: float) -> None:
        published = {
            "item_id": item.item_id,
            "title": item.title,
            "text": item.text,
            "categories": [item.category],
            "scenarios": [item.scenario],
            "published_at": datetime.fromtimestamp(time.time() - age, UTC),
        }
        self._client.send(self._topics.items, item.item_id, published)


def _remember(known: OrderedDict[Trigger, Value], trigger: Trigger, value: Value, most: int) -> None:
    """Keep a value for a record; the oldest is forgotten, since not every event is answered."""
    known[trigger] = value
    if len(known) > most:
        known.popitem(last=False)
