"""False alarms and delays of the detector of levels, beside ADWIN and Page-Hinkley of river on the raw events.

A stream of lists, each clicked on or not. Users differ in how often they click, sessions differ in it too, and many go
on side by side, so that neighbouring outcomes resemble each other. Either nothing changes, and every alarm is false; or
everybody clicks less from some event on, and what counts is how many events later the first alarm comes, and whether
one does. All detectors see the same streams.

    python -m benchmarks.drift                          # a minute or two
    python -m benchmarks.drift --events 3000000 --falls 200
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from river.drift import ADWIN, PageHinkley

from learner.level import Level
from learner.watch import CHANGES

RATE, FALLEN = 0.30, 0.20
USERS = 500
LIKENESS_OF_USERS, LIKENESS_OF_SESSIONS = 8.0, 12.0
"""Of Beta distributions: the lower, the more users differ from each other, and sessions from their user."""
SESSION = 10
"""Lists of a session, in the mean."""

STEADY_EVENTS = 30_000
"""Before a fall, and some more at random."""
WAIT = 10_000
"""A fall that is not found within so many events is missed."""

AT_ONCE = 64
"""Events that a detector is given together, as LEARN does."""

WANTED_FALSE, WANTED_DELAY = 1.0, 3500
"""False alarms per million events, and events of delay at the 95th percentile."""

Clicks = NDArray[np.float64]
Detector = Callable[[Clicks], Iterator[int]]
"""Clicks → events, counted from 1, after which it raised an alarm."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000, help="of a stream in which nothing changes")
    parser.add_argument("--streams", type=int, default=3, help="of these, from seed 0")
    parser.add_argument("--falls", type=int, default=100, help="streams in which the click rate falls")
    parser.add_argument("--side-by-side", type=int, nargs="+", default=[50, 500, 2], help="sessions at any one time")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    console = Console(stderr=True)
    found = []
    with Progress(console=console) as progress:
        work = progress.add_task("drift", total=len(arguments.side_by_side) * (arguments.streams + arguments.falls))
        for sessions in arguments.side_by_side:
            found += measured(
                arguments.events, arguments.streams, arguments.falls, sessions, lambda: progress.advance(work)
            )
    if arguments.json:
        print(json.dumps([asdict(each) for each in found]))
    else:
        show(found)


@dataclass(frozen=True)
class Figures:
    """How one detector did.

    Attributes:
        sessions: at any one time.
        false_alarms: per million events in which nothing changed.
        delay, delay_p95: events from a fall to the first alarm after it; None is beyond `WAIT`.
        missed: falls of `falls` without an alarm within `WAIT`.
        microseconds: per event.
    """

    detector: str
    sessions: int
    false_alarms: float
    delay: float | None
    delay_p95: float | None
    missed: int
    falls: int
    microseconds: float

    @property
    def holds(self) -> bool:
        """Whether the budget is kept."""
        return self.false_alarms <= WANTED_FALSE and self.delay_p95 is not None and self.delay_p95 <= WANTED_DELAY


def measured(events: int, streams: int, falls: int, sessions: int, done: Callable[[], None]) -> list[Figures]:
    """Let all detectors see the same streams."""
    alarms, delays, seconds = ({name: [] for name in DETECTORS} for _ in range(3))
    seen = 0
    for seed in range(streams):
        still = clicks(events, sessions, seed)
        seen += len(still)
        for name, detector in DETECTORS.items():
            began = time.perf_counter()
            alarms[name].append(sum(1 for _ in detector(still)))
            seconds[name].append(time.perf_counter() - began)
        done()
    for seed in range(falls):
        at = STEADY_EVENTS + 97 * seed
        falling = clicks(at + WAIT, sessions, 10_000 + seed, fall=at)
        for name, detector in DETECTORS.items():
            delays[name].append(next((event - at for event in detector(falling) if event > at), np.inf))
        done()
    return [
        Figures(
            detector=name,
            sessions=sessions,
            false_alarms=1e6 * sum(alarms[name]) / seen,
            delay=_finite(median(delays[name])),
            delay_p95=_finite(float(np.quantile(delays[name], 0.95, method="higher"))),
            missed=sum(1 for delay in delays[name] if delay == np.inf),
            falls=falls,
            microseconds=round(1e6 * sum(seconds[name]) / seen, 3),
        )
        for name in DETECTORS
    ]


def clicks(events: int, sessions: int, seed: int, fall: int | None = None) -> Clicks:
    """Outcomes of lists, 1 for a click; from event `fall` on everybody clicks less."""
    generator = np.random.default_rng(seed)
    taste = generator.beta(LIKENESS_OF_USERS * RATE, LIKENESS_OF_USERS * (1 - RATE), USERS).clip(0.01, 0.99)
    seats, draws = generator.integers(sessions, size=events), generator.random(events)
    rates, left = np.zeros(sessions), np.zeros(sessions, np.int64)
    outcomes = np.empty(events)
    for number in range(events):
        seat = seats[number]
        if left[seat] == 0:
            user = taste[generator.integers(USERS)]
            rates[seat] = generator.beta(LIKENESS_OF_SESSIONS * user, LIKENESS_OF_SESSIONS * (1 - user))
            left[seat] = generator.geometric(1 / SESSION)
        left[seat] -= 1
        lowered = FALLEN / RATE if fall is not None and number >= fall else 1.0
        outcomes[number] = draws[number] < rates[seat] * lowered
    return outcomes


def ours(outcomes: Clicks) -> Iterator[int]:
    level = Level(CHANGES["click_rate"])
    for start in range(0, len(outcomes), AT_ONCE):
        for finding in level.observe(outcomes[start : start + AT_ONCE]):
            if finding.status == "alarm":
                yield start + AT_ONCE


def raw(make: Callable[[], Any]) -> Detector:
    """A detector of river's, on one event after the other."""

    def detector(outcomes: Clicks) -> Iterator[int]:
        each = make()
        for number, outcome in enumerate(outcomes.tolist(), 1):
            each.update(outcome)
            if each.drift_detected:
                yield number

    return detector


DETECTORS: dict[str, Detector] = {
    "headstream": ours,
    "ADWIN, raw": raw(ADWIN),
    "Page-Hinkley, raw": raw(PageHinkley),
}


def show(found: Sequence[Figures]) -> None:
    table = Table(title=f"Click rate {RATE:.2f}, and its fall to {FALLEN:.2f}")
    columns = ("detector", "sessions at once", "false alarms / 1e6", "delay", "p95", "missed", "us / event", "budget")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for each in found:
        table.add_row(
            each.detector,
            f"{each.sessions}",
            f"{each.false_alarms:,.2f}",
            _said(each.delay),
            _said(each.delay_p95),
            f"{each.missed} of {each.falls}",
            f"{each.microseconds:.2f}",
            "kept" if each.holds else "missed",
        )
    Console(width=120).print(table)


def _said(events: float | None) -> str:
    return f"> {WAIT:,}" if events is None else f"{events:,.0f}"


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


if __name__ == "__main__":
    main()
