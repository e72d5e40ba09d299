"""Charts: series and what happened meanwhile, as plain data that a page draws and a table says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from schemas.signals import SIGNALS
from schemas.tables import Report, SignalVerdict
from streams.gateway.overview import Alarm
from streams.history import Point, Stretch

GAP_STRETCHES = 2.5
"""Points farther apart than so many stretches are not joined: what was not measured is not drawn."""


@dataclass(frozen=True)
class Plan:
    """Which signals stand together in one chart; the first is the one that the chart is about.

    Attributes:
        band: names of two signals, low and high, drawn as an area around the first.
    """

    name: str
    title: str
    section: str
    signals: tuple[str, ...]
    band: tuple[str, str] | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """Every signal that it takes."""
        return self.signals + (self.band or ())

    @property
    def unit(self) -> str:
        return SIGNALS[self.signals[0]].unit


PLANS: tuple[Plan, ...] = (
    Plan("recall", "Recall@10 against what is popular", "quality", ("recall@10", "recall@10_popular")),
    Plan("clicks", "Click rate against the control group", "quality", ("click_rate", "control_click_rate")),
    Plan("ndcg", "NDCG@10", "quality", ("ndcg@10",)),
    Plan("tastes", "Shift of tastes", "inputs", ("embedding_shift",)),
    Plan("popularity", "Shift of popularity", "inputs", ("popularity_shift",)),
    Plan("mix", "Shift of the event mix", "inputs", ("event_mix",)),
    Plan("news", "New users and new items", "inputs", ("new_items", "new_users")),
    Plan("forgotten", "Forgetting and backward transfer", "forgetting", ("forgetting", "backward_transfer")),
    Plan("calibration", "Calibration error", "calibration", ("calibration_error",)),
    Plan("surprise", "Log loss", "calibration", ("log_loss",)),
    Plan("scores", "Scores of first items", "calibration", ("score_median",), ("score_low", "score_high")),
    Plan("coverage", "Coverage", "exposure", ("coverage",)),
    Plan("bias", "Popularity bias", "exposure", ("popularity_bias",)),
    Plan("personalised", "Personalised lists", "exposure", ("personalised",)),
    Plan("latency", "Latency", "operations", ("latency_milliseconds",)),
    Plan("lag", "Lag of serving and of learning", "operations", ("lag", "learning_lag")),
    Plan("ages", "Age of the model and of what is learnt", "operations", ("head_age", "feature_age")),
    Plan("throughput", "Examples learnt and lists sent", "operations", ("examples", "recommendations")),
    Plan("dead", "Dead letters", "operations", ("dead_letter_rate",)),
    Plan("step", "Time of a step", "operations", ("step_milliseconds",)),
)
"""The charts of a scenario's page, in their order."""


class Line(msgspec.Struct, frozen=True):
    """A signal as it is drawn; a None in `values` breaks the line.

    Attributes:
        at: epoch seconds.
        least: and `most`: the extremes of each stretch.
    """

    signal: str
    title: str
    at: list[float]
    values: list[float | None]
    least: list[float | None]
    most: list[float | None]


class Red(msgspec.Struct, frozen=True):
    """What an open alarm says of a signal: since when, and what it was before."""

    signal: str
    since: float
    reference: float | None


class Judged(msgspec.Struct, frozen=True):
    """What a detector says of a signal, or why it says nothing; beyond `low` and `high` it would be an alarm."""

    state: str
    says: str
    low: float | None
    high: float | None


class Chart(msgspec.Struct, frozen=True):
    """One chart; where `empty` is not "", there is nothing to draw, and it says why."""

    name: str
    unit: str
    lines: list[Line]
    band: list[Line]
    red: list[Red]
    judged: list[Judged]
    empty: str


class Mark(msgspec.Struct, frozen=True):
    """Something that happened, drawn on every chart at its time.

    Attributes:
        number: what stands at the mark and before its words.
        kind: `alarm`, `cleared`, `promoted`, `rolled_back`, `paused`, `resumed`, `consolidated` or `refused`.
    """

    number: int
    at: float
    kind: str
    severity: str
    title: str
    says: str


class Charts(msgspec.Struct, frozen=True):
    """A scenario's charts over one stretch of time, with what happened in it."""

    since: float
    until: float
    seconds: int
    charts: list[Chart]
    marks: list[Mark]


MOST_MARKS = 40

KINDS = {
    "alarm": "Alarm",
    "cleared": "Cleared",
    "promoted": "Promoted",
    "rolled_back": "Rolled back",
    "paused": "Paused",
    "resumed": "Resumed",
    "consolidated": "Consolidated",
    "refused": "Refused",
}


