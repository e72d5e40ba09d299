"""The overview: which scenario is in trouble, since when, why, and what can be done; then a card for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from schemas.signals import PAGING, SIGNALS
from streams.gateway.charts import mark_title, spark
from streams.gateway.gateway import Gateway
from streams.gateway.overview import Overview, ScenarioSummary, State, Trend, read_overview
from streams.gateway.ranges import range_of
from streams.gateway.series import read_seconds
from streams.gateway.words import counted, listed
from streams.history import Point

STATES: Mapping[State, str] = {
    "trouble": "In trouble",
    "silent": "Silent",
    "watch": "Worth a look",
    "paused": "Paused",
    "no data": "No data",
    "good": "Well",
}
NEED_SOMEBODY: frozenset[State] = frozenset(("trouble", "silent", "watch", "paused"))
NEWS_SHOWN = 12
MATTERS_SHOWN = 6


@dataclass(frozen=True)
class Step:
    """Something an operator can do about it: a link, and what it says."""

    says: str
    link: str


def read(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    span = range_of(gateway, request, gateway.settings.scenarios)
    overview = read_overview(gateway.settings, gateway.serve, gateway.history, seconds=read_seconds(span))
    summaries = overview.scenarios
    return {
        "span": span,
        "overview": overview,
        "headline": headline(summaries),
        "matters": [(each, steps(each)) for each in summaries if each.state in NEED_SOMEBODY][:MATTERS_SHOWN],
        "counts": Counter(each.state for each in summaries),
        "states": STATES,
        "sparks": {each.scenario: sparks(each, overview) for each in summaries},
        "moved": {each.scenario: moved(each) for each in summaries},
        "news": [(each, mark_title(each)) for each in gateway.history.reports(limit=NEWS_SHOWN)],
    }


def headline(summaries: Sequence[ScenarioSummary]) -> str:
    """One sentence on all of them."""
    by_state: dict[str, list[str]] = {}
    for each in summaries:
        by_state.setdefault(each.state, []).append(each.scenario)
    restored = [each for each in summaries if each.restores is not None]
    if troubled := by_state.get("trouble"):
        if restored and troubled == [each.scenario for each in restored]:
            return f"{_rolled_back(restored)} and {'is' if len(troubled) == 1 else 'are'} still in trouble"
        return f"{_named(troubled)} {'is' if len(troubled) == 1 else 'are'} in trouble{_also(restored)}"
    if silent := by_state.get("silent"):
        return f"{counted(len(silent), 'scenario has', 'scenarios have')} gone silent{_also(restored)}"
    if restored:
        return f"{_rolled_back(restored)}; nothing is in trouble"
    if watched := by_state.get("watch", []) + by_state.get("paused", []):
        return f"Nothing is in trouble; {counted(len(watched), 'scenario is', 'scenarios are')} worth a look"
    if "good" in by_state:
        return f"All is well with {counted(len(by_state['good']), 'scenario')}"
    return "No data has come yet"


def _named(names: Sequence[str]) -> str:
    return listed(names if len(names) <= 3 else [*names[:2], counted(len(names) - 2, "other")])


def _rolled_back(restored: Sequence[ScenarioSummary]) -> str:
    names = _named([each.scenario for each in restored])
    return (
        f"{names} was rolled back to version {restored[0].restores}"
        if len(restored) == 1
        else f"{names} were rolled back"
    )


def _also(restored: Sequence[ScenarioSummary]) -> str:
    return f"; {_rolled_back(restored)}" if restored else ""


def steps(summary: ScenarioSummary) -> list[Step]:
    """What to do about a scenario, the most useful first."""
    home = f"/scenarios/{summary.scenario}"
    paging = [each for each in summary.alarms if each.severity == "page"]
    kinds = {SIGNALS[each.signal].kind for each in paging if each.signal in SIGNALS}
    found = []
    if summary.stance is not None and summary.restores is not None:
        found.append(Step("Promote…", f"{home}/versions#promote"))
        found.append(Step("Roll back to another…", f"{home}/versions#rollback"))
        paused = summary.stance.learning == "paused"
        found.append(Step("Resume…", f"{home}/versions#resume") if paused else Step("Pause…", f"{home}/versions#pause"))
    elif summary.state == "paused":
        found.append(Step("Resume learning…", f"{home}/versions#resume"))
    elif summary.state == "trouble" and "quality" in kinds:
        found.append(Step("Roll back…", f"{home}/versions#rollback"))
    if kinds == {"operations"} or summary.state == "silent":
        found.append(Step("See lag and dead letters", "/data"))
    return [*found, Step("See what happened", home)]


def moved(summary: ScenarioSummary) -> list[str]:
    """Titles of the inputs that left their reference."""
    return [each.title for each in summary.alarms if each.signal in SIGNALS and SIGNALS[each.signal].kind not in PAGING]


def sparks(summary: ScenarioSummary, overview: Overview) -> dict[str, str]:
    """The small lines of a card, two of which share a scale where they are to be compared."""
    found = {}
    for first, second in (("click_rate", "control_click_rate"), ("recall@10", "recall@10_popular")):
        drawn = {name: _points(summary.signals[name]) for name in (first, second)}
        top = max((each.mean for points in drawn.values() for each in points), default=0.0)
        for name, points in drawn.items():
            found[name] = spark(points, overview.seconds, overview.since, overview.at, top)
    return found


def _points(trend: Trend) -> list[Point]:
    return [Point(at, mean, mean, mean, 1.0) for at, mean in trend.points]
