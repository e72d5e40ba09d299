"""The story of drift: what happens to three scenarios of the demo, and whether Headstream saw it and acted on it.

Judged from the topics alone, as any consumer could.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import msgspec
from confluent_kafka import Consumer

from schemas.recommendations import Recommendation, decode_recommendation
from schemas.reports import DriftReport, decode_report
from schemas.signals import SIGNALS
from schemas.topics import Topics
from streams.access import librdkafka
from streams.client import ends
from streams.crawlers import Crawlers
from streams.simulate import Flood
from streams.world import Shift

MOVED_SHARE = 1.0
"""Of the users, who turn to what is new in fashion."""

FLOOD_ITEMS = 200
POISON_RATE = 120.0
"""Events per second of crawlers, who look at everything and want nothing."""

WINDOW_SECONDS = 15.0
KEPT_UP = 0.75
"""Learning has caught up with a shift when clicks are at so much of what they were before it, at least."""

SETTINGS: Mapping[str, str] = {
    "drift.patience": "0.4",
    "gate.seconds": "10",
    "gate.share": "1.0",
    "gate.least_pairs": "50",
    "gate.settled_seconds": "30",
    "learn.coalesce_milliseconds": "500",
    "learn.probe_rows": "100",
}
"""Whoever watches a story does not wait as an operator would: what is decided is decided sooner here."""


@dataclass(frozen=True)
class Script:
    """What happens, in seconds from when the audience begins; the other scenarios are left alone."""

    shifted: str = "video"
    flooded: str = "news"
    poisoned: str = "shop"
    shift_at: float = 75.0
    flood_at: float = 90.0
    poison_at: float = 80.0
    poison_until: float = 115.0
    end: float = 300.0
    events_per_second: float = 150.0

    @property
    def shifts(self) -> list[Shift]:
        return [Shift(self.shifted, self.shift_at, MOVED_SHARE, fashion=True)]

    @property
    def floods(self) -> list[Flood]:
        return [Flood(self.flooded, self.flood_at, FLOOD_ITEMS)]


class Chapter(TypedDict):
    """Something that should come to pass; `after_seconds` from what caused it, None while it was not seen."""

    expected: str
    seen: bool
    after_seconds: float | None


@dataclass
class Clicked:
    """Lists of a scenario, and clicks on them, by window of time."""

    lists: dict[int, int] = field(default_factory=dict)
    clicks: dict[int, int] = field(default_factory=dict)

    def rate(self, first: int, last: int) -> float | None:
        """Clicks per list over some windows; None without lists."""
        lists = sum(self.lists.get(window, 0) for window in range(first, last + 1))
        clicks = sum(self.clicks.get(window, 0) for window in range(first, last + 1))
        return clicks / lists if lists else None


class Story:
    """Plays the script's poison, beside an audience that plays the rest, and watches what comes of it all."""

    def __init__(self, broker: str, topics: Topics, script: Script, seed: int) -> None:
        self._script = script
        self._judge = Judge(broker, topics, script)
        self._crawlers = Crawlers(broker, topics, script.poisoned, events_per_second=POISON_RATE, seed=seed)

    def play(self, stop: threading.Event) -> None:
        """Let the crawlers walk, and end everything when the story has come to its end, one way or another."""
        began = time.monotonic()
        self._crawlers.run(stop, self._script.poison_at, self._script.poison_until)
        while not stop.wait(1.0):
            if self._judge.complete or time.monotonic() - began > self._script.end:
                stop.set()

    def watch(self, stop: threading.Event) -> None:
        self._judge.run(stop)

    def chapters(self) -> list[Chapter]:
        return self._judge.chapters()

    def lines(self) -> list[str]:
        """The chapters in words."""
        return said(self.chapters())


