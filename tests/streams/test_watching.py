"""What the monitor sees reaches database and drift topic, later if they fail, and learning goes on meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from schemas.migrations import upgrade
from schemas.settings import Kafka, Settings
from schemas.topics import Topics
from streams import metrics
from streams.administration import ensure_topics
from streams.history import History, Measured
from streams.store import Store, open_engine
from streams.watching import Watching
from tests.learner.builders import NAMES, START, put, small_learner, small_settings, stream

SETTINGS: Settings = msgspec.structs.replace(
    small_settings(probe_share=0.5, probe_rows=20), kafka=Kafka(prefix="t-watching.", partitions=1)
)
SHOP = Topics(SETTINGS).events("shop")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_engine(f"sqlite:///{tmp_path / 'headstream.db'}")
    upgrade(engine)
    yield Store(engine, "learn", "test")
    engine.dispose()


@pytest.fixture
def watching(store: Store, broker: str) -> Iterator[Watching]:
    """Of a learner that knows thirty items; its exams are watched."""
    ensure_topics(broker, Topics(SETTINGS).all(), replication=1)
    learner = small_learner(SETTINGS)
    put(learner, NAMES)
    made = Watching(SETTINGS, broker, store, learner)
    learner.on_exam = made.examine
    yield made
    made.close()


def alarms(scenario: str, signal: str) -> float:
    labels = {"scenario": scenario, "signal": signal}
    return metrics.REGISTRY.get_sample_value("headstream_drift_alarms_total", labels) or 0.0


def counted(watching: Watching, *counts: dict[str, int]) -> dict[str, tuple[float, float]]:
    """Observations and totals by signal, after looks at these tallies of the shop."""
    for each in counts:
        watching.count({(SHOP, code): count for code, count in each.items()}, START)
    observed = watching.look(START + 5).measured
    return {each.signal: (each.observations, each.total) for each in observed if each.scenario == "shop"}


def test_what_serve_counted_before_is_no_news(watching: Watching) -> None:
    before = {"events": 1000, "lists": 900, "clicks": 300, "dead:not-json": 5}
    assert counted(watching, before).keys() == {"learning_lag", "examples"}


def test_clicks_are_of_the_lists_that_came_meanwhile(watching: Watching) -> None:
    found = counted(
        watching,
        {"events": 100, "lists": 90, "clicks": 30},
        {"events": 200, "lists": 190, "clicks": 50, "control_lists": 10, "control_clicks": 1},
        {"events": 200, "lists": 190, "clicks": 55, "control_lists": 10, "control_clicks": 1},
        {"events": 300, "lists": 290, "clicks": 80, "control_lists": 20, "control_clicks": 2},
    )
    assert found["click_rate"] == (200, 50)
    assert found["control_click_rate"] == (20, 2)


def test_dead_letters_are_a_share_of_all_records_whatever_was_wrong(watching: Watching) -> None:
    found = counted(watching, {"events": 50}, {"events": 130, "dead:not-json": 15, "dead:time": 5})
    assert found["dead_letter_rate"] == (100, 20)


def test_the_lag_of_learning_is_what_is_left_and_never_below_nothing(watching: Watching) -> None:
    watching._learner.learn("shop", stream(NAMES, 60))
    assert counted(watching, {"events": 100})["learning_lag"] == (1, 40)
    assert counted(watching, {"events": 20})["learning_lag"] == (1, 0)


def test_everything_is_written(watching: Watching, store: Store) -> None:
    watching._learner.learn("shop", stream(NAMES, 200))
    watching.worked("shop", 200, 0.5)
    watching.test_probes()
    assert watching.write(watching.look(START + 5), START + 5) == []
    history = History(store.engine)
    series = history.series("shop", ["recall@10", "step_milliseconds", "examples"], START - 60, START + 60)
    assert sum(point.observations for point in series.points["recall@10"]) == 200 - 20
    assert [point.mean for point in series.points["step_milliseconds"]] == [pytest.approx(500 / 25)]
    assert [cell.size for cell in history.probe_recalls("shop")] == [20]


def test_what_serve_measures_of_itself_is_judged_and_not_written_twice(watching: Watching, store: Store) -> None:
    history = History(store.engine)
    before = alarms("shop", "lag")
    for number, lag in enumerate([10.0] * 20 + [50_000.0] * 5):
        now = START + 5 * number
        history.add([Measured.one("shop", "lag", now, lag)])
        watching.hear(watching.read_loads(now))
        watching._learner.monitor.written(watching.write(watching.look(now), now))
    (report,) = history.reports()
    assert (report.scenario, report.signal, report.status, report.severity) == ("shop", "lag", "alarm", "page")
    assert report.reason.startswith("Lag of serving is at")
    assert alarms("shop", "lag") == before + 1
    assert sum(each.observations for each in history.series("shop", ["lag"], START, now).points["lag"]) == 25
    assert watching.read_loads(now + 60) == {}  # SERVE is gone, which is not that it has no lag


def test_how_signals_stand_is_written_where_it_changed(watching: Watching, store: Store) -> None:
    history = History(store.engine)
    watching.write(watching.look(START), START)
    assert history.verdicts("shop")["recall@10"].reason.startswith("too few observations: 0 of")
    for number in range(20):
        watching._learner.monitor.hear("shop", "lag", 10.0)
        watching.write(watching.look(START + number), START + number)
    found = history.verdicts("shop")["lag"]
    assert (found.state, found.reason, found.low, found.high) == ("steady", "at 10", None, 1000.0)
    assert history.verdicts("news")["lag"].state == "none"


def test_what_the_database_does_not_take_is_written_later(
    watching: Watching, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(old: str, new: str) -> None:
        with store.engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {old} RENAME TO {new}"))

    watching._learner.learn("shop", stream(NAMES, 100))
    watching.test_probes()
    rename("series", "elsewhere")
    rename("tallies", "nowhere")
    assert watching.read() == {}
    watching.write(watching.look(START + 5), START + 5)
    assert "what was measured is not written yet" in caplog.text
    assert "what SERVE counts is not known" in caplog.text
    rename("elsewhere", "series")
    watching.write(watching.look(START + 10), START + 10)
    history = History(store.engine)
    assert history.series("shop", ["recall@10"], START - 60, START + 60).points["recall@10"]
    assert history.probe_recalls("shop")


def test_a_report_is_on_its_way_and_kept_before_the_monitor_lets_go_of_it(watching: Watching, store: Store) -> None:
    monitor = watching._learner.monitor
    for number in range(300):
        monitor.observe("shop", "click_rate", 40, 16.0 + number % 3, START)
    for _ in range(60):
        monitor.observe("shop", "click_rate", 40, 4.0, START)
    (report,) = monitor.reports
    monitor.written(watching.write(watching.look(START), START))
    assert monitor.reports == []
    assert [each.report_id for each in History(store.engine).reports()] == [report.report_id]
