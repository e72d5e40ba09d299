"""A made-up past: what twenty scenarios would have left in the database, for the dashboard's tests and pictures.

Made with one seed, and shaped by what happens in life: days and nights, an outage, a taste that shifts and is learnt, a
poisoned stream that is rolled back, a flood of new items, a pause by hand, trouble that has just begun, and a scenario
that nobody has used yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from schemas.reports import DriftReport, Severity
from schemas.signals import SIGNALS
from schemas.tables import PublishedHead, Tally
from schemas.times import say_time
from streams.history import RESOLUTIONS, History, Measured

HOUR, DAY = 3600.0, 86_400.0
NAMES = (
    "shop", "video", "news", "travel", "social", "music", "podcasts", "games", "books", "recipes", "jobs", "homes",
    "cars", "events", "courses", "fashion", "sports", "kids", "local", "garden",
)  # fmt: skip
EMPTY = "garden"

LEVELS = {
    "recall@10": 0.31, "ndcg@10": 0.19, "recall@10_popular": 0.14, "log_loss": 4.2, "calibration_error": 0.031,
    "click_rate": 0.118, "control_click_rate": 0.071, "score_low": 1.1, "score_median": 2.4, "score_high": 3.6,
    "event_mix": 0.006, "popularity_shift": 0.02, "embedding_shift": 0.015, "new_users": 0.05, "new_items": 0.02,
    "feature_age": 0.42, "lag": 6.0, "learning_lag": 40.0, "dead_letter_rate": 0.0004, "head_age": 0.5,
    "step_milliseconds": 21.0, "latency_milliseconds": 9.0, "examples": 38.0, "recommendations": 24.0,
    "forgetting": 0.02, "backward_transfer": -0.012, "coverage": 0.44, "popularity_bias": 1.7, "personalised": 0.93,
}  # fmt: skip
"""What a healthy scenario's signals stand at."""

DAILY = frozenset(("click_rate", "control_click_rate", "lag", "learning_lag", "examples", "recommendations"))
"""Signals that rise by day and fall by night."""


@dataclass(frozen=True)
class Episode:
    """A stretch of a scenario's past in which some signals are multiplied by a factor, in and out within `edge`."""

    signals: dict[str, float]
    began: float
    ended: float
    edge: float = 600.0

    def factors(self, signal: str, at: np.ndarray) -> np.ndarray:
        wanted = self.signals.get(signal)
        if wanted is None:
            return np.ones_like(at)
        inside = np.clip((at - self.began) / self.edge, 0, 1) * np.clip((self.ended - at) / self.edge, 0, 1)
        return 1 + (wanted - 1) * inside


@dataclass(frozen=True)
class Told:
    """One report of a story: `hours` before now, what was said, and the numbers it was said of."""

    hours: float
    signal: str
    status: str
    severity: Severity
    reason: str
    action: str = ""
    value: float | None = None
    reference: float | None = None


def fill(
    history: History,
    now: float,
    *,
    scenarios: Sequence[str] = NAMES,
    days: float = 30.0,
    finest: int = 5,
    seed: int = 1,
    prefix: str = "headstream.",
) -> None:
    """Write the past of these scenarios up to `now`, at every resolution as if it had been watched all along."""
    outage = (now - 20 * HOUR, now - 18.5 * HOUR)
    for number, scenario in enumerate(scenarios):
        if scenario == EMPTY:
            continue
        random = np.random.default_rng([seed, number])
        level = 0.75 + 0.5 * random.random()
        history.add(_measured(scenario, _times(now, days, finest, outage), now, days, level, outage[1], random))
        told = [_report(scenario, now, each) for each in _story(scenario)]
        history.add_reports(told)
        history.save_verdicts(list(_verdicts(scenario, told)))
        _versions(history, scenario, now, level, random)
        history.replace_probe_recalls(scenario, list(_matrix(now, days, level, random, scenario)))
    for scenario in ("shop", "news"):
        if scenario in scenarios:
            history.record_action(_order(scenario, now))
    history.prune(now)
    _counts(history, [each for each in scenarios if each != EMPTY], now, prefix)