def draw_charts(
    stretch: Stretch,
    reports: Sequence[Report],
    alarms: Sequence[Alarm],
    verdicts: Mapping[str, SignalVerdict],
    since: float,
    until: float,
    ever: bool,
) -> Charts:
    """Charts of one scenario.

    Args:
        reports: newest first; of many, the newest are marked.
        alarms: the scenario's open ones.
        verdicts: of the scenario's signals, those that are watched.
        ever: whether anything was ever measured of it.
    """
    return Charts(
        since,
        until,
        stretch.seconds,
        [_chart(plan, stretch, alarms, verdicts, ever) for plan in PLANS],
        draw_marks(reports[:MOST_MARKS]),
    )


def draw_marks(reports: Sequence[Report]) -> list[Mark]:
    """Marks for reports, numbered in the order of time."""
    ordered = sorted(reports, key=lambda each: each.detected_at)
    return [
        Mark(number, each.detected_at, each.status, each.severity, mark_title(each), each.reason or each.action)
        for number, each in enumerate(ordered, start=1)
    ]


def mark_title(report: Report) -> str:
    """`Alarm: Recall@10`, `Rolled back`."""
    kind = KINDS.get(report.status, report.status)
    signal = SIGNALS.get(report.signal)
    return f"{kind}: {signal.title}" if signal is not None and report.status in ("alarm", "cleared") else kind


def _chart(
    plan: Plan, stretch: Stretch, alarms: Sequence[Alarm], verdicts: Mapping[str, SignalVerdict], ever: bool
) -> Chart:
    lines = [_line(name, stretch) for name in plan.signals if stretch.points.get(name)]
    band = [_line(name, stretch) for name in plan.band or () if stretch.points.get(name)]
    red = [Red(each.signal, each.since, each.reference) for each in alarms if each.signal in plan.signals]
    judged = [_judged(verdicts[name]) for name in plan.signals if name in verdicts]
    return Chart(plan.name, plan.unit, lines, band, red, judged, "" if lines else _empty(ever))


def _judged(verdict: SignalVerdict) -> Judged:
    signal = SIGNALS[verdict.signal]
    found = {"none": "no verdict", "steady": "no alarm", "alarm": "an alarm is open"}.get(verdict.state, verdict.state)
    bounds = [
        f"{word} {signal.say(bound)}"
        for word, bound in (("below", verdict.low), ("above", verdict.high))
        if bound is not None
    ]
    would = f"; {' or '.join(bounds)} it would be one" if bounds and verdict.state == "steady" else ""
    return Judged(verdict.state, f"{signal.title}: {found}, {verdict.reason}{would}.", verdict.low, verdict.high)


def _empty(ever: bool) -> str:
    if not ever:
        return "Nothing has been measured of this scenario yet. It fills within a minute of the first events."
    return "Nothing was measured in this stretch of time: that is not a zero. Choose a longer one, or look at the lag."


def _line(name: str, stretch: Stretch) -> Line:
    points = with_gaps(stretch.points[name], stretch.seconds)
    return Line(
        name,
        SIGNALS[name].title,
        [at for at, _ in points],
        [None if each is None else significant(each.mean) for _, each in points],
        [None if each is None else significant(each.least) for _, each in points],
        [None if each is None else significant(each.most) for _, each in points],
    )


def with_gaps(points: Sequence[Point], seconds: int) -> list[tuple[float, Point | None]]:
    """Points by time, with a None wherever nothing was measured between two of them."""
    found: list[tuple[float, Point | None]] = []
    for each in points:
        if found and each.at - found[-1][0] > GAP_STRETCHES * seconds:
            found.append((found[-1][0] + seconds, None))
        found.append((each.at, each))
    return found


def significant(value: float) -> float:
    """Five significant digits: more are no news, and make what is sent twice as long."""
    return float(f"{value:.5g}")


def spark(points: Sequence[Point], seconds: int, since: float, until: float, top: float | None = None) -> str:
    """A line of points as an SVG path in a box of 100 by 30, from 0 at the bottom; "" of no points."""
    if not points:
        return ""
    highest = top if top is not None else max(each.mean for each in points)
    width, scale = until - since or 1.0, 27 / highest if highest > 0 else 0.0
    path, joined = [], False
    for at, each in with_gaps(points, seconds):
        if each is not None:
            x, y = min(100.0, max(0.0, (at + seconds / 2 - since) / width * 100)), 28.5 - max(0.0, each.mean) * scale
            path.append(f"{'L' if joined else 'M'}{x:.1f} {y:.1f}")
            joined = True
        else:
            joined = False
    # A single point has no length; a dot shows that it is there.
    return "".join(path) + ("h.1" if len(points) == 1 else "")
