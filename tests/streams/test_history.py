"""History: what people look back on adds up, stays bounded, and reads the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from schemas.reports import DriftReport
from schemas.tables import Series, Table
from schemas.times import say_time
from streams.history import MOST_POINTS, RESOLUTIONS, History, Measured, Point
from streams.store import open_engine

HOUR = 3600
START = 1_790_000_000 // HOUR * HOUR


@pytest.fixture(params=["sqlite", "postgresql"])
def history(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[History]:
    found = f"sqlite:///{tmp_path / 'history.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = open_engine(found)
    Table.metadata.drop_all(engine)
    Table.metadata.create_all(engine)
    yield History(engine)
    Table.metadata.drop_all(engine)
    engine.dispose()


def report(number: int, scenario: str = "shop", at: float = START) -> DriftReport:
    return DriftReport(
        report_id=f"{scenario}-{number}", scenario=scenario, signal="recall@10", status="alarm", severity="page",
        value=0.1, reference=0.3, threshold=0.05, window=400, detected_at=say_time(at), action="", reason="It fell.",
    )  # fmt: skip


def test_observations_of_one_stretch_add_up_whoever_made_them(history: History) -> None:
    history.add([Measured.one("shop", "recall@10", START + 1, 0.0), Measured.one("shop", "recall@10", START + 2, 1.0)])
    History(history.engine).add([Measured("shop", "recall@10", START + 3, 2.0, 1.0, 0.25, 0.75)])
    found = history.series("shop", ["recall@10"], START, START + 600)
    assert found.points == {"recall@10": [Point(START, 0.5, 0.0, 1.0, 4.0)]}


def test_what_is_not_finite_spoils_nothing(history: History) -> None:
    odd = [Measured.one("shop", "lag", START, value) for value in (math.nan, math.inf)]
    history.add([*odd, Measured.one("shop", "lag", START, 1.0)])
    assert history.series("shop", ["lag"], START, START + 60).points == {"lag": [Point(START, 1.0, 1.0, 1.0, 1.0)]}


def test_a_signal_that_was_not_measured_has_no_point_rather_than_a_zero(history: History) -> None:
    assert history.series("shop", ["lag"], START, START + 60).points == {"lag": []}


@pytest.mark.parametrize("hours", [0.5, 1, 5, 47, 30 * 24, 89 * 24])
def test_no_range_gives_more_points_than_a_chart_can_show(history: History, hours: float) -> None:
    until = START + hours * HOUR
    step = max(5.0, hours * HOUR / 2000)
    count = int(hours * HOUR / step)
    history.add([Measured.one("shop", "lag", START + number * step, float(number)) for number in range(count)])
    found = history.series("shop", ["lag"], START, until)
    points = found.points["lag"]
    assert 100 <= len(points) <= MOST_POINTS
    assert sum(each.observations for each in points) >= count - found.seconds / step - 1
    assert [each.at for each in points] == sorted({each.at for each in points})


def test_rows_are_few_however_long_it_runs(history: History) -> None:
    day = 86_400
    times = [START + number * day / 4 for number in range(4 * 200)]
    history.add([Measured.one("shop", "lag", at, 1.0) for at in times])
    history.prune(times[-1])
    with history.engine.connect() as connection:
        query = sa.select(Series.seconds, sa.func.min(Series.at).label("first")).group_by(Series.seconds)
        oldest = {row.seconds: row.first for row in connection.execute(query)}
    assert oldest.keys() == RESOLUTIONS.keys()
    assert all(at >= times[-1] - RESOLUTIONS[seconds] for seconds, at in oldest.items())


def test_a_chart_of_few_points_reads_few_rows(history: History) -> None:
    """A coarse question is answered from coarse stretches, though finer ones are kept as far back."""
    history.add([Measured.one("shop", "lag", START + 5 * number, 1.0) for number in range(720)])
    with history.engine.begin() as connection:
        connection.execute(sa.delete(Series).where(Series.seconds == 5))
    found = history.series("shop", ["lag"], START, START + HOUR, points=30)
    assert (found.seconds, len(found.points["lag"])) == (120, 30)


def test_the_newest_values_are_told_for_all_scenarios_at_once(history: History) -> None:
    history.add([Measured.one("shop", "lag", START + at, value) for at, value in ((0, 9.0), (100, 1.0), (103, 3.0))])
    history.add([Measured.one("news", "recall@10", START + 100, 0.5), Measured.one("news", "ndcg@10", START, 0.5)])
    assert history.newest(["shop", "news"], ["lag", "recall@10"], START + 60) == {
        "shop": {"lag": Point(START + 100, 2.0, 1.0, 3.0, 2.0)},
        "news": {"recall@10": Point(START + 100, 0.5, 0.5, 0.5, 1.0)},
    }


def test_an_alarm_is_open_until_its_own_signal_is_cleared(history: History) -> None:
    def said(number: int, status: str, signal: str = "lag", scenario: str = "shop") -> DriftReport:
        each = report(number, scenario, at=START + number)
        return msgspec.structs.replace(each, status=status, signal=signal)

    history.add_reports([said(1, "alarm"), said(2, "cleared"), said(3, "alarm"), said(4, "alarm")])
    history.add_reports([said(5, "cleared", "recall@10"), said(6, "rolled_back"), said(7, "alarm", scenario="news")])
    history.add_reports([said(8, "alarm", "ndcg@10"), said(9, "cleared", "ndcg@10")])
    assert [each.report_id for each in history.open_alarms()] == ["shop-3", "shop-4", "news-7"]


def test_reports_of_one_moment_are_told_apart_by_their_ids(history: History) -> None:
    history.add_reports([report(number, at=START) for number in range(4)])
    assert [each.report_id for each in history.reports(until=START, below="shop-2")] == ["shop-1", "shop-0"]


def test_what_is_begun_is_begun_once(history: History) -> None:
    row = {
        "action_id": "t:0:1", "action": "republish", "scenario": None, "version": None, "author": "eve",
        "reason": "a typo", "requested_at": START, "performed_at": START, "outcome": "begun", "detail": "",
    }  # fmt: skip
    assert history.begin_action(row, again=False)
    assert not history.begin_action({**row, "author": "bob"}, again=False)
    history.end_action("t:0:1", "refused", "Kafka was away")
    assert history.begin_action({**row, "author": "bob"}, again=False)
    history.end_action("t:0:1", "done", "it went")
    assert not history.begin_action(row, again=False)
    assert history.begin_action({**row, "author": "ann"}, again=True)
    assert {name: each.author for name, each in history.actions_named(["t:0:1", "t:0:2"]).items()} == {"t:0:1": "ann"}


def test_a_report_that_comes_twice_is_kept_once_and_the_newest_stands_first(history: History) -> None:
    history.add_reports([report(1, at=START), report(2, at=START + 5)])
    history.add_reports([report(2, at=START + 5), report(3, "news", at=START + 9)])
    assert [each.report_id for each in history.reports()] == ["news-3", "shop-2", "shop-1"]
    assert [each.report_id for each in history.reports(scenario="shop", since=START + 1)] == ["shop-2"]
    assert [each.report_id for each in history.reports(until=START + 5)] == ["shop-1"]


def test_several_scenarios_are_read_at_once(history: History) -> None:
    history.add([Measured.one(name, "lag", START + 1, 3.0) for name in ("shop", "news")])
    found = history.series_of(["shop", "news", "new"], ["lag"], START, START + 600)
    assert {name: len(each.points["lag"]) for name, each in found.items()} == {"shop": 1, "news": 1, "new": 0}
    assert found["news"] == history.series("news", ["lag"], START, START + 600)


def test_few_points_are_read_from_few_rows(history: History) -> None:
    history.add([Measured.one("shop", "lag", START + number * 60, 1.0) for number in range(24 * 60)])
    with history.engine.begin() as connection:
        connection.execute(sa.delete(Series).where(Series.seconds != HOUR))
    points = history.series("shop", ["lag"], START, START + 24 * HOUR, points=24).points["lag"]
    assert [each.observations for each in points] == [60.0] * 24


def test_versions_stances_and_actions_are_what_was_saved_last(history: History) -> None:
    version = {
        "scenario": "shop", "version": 7, "lineage": "l", "step": 70, "made_at": START, "checkpoint": 3,
        "metrics": {"recall@10": 0.3}, "note": "passed the gate",
    }  # fmt: skip
    with history.engine.begin() as connection:
        history.save_version(version, connection)
        history.save_version({**version, "version": 9, "made_at": START + 60, "checkpoint": 4}, connection)
        history.save_version({**version, "version": 9, "made_at": START + 60, "checkpoint": 5}, connection)
    assert [(each.version, each.checkpoint) for each in history.versions("shop")] == [(9, 5), (7, 3)]
    with history.engine.begin() as connection:
        history.forget_versions([("shop", 7)], connection)
    assert [each.version for each in history.versions()] == [9]

    stance = {
        "scenario": "shop", "learning": "on", "restores": None, "good": 9, "since": START, "reason": "", "pairs": 0,
        "difference": 0.0,
    }  # fmt: skip
    history.save_stances([stance])
    history.save_stances([{**stance, "learning": "paused"}])
    assert history.stances()["shop"].learning == "paused"

    action = {
        "action_id": "a-1", "action": "pause", "scenario": "shop", "version": None, "author": "eve",
        "reason": "a sale", "requested_at": START, "performed_at": START + 1, "outcome": "done", "detail": "",
    }  # fmt: skip
    history.record_action(action)
    history.record_action({**action, "author": "somebody else"})
    known = history.action("a-1")
    assert known is not None and known.author == "eve"
    assert history.action("a-2") is None
    assert [each.action_id for each in history.actions("shop")] == ["a-1"]
    assert history.actions("news") == []


def test_verdicts_are_what_was_said_last(history: History) -> None:
    first = {"scenario": "shop", "signal": "lag", "state": "none", "reason": "too few", "low": None, "high": None}
    history.save_verdicts([first, {**first, "scenario": "news"}])
    history.save_verdicts([{**first, "state": "steady", "reason": "at 3", "high": 1000.0}])
    history.save_verdicts([])
    found = history.verdicts("shop")
    assert {name: (each.state, each.reason, each.high) for name, each in found.items()} == {
        "lag": ("steady", "at 3", 1000.0)
    }
    assert history.verdicts("news")["lag"].state == "none"


def test_a_matrix_is_replaced_as_a_whole(history: History) -> None:
    def cell(window: int, at: int) -> dict[str, float]:
        return {"window": window, "at": at, "began_at": 0.0, "ended_at": 1.0, "size": 10, "recall": 0.5}

    history.replace_probe_recalls("shop", [cell(1, 5), cell(0, 9), cell(0, 5)])
    history.replace_probe_recalls("news", [cell(3, 1)])
    assert [(each.window, each.at) for each in history.probe_recalls("shop")] == [(0, 5), (0, 9), (1, 5)]
    history.replace_probe_recalls("shop", [cell(2, 7)])
    assert [(each.window, each.at) for each in history.probe_recalls("shop")] == [(2, 7)]
    assert [each.window for each in history.probe_recalls("news")] == [3]