def _times(now: float, days: float, finest: int, outage: tuple[float, float]) -> np.ndarray:
    """When something was measured: the farther back, the less often, as the resolutions keep it."""
    hourly = np.arange(now - days * DAY, now - RESOLUTIONS[60], HOUR)
    each_minute = np.arange(max(now - days * DAY, now - RESOLUTIONS[60]), now - RESOLUTIONS[5], 60)
    often = np.arange(now - RESOLUTIONS[5], now, finest)
    at = np.concatenate((hourly, each_minute, often))
    return at[(at < outage[0]) | (at >= outage[1])]


def _measured(
    scenario: str, at: np.ndarray, now: float, days: float, level: float, restart: float, random: np.random.Generator
) -> Iterator[Measured]:
    day = 1 + 0.25 * np.sin(2 * np.pi * (at % DAY) / DAY - 2.0)
    learnt = 1 - 0.3 * np.exp(-(at - (now - days * DAY)) / (4 * DAY))
    episodes = EPISODES.get(scenario, ())
    for signal, usual in LEVELS.items():
        kind = SIGNALS[signal].kind
        spread = 0.25 if kind == "operations" else 0.05
        values = usual * (level if kind in ("quality", "exposure") else 1.0) * np.exp(spread * _noise(at, random))
        if signal in DAILY:
            values *= day
        if kind == "quality" and "popular" not in signal and "control" not in signal:
            values *= learnt
        for episode in episodes:
            moved = Episode(episode.signals, now + episode.began * HOUR, now + episode.ended * HOUR, episode.edge)
            values *= moved.factors(signal, at)
        # After the outage there is a backlog to work off.
        if signal in ("lag", "learning_lag", "feature_age"):
            values *= 1 + 200 * np.exp(-np.maximum(at - restart, 0) / 300) * (at >= restart)
        for moment, value in zip(at.tolist(), values.tolist(), strict=True):
            yield Measured.one(scenario, signal, moment, value)


