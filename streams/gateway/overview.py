"""The overview: one summary for each scenario, worst first, that says what is wrong, since when, and what to do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from schemas.reports import Severity
from schemas.settings import Settings
from schemas.signals import LEADING, SIGNALS
from schemas.tables import Report, Stance
from schemas.topics import Topics
from streams.gateway.words import listed
from streams.history import RESOLUTIONS, History, Point
from streams.status import ScenarioStatus, read_scenarios
from streams.store import Store

TRENDS = ("click_rate", "control_click_rate", "recall@10", "recall@10_popular")
"""Signals that are compared over time at a glance; of the others only the newest value is read."""
KEY_SIGNALS = (
    *TRENDS,
    "latency_milliseconds",
    "lag",
    "learning_lag",
    "head_age",
    "feature_age",
    "dead_letter_rate",
)
NEWEST_SECONDS = 300.0
"""How far back the newest value of a signal is taken over."""
TREND_POINTS = 24
"""Of a day these are hours, which the database holds ready."""

State = Literal["trouble", "silent", "watch", "paused", "no data", "good"]
WORST_FIRST: tuple[State, ...] = ("trouble", "silent", "watch", "paused", "no data", "good")


class Trend(msgspec.Struct, frozen=True):
    """A signal now and over the range.

    Attributes:
        value: the mean of the newest five minutes; of the newest point where nothing was measured in them.
        at: when that was, epoch seconds.
        fresh: whether it was within the newest five minutes.
        mean: over the whole range.
        points: pairs of epoch seconds and mean, oldest first; each over `seconds` of the overview; of `TRENDS` alone.
    """

    value: float | None
    at: float | None
    fresh: bool
    mean: float | None
    points: list[tuple[float, float]]


class Alarm(msgspec.Struct, frozen=True):
    """A signal that left its reference and has not come back.

    Attributes:
        since: of the first alarm that was not cleared, epoch seconds; the rest is of the newest.
        action: what was done about it by itself; "" is nothing.
        why: the report's own sentence.
        what_to_do: what an operator should look at, and do.
    """

    signal: str
    title: str
    severity: Severity
    since: float
    value: float | None
    reference: float | None
    action: str
    why: str
    what_to_do: str


class Standing(msgspec.Struct, frozen=True):
    """How a scenario stands towards its good version; the fields are those of `schemas.tables.Stance`."""

    learning: str
    restores: int | None
    good: int | None
    since: float
    reason: str
    pairs: int
    difference: float


class ScenarioSummary(msgspec.Struct, frozen=True):
    """One scenario at a glance.

    Attributes:
        state: `trouble` asks for somebody now; `silent` was measured, and is no more; `watch` is worth an eye; then
            `paused`, `no data` and `good`.
        sentence: what is the matter, for people; `what_to_do`: "" where nothing is to do.
        since: when that began, epoch seconds.
        status: counts, lag and model, as `headstream status` shows them; its `lag` is that of the newest measurement.
        stance: None before LEARN has said how it stands.
        signals: the key signals by name.
        alarms: those that are open, those that page first, and of these what everybody understands.
    """

    scenario: str
    state: State
    sentence: str
    what_to_do: str
    since: float | None
    status: ScenarioStatus
    stance: Standing | None
    signals: dict[str, Trend]
    alarms: list[Alarm]

    @property
    def restores(self) -> int | None:
        """The earlier version that is served again, where one is."""
        return self.stance.restores if self.stance is not None else None


class Overview(msgspec.Struct, frozen=True):
    """All scenarios, worst first, at `at`; trends go from `since` on in stretches of `seconds`."""

    at: float
    since: float
    seconds: int
    scenarios: list[ScenarioSummary]


def read_overview(
    settings: Settings, serve: Store, history: History, *, seconds: float, only: str | None = None
) -> Overview:
    """What the database says of every scenario, or of one alone; trends over the last `seconds`."""
    names = tuple(settings.scenarios) if only is None else (only,)
    now = time.time()
    since = now - seconds
    statuses, stances = read_scenarios(settings, serve), history.stances()
    newest = history.newest(names, KEY_SIGNALS, now - NEWEST_SECONDS)
    silent = history.newest(
        [name for name in names if name not in newest], KEY_SIGNALS, now - min(RESOLUTIONS.values())
    )
    last = {name: max(each.at for each in found.values()) for name, found in silent.items()}
    alarms: dict[str, list[Report]] = {}
    for report in history.open_alarms():
        alarms.setdefault(report.scenario, []).append(report)
    stretches = history.series_of(names, TRENDS, since, now, TREND_POINTS)
    summaries, stretch_seconds = [], 0
    for name in names:
        stretch = stretches[name]
        stretch_seconds = stretch.seconds
        values = newest.get(name, {})
        trends = {
            signal: _trend(stretch.points.get(signal, ()), values.get(signal), last.get(name)) for signal in KEY_SIGNALS
        }
        status = statuses[name]
        if (lag := trends["lag"].value) is not None:
            status["lag"] = int(lag)
        summaries.append(
            _summary(
                name, status, stances.get(name), trends, _open(alarms.get(name, ())), Topics(settings).events(name)
            )
        )
    order = {state: place for place, state in enumerate(WORST_FIRST)}
    summaries.sort(key=lambda each: (order[each.state], -len(each.alarms), each.scenario))
    return Overview(now, since, stretch_seconds, summaries)


def _trend(points: Sequence[Point], newest: Point | None, silent_since: float | None) -> Trend:
    """`silent_since` is when anything of the scenario was measured last, where that is a while ago but still known."""
    last = newest or (points[-1] if points else None)
    observations = sum(each.observations for each in points)
    return Trend(
        value=last.mean if last else None,
        at=newest.at if newest else silent_since or (last.at if last else None),
        fresh=newest is not None,
        mean=sum(each.mean * each.observations for each in points) / observations if observations else None,
        points=[(each.at, each.mean) for each in points],
    )


def _open(reports: Sequence[Report]) -> list[Alarm]:
    """One alarm for each signal, from its reports, oldest first."""
    since: dict[str, float] = {}
    last: dict[str, Report] = {}
    for report in reports:
        since.setdefault(report.signal, report.detected_at)
        last[report.signal] = report
    alarms = [_alarm(report, since[name]) for name, report in last.items()]
    return sorted(alarms, key=lambda each: (each.severity != "page", each.signal not in LEADING, each.since))


def _alarm(report: Report, since: float) -> Alarm:
    signal = SIGNALS.get(report.signal)
    return Alarm(
        signal=report.signal,
        title=signal.title if signal else report.signal,
        severity=report.severity,  # type: ignore[arg-type]  # as a DriftReport had it
        since=since,
        value=report.value,
        reference=report.reference,
        action=report.action,
        why=report.reason,
        what_to_do=signal.remedy if signal else "",
    )


def _summary(
    name: str,
    status: ScenarioStatus,
    stance: Stance | None,
    signals: Mapping[str, Trend],
    alarms: list[Alarm],
    topic: str,
) -> ScenarioSummary:
    state, sentence, what_to_do, since = _verdict(status, stance, signals, alarms, topic)
    return ScenarioSummary(
        scenario=name,
        state=state,
        sentence=sentence,
        what_to_do=what_to_do,
        since=since,
        status=status,
        stance=standing_of(stance) if stance else None,
        signals=dict(signals),
        alarms=alarms,
    )


def standing_of(stance: Stance) -> Standing:
    fields: dict[str, Any] = {name: getattr(stance, name) for name in Standing.__struct_fields__}
    return Standing(**fields)


_SILENT = (
    "Where its lag grows, SERVE or LEARN stands still: look whether they run. Where it does not, no events are "
    "published."
)

_UNTIL_PASSED = (
    "Look at the newest events and at who sends them. What is learnt now is served once it has passed the gate, or "
    "once somebody promotes it."
)
_UNTIL_RESUMED = (
    "Resume learning once the reason is gone; what it learns is served once it has passed the gate, or once somebody "
    "promotes it."
)


def _verdict(
    status: ScenarioStatus,
    stance: Stance | None,
    signals: Mapping[str, Trend],
    alarms: Sequence[Alarm],
    topic: str,
) -> tuple[State, str, str, float | None]:
    """The state, its sentence, what to do, and since when; that a scenario was rolled back is said before all else."""
    paused = stance is not None and stance.learning == "paused"
    also = " Learning is paused." if paused else ""
    paging = [each for each in alarms if each.severity == "page"]
    measured = [trend.at for trend in signals.values() if trend.at is not None]
    silent = bool(measured) and not any(trend.fresh for trend in signals.values())
    if stance is not None and stance.restores is not None:
        sentence, to_do = _say_restored(stance), _UNTIL_RESUMED if paused else _UNTIL_PASSED
        if alarms:
            sentence += f" In alarm: {_titles(alarms)}."
        if not paging and silent:
            return "silent", f"{sentence} Nothing is measured any more.", _SILENT, max(measured)
        return "trouble" if paging else "watch", sentence, to_do, stance.since
    for state, some in (("trouble", paging), ("watch", [] if paused else alarms)):
        if some:
            others = f" Also in alarm: {_titles(some[1:])}." if some[1:] else ""
            return state, f"{some[0].why}{others}{also}", some[0].what_to_do, min(each.since for each in some)  # type: ignore[return-value]
    if stance is not None and paused:
        why = f": {stance.reason}" if stance.reason else "."
        return "paused", f"Learning is paused{why}", "Resume it once the reason is gone.", stance.since
    if status["events"] == 0 and not measured:
        return "no data", "No event has come yet.", f"Publish events to {topic}.", None
    if silent:
        return "silent", "Nothing is measured any more.", _SILENT, max(measured)
    if status["model"]["age_seconds"] is None:
        return "no data", "No model has been published yet.", "Look whether LEARN runs.", None
    return "good", "All signals are where they should be.", "", min(measured, default=None)


def _say_restored(stance: Stance) -> str:
    reason = stance.reason.strip().rstrip(".")
    if reason[1:2].islower():  # a sentence's first word, and no name such as NDCG
        reason = reason[0].lower() + reason[1:]
    because = f", because {reason}" if reason else ""
    then = "is paused until somebody resumes it" if stance.learning == "paused" else "goes on from there"
    return f"Rolled back: version {stance.restores} is served again{because}; learning {then}."


def _titles(alarms: Sequence[Alarm]) -> str:
    return listed(list(dict.fromkeys(each.title for each in alarms)))
