"""What GATEWAY reads from the database: the same on SQLite and on PostgreSQL, and each answer as it is described."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from schemas.items import Item
from schemas.signals import SIGNALS
from schemas.tables import Report, Table
from streams.gateway.calls import CALLS
from streams.gateway.overview import Overview
from streams.history import Measured
from tests.streams.gateway.conftest import Door
from tests.streams.gateway.rows import report, save_items, save_user, serve_something, stance

NOW = time.time()


def overview(door: Door, query: str = "") -> Overview:
    return msgspec.json.decode(door.get(f"/api/scenarios{query}").content, type=Overview)


def measure(door: Door, signal: str, *values: float, scenario: str = "shop", seconds: float = 60.0) -> None:
    """Values of a signal, the last one a moment ago and the others as far apart as is said."""
    moment = time.time() - 10  # not `NOW`, which is when the suite began: what is fresh is minutes old at most
    ago = [moment - seconds * number for number in reversed(range(len(values)))]
    door.gateway.history.add(Measured.one(scenario, signal, at, value) for at, value in zip(ago, values, strict=True))


# At a glance


def test_before_anything_happened_every_scenario_says_what_to_do(either_door: Door) -> None:
    found = overview(either_door).scenarios
    assert [(each.scenario, each.state) for each in found] == [("news", "no data"), ("shop", "no data")]
    assert found[1].what_to_do == "Publish events to t.events.shop."


def test_the_worst_stands_first_and_says_since_when_why_and_what_to_do(either_door: Door) -> None:
    gateway = either_door.gateway
    serve_something(gateway, "news")
    serve_something(gateway, "shop")
    gateway.history.add_reports([report(1, at=NOW - 600), report(2, at=NOW - 60, value=0.05, reason="It fell again.")])
    shop, news = overview(either_door).scenarios
    assert (shop.scenario, shop.state, news.state) == ("shop", "trouble", "good")
    assert shop.sentence == "It fell again."
    assert shop.what_to_do == SIGNALS["recall@10"].remedy
    assert shop.since == pytest.approx(NOW - 600, abs=0.01)
    (alarm,) = shop.alarms
    assert (alarm.title, alarm.value, alarm.why) == ("Recall@10", 0.05, "It fell again.")


def test_what_was_cleared_is_over_and_what_came_after_is_not(either_door: Door) -> None:
    serve_something(either_door.gateway)
    either_door.gateway.history.add_reports(
        [
            report(1, at=NOW - 90),
            report(2, at=NOW - 80, status="cleared"),
            report(3, at=NOW - 70, signal="click_rate"),
            report(4, at=NOW - 60, signal="click_rate", status="cleared"),
            report(5, at=NOW - 50, signal="click_rate", severity="note"),
            report(6, at=NOW - 40, signal="click_rate", status="rolled_back"),
        ]
    )
    (shop,) = [each for each in overview(either_door).scenarios if each.scenario == "shop"]
    assert [(each.signal, each.since) for each in shop.alarms] == [("click_rate", pytest.approx(NOW - 50, abs=0.01))]
    assert shop.state == "watch"


@pytest.mark.parametrize(
    ("fields", "state", "sentence"),
    [
        ({"learning": "paused", "reason": "bots"}, "paused", "Learning is paused: bots"),
        (
            {"restores": 5, "reason": "Recall@10 fell."},
            "watch",
            "Rolled back: version 5 is served again, because recall@10 fell; learning goes on from there.",
        ),
        (
            {"restores": 5, "reason": "NDCG@10 fell", "learning": "paused"},
            "watch",
            "Rolled back: version 5 is served again, because NDCG@10 fell; learning is paused until somebody resumes "
            "it.",
        ),
        ({}, "good", "All signals are where they should be."),
    ],
)
def test_the_stance_is_said_in_words(either_door: Door, fields: dict[str, Any], state: str, sentence: str) -> None:
    serve_something(either_door.gateway)
    either_door.gateway.history.save_stances([stance("shop", **fields)])
    (shop,) = [each for each in overview(either_door).scenarios if each.scenario == "shop"]
    assert (shop.state, shop.sentence) == (state, sentence)
    assert shop.stance is not None and shop.stance.good == 7


def test_a_pause_does_not_hide_trouble(either_door: Door) -> None:
    serve_something(either_door.gateway)
    either_door.gateway.history.save_stances([stance("shop", learning="paused")])
    either_door.gateway.history.add_reports([report(1, at=NOW)])
    shop = overview(either_door).scenarios[0]
    assert (shop.state, shop.sentence) == ("trouble", "recall@10 fell. Learning is paused.")


def test_what_was_rolled_back_says_so_first_and_is_in_trouble_while_an_alarm_is_open(either_door: Door) -> None:
    gateway = either_door.gateway
    serve_something(gateway)
    gateway.history.save_stances([stance("shop", restores=5, reason="It fell.", since=NOW - 30)])
    gateway.history.add_reports([report(1, at=NOW - 60)])
    shop = overview(either_door).scenarios[0]
    said = "Rolled back: version 5 is served again, because it fell; learning goes on from there."
    assert (shop.state, shop.since) == ("trouble", pytest.approx(NOW - 30))
    assert shop.sentence == f"{said} In alarm: Recall@10."
    gateway.history.add_reports([report(2, at=NOW, status="cleared")])
    shop = overview(either_door).scenarios[0]
    assert (shop.scenario, shop.state, shop.sentence) == ("shop", "watch", said)


def test_what_was_rolled_back_and_is_measured_no_more_is_silent(either_door: Door) -> None:
    either_door.gateway.history.save_stances([stance("news", restores=5)])
    either_door.gateway.history.add([Measured.one("news", "click_rate", NOW - 1500, 0.1)])
    news = overview(either_door).scenarios[0]
    assert (news.scenario, news.state) == ("news", "silent")
    assert news.sentence.startswith("Rolled back: version 5") and news.sentence.endswith("measured any more.")


def test_of_alarms_that_come_together_what_everybody_understands_leads(either_door: Door) -> None:
    serve_something(either_door.gateway)
    signals = ("ndcg@10", "log_loss", "click_rate", "recall@10")
    either_door.gateway.history.add_reports(
        [report(number, at=NOW - 60 + number, signal=name) for number, name in enumerate(signals)]
    )
    (shop,) = [each for each in overview(either_door).scenarios if each.scenario == "shop"]
    assert shop.sentence == "click_rate fell. Also in alarm: Recall@10, NDCG@10 and Log loss."


def test_a_trend_tells_now_from_before(either_door: Door) -> None:
    serve_something(either_door.gateway)
    measure(either_door, "click_rate", *[0.1] * 15, *[0.3] * 10, seconds=120)
    measure(either_door, "lag", 12.0)
    (shop,) = [each for each in overview(either_door).scenarios if each.scenario == "shop"]
    trend = shop.signals["click_rate"]
    assert trend.value == pytest.approx(0.3)
    assert trend.mean == pytest.approx((15 * 0.1 + 10 * 0.3) / 25)
    assert [value for _, value in trend.points][:5] == [0.1] * 5
    assert shop.status["lag"] == 12
    assert shop.signals["recall@10"].value is None


# Series


@pytest.mark.parametrize("span", ["30m", "1h", "24h", "30d", "90d"])
def test_no_range_gives_more_than_500_points(either_door: Door, span: str) -> None:
    measure(either_door, "lag", *map(float, range(2000)), seconds=45)
    found = either_door.get(f"/api/series/shop?signal=lag&range={span}").json()
    assert 5 <= len(found["signals"]["lag"]) <= 500
    fewer = either_door.get(f"/api/series/shop?signal=lag&range={span}&points=7").json()
    assert 1 <= len(fewer["signals"]["lag"]) <= 7


def test_times_may_be_written_in_every_usual_way(either_door: Door) -> None:
    for since in ("1790000000", "1790000000000", "2026-09-21T14:13:20Z", "2026-09-21T16:13:20%2B02:00",
                  "2026-09-21T16:13:20+02:00", "2026-09-21T14:13:20"):  # fmt: skip
        found = either_door.get(f"/api/series/shop?since={since}&until=1790003600").json()
        assert (found["since"], found["until"]) == (1790000000.0, 1790003600.0), since
    assert set(found["signals"]) == set(SIGNALS)


def test_signals_of_the_whole_system_have_no_scenario(either_door: Door) -> None:
    measure(either_door, "lag", 3.0, scenario="")
    assert len(either_door.get("/api/series?signal=lag").json()["signals"]["lag"]) == 1
    assert either_door.get("/api/series/shop?signal=lag").json()["signals"]["lag"] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("signal=lagg", "unknown-signal"), ("since=soon", "bad-time"), ("since=2026-13-01", "bad-time"),
        ("since=inf", "bad-time"), ("since=nan", "bad-time"), ("range=1y", "bad-range"), ("range=0h", "bad-range"),
        ("since=20&until=10", "bad-range"), ("points=501", "bad-parameter"), ("since=1e400", "bad-time"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_range_is_refused(either_door: Door, query: str, code: str) -> None:
    answer = either_door.get(f"/api/series/shop?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


# The rest


def test_reports_are_paged_without_a_gap_where_several_are_of_one_moment(either_door: Door) -> None:
    either_door.gateway.history.add_reports([report(number, at=NOW - number // 3) for number in range(8)])
    seen: list[str] = []
    query = "/api/reports?limit=2&scenario=shop"
    found = either_door.get(query).json()
    while True:
        seen += [each["report_id"] for each in found["reports"]]
        if found["next_until"] is None:
            break
        found = either_door.get(f"{query}&until={found['next_until']}&below={found['next_below']}").json()
    assert seen == ["r-002", "r-001", "r-000", "r-005", "r-004", "r-003", "r-007", "r-006"]


def test_versions_come_with_the_stance_and_what_was_done(either_door: Door) -> None:
    history = either_door.gateway.history
    version = {
        "scenario": "shop", "version": 7, "lineage": "l", "step": 70, "made_at": NOW, "checkpoint": 3,
        "metrics": {"recall@10": 0.3}, "note": "passed",
    }  # fmt: skip
    with history.engine.begin() as connection:
        history.save_version(version, connection)
    history.save_stances([stance("shop")])
    found = either_door.get("/api/versions/shop").json()
    assert [(each["version"], each["metrics"]) for each in found["versions"]] == [(7, {"recall@10": 0.3})]
    assert (found["stance"]["good"], found["actions"]) == (7, [])


def test_forgetting_is_what_was_once_known_better(either_door: Door) -> None:
    cells = [
        {"window": window, "at": at, "began_at": 0.0, "ended_at": 1.0, "size": 10, "recall": recall}
        for window, at, recall in [(0, 5, 0.5), (0, 9, 0.3), (1, 9, 0.4)]
    ]
    either_door.gateway.history.replace_probe_recalls("shop", cells)
    found = either_door.get("/api/forgetting/shop").json()
    assert [(each["best"], each["last"]) for each in found["windows"]] == [(0.5, 0.3), (0.4, 0.4)]
    assert found["windows"][0]["recalls"] == [[5, 0.5], [9, 0.3]]
    assert found["forgotten"] == pytest.approx(0.1)


def test_a_user_is_shown_with_titles_newest_first_and_never_as_bytes(either_door: Door) -> None:
    save_items(either_door.gateway, Item(item_id="a/1", title="Shoe"))
    save_user(either_door.gateway, "u ?#/1", ("a/1", 100.0), ("b", 200.0))
    assert either_door.get("/api/users/u%20%3F%23%2F1").json() == {
        "user_id": "u ?#/1",
        "version": 1,
        "history": [{"item_id": "b", "title": None, "at": 200.0}, {"item_id": "a/1", "title": "Shoe", "at": 100.0}],
        "scenarios": {"shop": {"used": 2, "disliked": 0}, "news": {"used": 0, "disliked": 1}},
    }


def test_an_item_says_where_it_may_be_shown(either_door: Door) -> None:
    save_items(
        either_door.gateway,
        Item(item_id="😀", title="Shoe", scenarios=("shop", "gone"), hidden=True),
        Item(item_id="e"),
    )
    found = either_door.get("/api/items/%F0%9F%98%80").json()
    assert (found["visible"], found["eligible"]) == (False, ["shop"])
    assert either_door.get("/api/items/e").json()["eligible"] == ["shop", "news"]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/users/nobody", "unknown-user"), ("/api/items/nothing", "unknown-item"),
        ("/api/versions/x", "unknown-scenario"), ("/api/forgetting/x", "unknown-scenario"),
        ("/api/reports?scenario=x", "unknown-scenario"), ("/api/series/x", "unknown-scenario"),
        ("/api/actions?scenario=x", "unknown-scenario"), ("/api/scenario", "unknown-path"), ("/x", "unknown-path"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_said_to_be_not_there(either_door: Door, path: str, code: str) -> None:
    answer = either_door.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


def test_a_path_that_is_nearly_right_is_put_right(either_door: Door) -> None:
    assert either_door.get("/api/scenario").json()["error"]["nearest"] == "/api/scenarios"
    wrong = either_door.put("/api/scenarios")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "wrong-method")
    assert "GET" in wrong.headers["allow"]


def test_answers_are_what_they_are_described_to_be(either_door: Door) -> None:
    serve_something(either_door.gateway)
    measure(either_door, "lag", 1.0)
    either_door.gateway.history.add_reports([report(1, at=NOW)])
    checked = 0
    for call in CALLS:
        kafka = any(word in call.path for word in ("recomm", "similar", "dead", "health-of", "ready", "action_id"))
        if call.method == "GET" and call.media == "application/json" and not kafka:
            answer = either_door.get(call.path.replace("{scenario}", "shop"))
            if answer.status_code == 200:
                msgspec.json.decode(answer.content, type=call.answer)
                checked += 1
    assert checked >= 9


def test_a_database_that_fails_is_said_and_the_next_call_works(either_door: Door) -> None:
    Table.metadata.tables[Report.__tablename__].drop(either_door.gateway.history.engine)
    answer = either_door.get("/api/reports")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-database")
    assert "retry-after" in answer.headers
    Table.metadata.create_all(either_door.gateway.history.engine)
    assert either_door.get("/api/reports").status_code == 200