def _noise(at: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Noise that wanders, as signals over sessions do, with a share that does not."""
    white = random.standard_normal(len(at))
    smooth = np.convolve(random.standard_normal(len(at) + 29), np.ones(30) / 30**0.5, mode="valid")
    wanders: np.ndarray = 0.6 * white + 0.8 * smooth
    return wanders


# Hours before and after now in which signals leave their usual level.
EPISODES: dict[str, tuple[Episode, ...]] = {
    "video": (
        Episode({"embedding_shift": 14, "popularity_shift": 4}, -6.0, -2.0, 1500),
        Episode({"recall@10": 0.55, "ndcg@10": 0.52, "click_rate": 0.7, "log_loss": 1.22}, -6.0, -3.4, 2400),
    ),
    "news": (
        Episode({"recall@10": 0.4, "ndcg@10": 0.4, "click_rate": 0.45, "log_loss": 1.35}, -9.1, -8.6, 300),
        Episode({"event_mix": 30, "popularity_shift": 9}, -9.1, -8.0, 300),
        Episode({"coverage": 0.4, "popularity_bias": 2.1}, -9.1, -8.4, 600),
    ),
    "travel": (
        Episode({"click_rate": 0.52, "recall@10": 0.6, "ndcg@10": 0.57, "log_loss": 1.25}, -0.75, 9.0, 500),
        Episode({"calibration_error": 2.6, "score_median": 1.2, "score_high": 1.3}, -0.7, 9.0, 600),
        Episode({"coverage": 0.55, "popularity_bias": 1.8}, -0.75, 9.0, 900),
    ),
    "podcasts": (Episode({"new_items": 12}, -3.0, 9.0, 900),),
    "games": (Episode({"examples": 0.0, "head_age": 9000.0}, -2.0, 9.0, 60),),
    "jobs": (Episode({"lag": 900, "latency_milliseconds": 80, "feature_age": 30}, -0.4, 9.0, 600),),
}


def _story(scenario: str) -> list[Told]:
    passed = "Not worse than version before on 412 examples that both ranked."
    stories = {
        "shop": [
            Told(30, "", "consolidated", "news", "A new generation of all vectors passed the gate.", "new generation"),
            Told(5, "", "promoted", "news", passed, "version 1170 is good"),
        ],
        "video": [
            Told(5.8, "embedding_shift", "alarm", "note", "Users turn to documentaries: the mean vector of the items "
                 "that are used moved by .21.", value=0.21, reference=0.015),
            Told(5.5, "recall@10", "alarm", "page", "Recall@10 fell from .31 to .17 on the last 400 examples.",
                 "learning goes on", 0.17, 0.31),
            Told(3.2, "recall@10", "cleared", "news", "Recall@10 is back at .30: learning has caught up.",
                 value=0.30, reference=0.31),
            Told(2.0, "embedding_shift", "cleared", "news", "Tastes are steady again.", value=0.02, reference=0.015),
            Told(1.9, "", "promoted", "news", passed, "version 1170 is good"),
        ],
        "news": [
            Told(9.0, "event_mix", "alarm", "note", "Of 100 events 61 are shares, against 4 before.",
                 value=0.31, reference=0.006),
            Told(8.9, "recall@10", "alarm", "page", "Recall@10 fell from .27 to .11 on the last 400 examples.",
                 "", 0.11, 0.27),
            Told(8.8, "recall@10", "rolled_back", "page", "Significantly worse than version 1160 on 240 examples that "
                 "both ranked, so version 1160 is served again and learning starts from it.",
                 "rolled back to version 1160", 0.11, 0.27),
            Told(8.4, "recall@10", "cleared", "news", "Recall@10 is back at .27.", value=0.27, reference=0.27),
            Told(8.0, "event_mix", "cleared", "news", "The event mix is as before.", value=0.007, reference=0.006),
            Told(7.0, "", "promoted", "news", passed, "version 1170 is good"),
        ],
        "travel": [
            Told(0.62, "click_rate", "alarm", "page", "The click rate fell from .12 to .06 on the last 3,100 lists; "
                 "the control group's did not.", "", 0.061, 0.118),
            Told(0.55, "recall@10", "alarm", "page", "Recall@10 fell from .31 to .19 on the last 400 examples.",
                 "", 0.19, 0.31),
            Told(0.5, "calibration_error", "alarm", "page", "The model is right in 4 of 10 cases of which it says 5.",
                 "", 0.08, 0.031),
        ],
        "podcasts": [
            Told(2.8, "new_items", "alarm", "note", "New items are 24 of 100 events, against 2 before.",
                 value=0.24, reference=0.02),
        ],
        "games": [Told(2.0, "", "paused", "news", "Paused by dana: the tournament sends events of bots.", "paused")],
        "jobs": [
            Told(0.3, "lag", "alarm", "page", "5,200 events wait in Kafka, against 6 before.", "", 5200.0, 6.0),
        ],
    }  # fmt: skip
    return stories.get(scenario, [Told(30, "", "promoted", "news", passed, "version 1170 is good")])


def _report(scenario: str, now: float, told: Told) -> DriftReport:
    difference = None if told.value is None or told.reference is None else abs(told.value - told.reference)
    return DriftReport(
        report_id=f"{scenario}:{told.hours}:{told.signal or told.status}",
        scenario=scenario,
        signal=told.signal,
        status=told.status,
        severity=told.severity,
        value=told.value,
        reference=told.reference,
        threshold=None if difference is None else difference / 3,
        window=0 if told.value is None else 400,
        detected_at=say_time(now - told.hours * HOUR),
        action=told.action,
        reason=told.reason,
    )


def _verdicts(scenario: str, told: Sequence[DriftReport]) -> Iterator[dict[str, object]]:
    """How detectors see the newest values: as reports left them, and of the youngest scenario nothing yet."""
    open_alarms = {each.signal for each in told if each.status == "alarm"} - {
        each.signal for each in told if each.status == "cleared"
    }
    for signal, usual in LEVELS.items():
        if SIGNALS[signal].kind == "exposure":
            continue
        row: dict[str, object] = {"scenario": scenario, "signal": signal, "low": None, "high": None}
        if scenario == "podcasts":
            yield {**row, "state": "none", "reason": "too few observations: 1,240 of 3,200"}
            continue
        bound = {"low": 0.8 * usual} if SIGNALS[signal].better == "higher" else {"high": 3 * abs(usual)}
        state, where = ("alarm", "it moved") if signal in open_alarms else ("steady", f"at {usual:.3g}")
        yield {**row, **bound, "state": state, "reason": where}


def _versions(history: History, scenario: str, now: float, level: float, random: np.random.Generator) -> None:
    """Eight good versions of growing age, and how the scenario stands to them."""
    ages = [5.0, 12.0, 26.0, 50.0, 99.0, 196.0, 390.0, 700.0]
    with history.engine.begin() as connection:
        for number, hours in enumerate(ages):
            metrics = {
                name: round(LEVELS[name] * level * float(1 - 0.01 * number + random.normal(0, 0.01)), 4)
                for name in ("recall@10", "ndcg@10", "click_rate")
            }
            history.save_version(
                {
                    "scenario": scenario,
                    "version": 1170 - 10 * number,
                    "lineage": "7c41d2e98b" if hours < 30 else "50aa19c3f0",
                    "step": 48_200 - 2100 * number,
                    "made_at": now - hours * HOUR,
                    "checkpoint": 900 - 12 * number,
                    "metrics": {**metrics, "log_loss": round(4.2 + 0.02 * number, 3)},
                    "note": "First after a consolidation" if number == 2 else "Passed the gate",
                },
                connection,
            )
    stance = {
        "scenario": scenario, "learning": "on", "restores": None, "good": 1170, "since": now - 5 * HOUR,
        "reason": "Passed the gate", "pairs": 188, "difference": 0.004,
    }  # fmt: skip
    if scenario == "games":
        bots = "The tournament sends events of bots"
        stance |= {"learning": "paused", "since": now - 2 * HOUR, "reason": bots}
    if scenario == "travel":
        stance |= {"pairs": 161, "difference": -0.061}
    history.save_stances([stance])


def _matrix(
    now: float, days: float, level: float, random: np.random.Generator, scenario: str
) -> Iterator[dict[str, float]]:
    """Recall on ten frozen probe sets over time: each is a little forgotten, some more than others."""
    windows = 10
    span = days * DAY / windows
    tests = np.linspace(now - days * DAY + span, now, 30)
    for window in range(windows):
        ended = now - days * DAY + (window + 1) * span
        fresh = 0.34 * level * (1 + 0.05 * random.standard_normal())
        for at in tests[tests >= ended - 1]:
            age = (at - ended) / DAY
            lost = 0.22 if scenario == "travel" and window == 4 else 0.06
            recall = fresh * (1 - lost * (1 - np.exp(-age / 8))) + 0.008 * random.standard_normal()
            yield {
                "window": window,
                "at": int(at),
                "began_at": ended - span,
                "ended_at": ended,
                "size": 200,
                "recall": float(np.clip(recall, 0, 1)),
            }


def _counts(history: History, scenarios: Sequence[str], now: float, prefix: str) -> None:
    """What SERVE and LEARN have counted, and the model that is served."""
    tallies = [
        {"topic": f"{prefix}events.{name}", "partition": partition, "code": code, "count": count + 31 * partition}
        for name in scenarios
        for partition in range(4)
        for code, count in (("events", 1_204_318), ("duplicates", 212), ("dead:bad-event", 3), ("dead:not-json", 1))
    ]
    heads = [
        {
            "scenario": name, "lineage": "7c41d2e98b", "version": 1188, "step": 49_040, "published_at": now - 0.5,
            "recall": 0.31, "tested": 4_800_000, "hits": 1_400_000, "examples": 4_817_000,
        }
        for name in scenarios
    ]  # fmt: skip
    with history.engine.begin() as connection:
        connection.execute(sa.insert(Tally), tallies)
        connection.execute(sa.insert(PublishedHead), heads)


def _order(scenario: str, now: float) -> dict[str, object]:
    order: Callable[..., dict[str, object]] = dict
    return order(
        action_id=f"past-{scenario}", action="rollback" if scenario == "news" else "promote", scenario=scenario,
        version=1160 if scenario == "news" else None, author="dana", reason="Release of the day",
        requested_at=now - 5 * HOUR, performed_at=now - 5 * HOUR + 0.8,
        outcome="refused" if scenario == "news" else "done",
        detail="Version 1160 is served already" if scenario == "news" else "Version 1170 is good",
    )  # fmt: skip
