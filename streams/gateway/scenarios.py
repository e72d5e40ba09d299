"""Scenarios: all at a glance, their series and reports, and of each its versions and what it has forgotten."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.tables import ProbeRecall, Version
from streams.gateway.actions import Outcome, outcome_of
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.overview import Overview, Standing, read_overview, standing_of
from streams.gateway.reports import ReportRow, report_row
from streams.gateway.series import (
    DEFAULT_RANGE,
    Range,
    SeriesAnswer,
    SeriesQuery,
    read_moment,
    read_seconds,
    read_series,
)

ACTIONS_SHOWN = 100


class OverviewQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Over how long trends go."""

    range: Range = DEFAULT_RANGE


class ReportsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which ones."""

    scenario: Annotated[str, Meta(description="Only those of this scenario.")] | None = None
    until: Annotated[str, Meta(description="Only those before; RFC 3339 or epoch seconds.")] | None = None
    below: (
        Annotated[str, Meta(description="With `until`: of those at that very time, only lower report_ids.")] | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=500, description="How many, at most.")] = 100


class Reports(msgspec.Struct, frozen=True):
    """Newest first; `next_until` with `next_below` goes on where these end, None where they were the last."""

    reports: list[ReportRow]
    next_until: float | None
    next_below: str | None


class VersionRow(msgspec.Struct, frozen=True):
    """A version that was good once and can be rolled back to; `metrics` are numbers as they stood then."""

    version: int
    lineage: str
    step: int
    made_at: float
    checkpoint: int
    metrics: dict[str, float | None]
    note: str


class Versions(msgspec.Struct, frozen=True):
    """The versions of a scenario, newest first, how it stands to them, and what was done, newest first."""

    scenario: str
    stance: Standing | None
    versions: list[VersionRow]
    actions: list[Outcome]


class ProbeWindow(msgspec.Struct, frozen=True):
    """A frozen probe set: `size` questions from `began_at` to `ended_at`, epoch seconds, and how it was answered.

    Attributes:
        recalls: pairs of the time of a test and recall@10, oldest first.
        best: the highest of them, and `last`: the newest; what lies between them was forgotten.
    """

    window: int
    began_at: float
    ended_at: float
    size: int
    recalls: list[tuple[int, float]]
    best: float
    last: float
    forgotten: float


class Forgetting(msgspec.Struct, frozen=True):
    """The forgetting matrix of a scenario, windows in the order of time; `forgotten` is the mean over them."""

    scenario: str
    windows: list[ProbeWindow]
    forgotten: float | None


def read_scenarios(gateway: Gateway, asked: Asked[OverviewQuery, Nothing]) -> Overview:
    seconds = read_seconds(asked.query.range)
    return read_overview(gateway.settings, gateway.serve, gateway.history, seconds=seconds)


def read_reports(gateway: Gateway, asked: Asked[ReportsQuery, Nothing]) -> Reports:
    query = asked.query
    if query.scenario is not None:
        gateway.check_scenario(query.scenario)
    until = None if query.until is None else read_moment("until", query.until, time.time())
    found = gateway.history.reports(scenario=query.scenario, until=until, below=query.below, limit=query.limit + 1)
    rows = [report_row(each) for each in found[: query.limit]]
    more = rows[-1] if len(found) > query.limit else None
    return Reports(rows, more.detected_at if more else None, more.report_id if more else None)


def read_versions(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> Versions:
    name = gateway.check_scenario(asked.path["scenario"])
    stance = gateway.history.stances().get(name)
    return Versions(
        scenario=name,
        stance=standing_of(stance) if stance else None,
        versions=[_version_row(each) for each in gateway.history.versions(name)],
        actions=[outcome_of(each) for each in gateway.history.actions(name, ACTIONS_SHOWN)],
    )


def _version_row(version: Version) -> VersionRow:
    return VersionRow(
        version=version.version,
        lineage=version.lineage,
        step=version.step,
        made_at=version.made_at,
        checkpoint=version.checkpoint,
        metrics=msgspec.json.decode(version.metrics),
        note=version.note,
    )


def read_forgetting(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> Forgetting:
    name = gateway.check_scenario(asked.path["scenario"])
    cells: dict[int, list[ProbeRecall]] = {}
    for cell in gateway.history.probe_recalls(name):
        cells.setdefault(cell.window, []).append(cell)
    windows = [_window(each) for each in cells.values()]
    forgotten = sum(each.forgotten for each in windows) / len(windows) if windows else None
    return Forgetting(name, windows, forgotten)


def _window(cells: list[ProbeRecall]) -> ProbeWindow:
    """One probe set, from its cells in the order of time."""
    first, best, last = cells[0], max(each.recall for each in cells), cells[-1].recall
    return ProbeWindow(
        window=first.window,
        began_at=first.began_at,
        ended_at=first.ended_at,
        size=cells[-1].size,
        recalls=[(each.at, each.recall) for each in cells],
        best=best,
        last=last,
        forgotten=best - last,
    )


_UNKNOWN = (HTTPStatus.NOT_FOUND,)
_BAD_OR_UNKNOWN = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)

CALLS = (
    Endpoint(
        method="GET",
        path="/api/scenarios",
        summary="Every scenario at a glance, worst first",
        call=read_scenarios,
        query=OverviewQuery,
        answer=Overview,
        refusals=(HTTPStatus.BAD_REQUEST,),
    ),
    Endpoint(
        method="GET",
        path="/api/series",
        summary="Signals of the whole system over time, at most 500 points",
        call=read_series,
        query=SeriesQuery,
        answer=SeriesAnswer,
        refusals=(HTTPStatus.BAD_REQUEST,),
    ),
    Endpoint(
        method="GET",
        path="/api/series/{scenario}",
        summary="Signals of a scenario over time, at most 500 points",
        call=read_series,
        query=SeriesQuery,
        answer=SeriesAnswer,
        refusals=_BAD_OR_UNKNOWN,
    ),
    Endpoint(
        method="GET",
        path="/api/reports",
        summary="Alarms, and acts upon models, newest first",
        call=read_reports,
        query=ReportsQuery,
        answer=Reports,
        refusals=_BAD_OR_UNKNOWN,
    ),
    Endpoint(
        method="GET",
        path="/api/versions/{scenario}",
        summary="The versions of a scenario, how it stands to them, and what was done",
        call=read_versions,
        answer=Versions,
        refusals=_UNKNOWN,
    ),
    Endpoint(
        method="GET",
        path="/api/forgetting/{scenario}",
        summary="How well a scenario still answers what was asked earlier",
        call=read_forgetting,
        answer=Forgetting,
        refusals=_UNKNOWN,
    ),
)
