"""A scenario's page: quality, inputs, forgetting, calibration and exposure over time, and what happened meanwhile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from streams.gateway.charts import MOST_MARKS, PLANS, Charts, draw_charts, draw_marks
from streams.gateway.gateway import Gateway
from streams.gateway.matrix import SHADES, matrix_of
from streams.gateway.overview import ScenarioSummary, read_overview
from streams.gateway.overview_page import STATES, steps
from streams.gateway.ranges import range_of
from streams.gateway.series import read_seconds

SECTIONS: Mapping[str, tuple[str, str]] = {
    "quality": ("Quality", "Is the model good, and better than no model?"),
    "inputs": ("Inputs", "Did what comes in change? Then quality may follow."),
    "forgetting": ("Forgetting", "What did it know once, and no longer?"),
    "calibration": ("Calibration", "Can its scores be read as chances?"),
    "exposure": ("Exposure", "What do people get to see?"),
    "operations": ("Operations", "Is it fast, and up to date?"),
}

TILES = (
    "click_rate", "control_click_rate", "recall@10", "recall@10_popular", "latency_milliseconds", "head_age", "lag",
    "learning_lag", "dead_letter_rate",
)  # fmt: skip


def read(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    name = gateway.check_scenario(request.path_params["scenario"])
    span = range_of(gateway, request, [name])
    summary = read_summary(gateway, name, span)
    now = time.time()
    since = now - read_seconds(span)
    reports = gateway.history.reports(scenario=name, since=since, limit=MOST_MARKS)
    return {
        "name": name,
        "span": span,
        "summary": summary,
        "steps": [each for each in steps(summary) if each.link != f"/scenarios/{name}"],
        "states": STATES,
        "tiles": TILES,
        "red": {each.signal for each in summary.alarms},
        "sections": SECTIONS,
        "plans": PLANS,
        "marks": draw_marks(reports),
        "matrix": matrix_of(gateway.history.probe_recalls(name)),
        "shades": SHADES,
        "now": now,
        "stretch": since,
    }


def read_summary(gateway: Gateway, name: str, span: str) -> ScenarioSummary:
    """One scenario as the overview knows it."""
    seconds = read_seconds(span)
    return read_overview(gateway.settings, gateway.serve, gateway.history, seconds=seconds, only=name).scenarios[0]


def read_charts(gateway: Gateway, request: Request) -> Charts:
    """All charts of the page in one answer."""
    name = gateway.check_scenario(request.path_params["scenario"])
    span = range_of(gateway, request, [name])
    until = time.time()
    since = until - read_seconds(span)
    wanted = {signal for plan in PLANS for signal in plan.read}
    stretch = gateway.history.series(name, wanted, since, until)
    reports = gateway.history.reports(scenario=name, since=since, limit=MOST_MARKS)
    summary = read_summary(gateway, name, span)
    ever = any(stretch.points.values()) or any(each.value is not None for each in summary.signals.values())
    ever = ever or summary.status["events"] > 0
    return draw_charts(stretch, reports, summary.alarms, gateway.history.verdicts(name), since, until, ever)