class Judge:
    """Reads the drift topic, the recommendations and the events, and says which chapters have come to pass."""

    def __init__(self, broker: str, topics: Topics, script: Script) -> None:
        self._broker = broker
        self._topics = topics
        self._script = script
        self._reports: list[tuple[float, DriftReport]] = []
        self._restored: dict[str, float] = {}
        self._new_shown: float | None = None
        self._shifted = Clicked()
        self._lock = threading.Lock()
        self._consumer = Consumer(
            {
                **librdkafka(broker),
                "group.id": "headstream-judge",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "log_level": 2,
            }
        )
        self._known_items: set[str] = set()

    @property
    def heard(self) -> bool:
        """Whether anything has been read yet."""
        with self._lock:
            return bool(self._reports)

    def run(self, stop: threading.Event) -> None:
        """Read until told to stop; the audience begins now."""
        names = [self._topics.drift, self._topics.events(self._script.shifted)]
        names += [self._topics.recommendations(name) for name in self._topics.scenarios]
        try:
            self._consumer.assign(ends(self._consumer, names, self._broker))
            began = time.time()
            while not stop.is_set():
                for message in self._consumer.consume(500, timeout=0.2):
                    if message.error() is None and message.value() is not None:
                        with self._lock:
                            self._take(message, message.timestamp()[1] / 1000 - began)
        finally:
            self._consumer.close()

    def _take(self, message: Any, at: float) -> None:
        topic, script = message.topic(), self._script
        if topic == self._topics.drift:
            self._reports.append((at, decode_report(message.value())))
            return
        if topic == self._topics.events(script.shifted):
            event = msgspec.json.decode(message.value())
            if event.get("recommendation_id") and event["event"] != "view":
                window = int(at // WINDOW_SECONDS)
                self._shifted.clicks[window] = self._shifted.clicks.get(window, 0) + 1
            return
        self._take_list(decode_recommendation(message.value()), at)

    def _take_list(self, answer: Recommendation, at: float) -> None:
        script = self._script
        if answer.model.restores is not None:
            self._restored.setdefault(answer.scenario, at)
        if answer.scenario == script.shifted:
            window = int(at // WINDOW_SECONDS)
            self._shifted.lists[window] = self._shifted.lists.get(window, 0) + 1
        if answer.scenario == script.flooded:
            items = {item.item_id for item in answer.items}
            if at < script.flood_at:
                self._known_items |= items
            elif self._new_shown is None and self._is_new(items):
                self._new_shown = at

    def _is_new(self, items: set[str]) -> bool:
        """Whether some of these were made after all that was seen before the flood: ids are numbered on."""
        newest = max(self._known_items, default="")
        return any(item > newest for item in items)

    def chapters(self) -> list[Chapter]:
        """What should come to pass, and whether it has."""
        with self._lock:
            script, after = self._script, self._first_report
            alarm = after(script.shifted, script.shift_at, "alarm")
            back = after(script.poisoned, script.poison_at, "rolled_back")
            served = self._restored.get(script.poisoned)
            again = after(script.poisoned, script.poison_at, "promoted")
            shifted, flooded, poisoned = script.shifted, script.flooded, script.poisoned
            found = [
                _chapter(f"{shifted}: tastes shift, and an alarm says so", alarm, script.shift_at),
                _chapter(
                    f"{shifted}: learning catches up, and clicks are what they were", self._caught_up(), script.shift_at
                ),
                _chapter(f"{flooded}: a flood of new items, which are recommended", self._new_shown, script.flood_at),
                _chapter(f"{flooded}: the flood is noted", self._noted(flooded, script.flood_at), script.flood_at),
                _chapter(f"{poisoned}: crawlers poison it, and it is rolled back by itself", back, script.poison_at),
                _chapter(f"{poisoned}: the good version is served again", served, script.poison_at),
                _chapter(f"{poisoned}: what is learnt afterwards is served again", again, script.poison_at),
            ]
            touched = sorted(
                {
                    report.scenario
                    for _, report in self._reports
                    if report.status in ("rolled_back", "paused") and report.scenario not in ("", script.poisoned)
                }
            )
            found.append(
                {
                    "expected": "no other scenario is rolled back",
                    "seen": not touched,
                    "after_seconds": None,
                }
            )
            return found

    @property
    def complete(self) -> bool:
        """Whether all has come to pass that could."""
        return all(chapter["seen"] for chapter in self.chapters())

    def _first_report(self, scenario: str, since: float, *statuses: str) -> float | None:
        return next(
            (
                at
                for at, report in self._reports
                if report.scenario == scenario and at >= since and report.status in statuses
            ),
            None,
        )

    def _noted(self, scenario: str, since: float) -> float | None:
        """When an input of the scenario was first said to have moved."""
        return next(
            (
                at
                for at, report in self._reports
                if report.scenario == scenario
                and at >= since
                and report.status == "alarm"
                and report.signal in SIGNALS
                and SIGNALS[report.signal].kind == "input"
            ),
            None,
        )

    def _caught_up(self) -> float | None:
        """When clicks were about what they had been before tastes shifted, half a minute and more after that."""
        first = int(self._script.shift_at // WINDOW_SECONDS)
        before = self._shifted.rate(first - 2, first - 1)
        if before is None:
            return None
        for window in sorted(self._shifted.lists)[:-1]:  # the newest one is not over yet
            rate = self._shifted.rate(window - 1, window)
            if window > first + 2 and rate is not None and rate >= KEPT_UP * before:
                return (window + 1) * WINDOW_SECONDS
        return None


def _chapter(expected: str, at: float | None, since: float) -> Chapter:
    return {"expected": expected, "seen": at is not None, "after_seconds": None if at is None else round(at - since, 1)}


def said(chapters: Sequence[Chapter]) -> list[str]:
    """The chapters in words, for a person."""
    return [
        f"{'seen' if each['seen'] else 'not yet':8}{each['expected']}"
        + ("" if each["after_seconds"] is None else f" (after {each['after_seconds']:.0f} s)")
        for each in chapters
    ]
