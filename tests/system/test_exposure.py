"""What operators see of SERVE and LEARN at work: the control group, clicks on lists, series, and metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from schemas.control_group import in_control_group
from schemas.recommendations import Recommendation
from streams.history import History
from streams.store import Store, database_url, open_engine
from tests.prometheus import Prometheus, running_prometheus, series_named
from tests.system.installation import Installation, until

SCENARIO = "travel"
"""The one whose users are in the control group by half; see `conftest.installation`."""

USERS = [f"u{number}" for number in range(40)]
CONTROL = [user for user in USERS if in_control_group(user, SCENARIO, 0.5)]
OTHERS = [user for user in USERS if user not in CONTROL]


@pytest.fixture(scope="module")
def travel(installation: Installation) -> Iterator[Installation]:
    """An installation with a GATEWAY, and with items that differ in how popular they are: "i0" most."""
    installation.start("gateway", HEADSTREAM_GATEWAY_PORT="0")
    for number in range(12):
        installation.item(f"i{number}", f"Journey number {number}", categories=[f"c{number % 2}"], scenarios=[SCENARIO])
    installation.flush()
    until(lambda: len(installation.answer(SCENARIO, "nobody", k=100).items) == 12, "all items are known")
    for number in range(12):
        for voter in range(3 * (12 - number)):
            installation.event(SCENARIO, f"voter-{voter}", f"i{number}", "view")
    installation.flush()
    until(lambda: leading(installation.answer(SCENARIO, CONTROL[0], k=3)) == ["i0", "i1", "i2"], "popularity is known")
    yield installation


@pytest.fixture
def store(travel: Installation) -> Iterator[Store]:
    found = Store(open_engine(database_url(travel.settings)), f"{travel.settings.kafka.prefix}serve", "test")
    yield found
    found.close()


def leading(recommendation: Recommendation) -> list[str]:
    return [item.item_id for item in recommendation.items]


def counted(travel: Installation, store: Store) -> dict[str, int]:
    """Lists and clicks of both groups so far."""
    tallies, topic = store.tallies(), travel.topics.events(SCENARIO)
    return {code: tallies[topic, code] for code in ("lists", "clicks", "control_lists", "control_clicks")}


def grown(travel: Installation, store: Store, before: dict[str, int], wanted: dict[str, int]) -> None:
    """Wait until the counts have grown by this much; they must not have grown by anything else."""
    until(lambda: all(counted(travel, store)[code] >= before[code] + more for code, more in wanted.items()), "counted")
    now = counted(travel, store)
    assert {code: now[code] - before[code] for code in now if now[code] != before[code]} == wanted


def test_the_control_group_is_shown_what_is_popular_with_all_filters_kept(travel: Installation) -> None:
    user = CONTROL[1]
    found = travel.answer(SCENARIO, user, k=4)
    assert leading(found) == ["i0", "i1", "i2", "i3"]
    assert {item.source for item in found.items} == {"popular"}
    scores = [item.score for item in found.items]
    assert scores == sorted(scores, reverse=True)
    assert leading(travel.answer(SCENARIO, user, k=2, categories=["c1"], exclude=["i1"])) == ["i3", "i5"]
    travel.event(SCENARIO, user, "i0", "view")
    travel.event(SCENARIO, user, "i2", "dislike")
    travel.flush()
    until(lambda: leading(travel.answer(SCENARIO, user, k=2)) == ["i1", "i3"], "what the user knows is left out")
    travel.item("i1", "Journey number 1", scenarios=[SCENARIO], hidden=True)
    travel.flush()
    until(lambda: leading(travel.answer(SCENARIO, user, k=1)) == ["i3"], "a hidden item is left out")
    travel.item("i1", "Journey number 1", categories=["c1"], scenarios=[SCENARIO])
    travel.flush()
    until(lambda: leading(travel.answer(SCENARIO, user, k=1)) == ["i1"], "it is back")


def test_lists_and_clicks_are_counted_for_each_group_and_no_click_twice(travel: Installation, store: Store) -> None:
    for user, prefix in ((CONTROL[2], "control_"), (OTHERS[2], "")):
        travel.event(SCENARIO, user, "i11", "view")  # from now on the user is known
        travel.flush()
        until(lambda user=user: "i11" not in leading(travel.answer(SCENARIO, user, k=100)), "the user is known")
        before = counted(travel, store)
        shown = travel.answer(SCENARIO, user, k=5)
        first, second = leading(shown)[:2]
        named = {"recommendation_id": shown.recommendation_id}
        travel.event(SCENARIO, user, first, "click")  # known by user and item
        travel.flush()
        grown(travel, store, before, {f"{prefix}lists": 2, f"{prefix}clicks": 1})
        travel.event(SCENARIO, user, first, "click", **named)  # the same again, by name
        travel.event(SCENARIO, user, second, "click", **named)  # of the list before the newest, by name
        travel.event(SCENARIO, user, "i11", "click")  # was in no list
        travel.event(SCENARIO, user, leading(shown)[2], "dislike", **named)
        travel.flush()
        until(lambda: lag(travel) == 0, "all events are worked")
        assert counted(travel, store)[f"{prefix}clicks"] - before[f"{prefix}clicks"] == 2


def lag(travel: Installation) -> int:
    return int(travel.status()["scenarios"][SCENARIO]["lag"])


def test_who_only_asks_gets_no_row(travel: Installation, store: Store) -> None:
    for number in range(5):
        travel.answer(SCENARIO, f"made-up-{number}")
    assert store.load_users([f"made-up-{number}" for number in range(5)]) == {}


def test_prometheus_finds_every_series_that_rules_and_dashboard_name(travel: Installation, tmp_path: Path) -> None:
    travel.answer(SCENARIO, OTHERS[3])
    travel.event(SCENARIO, OTHERS[3], "i0", "view")
    travel.send(travel.topics.events(SCENARIO), b"not JSON")
    travel.flush()
    until(lambda: "GATEWAY answers on" in travel.log("gateway"), "GATEWAY answers")
    told = {"serve": r"metrics are at http://(\S+)/metrics", "learn": r"metrics are at http://(\S+)/metrics",
            "gateway": r"GATEWAY answers on http://(\S+)"}  # fmt: skip
    targets = {f"headstream-{name}": re.findall(said, travel.log(name))[-1] for name, said in told.items()}
    with running_prometheus(tmp_path, targets) as prometheus:
        with suppress(AssertionError):
            until(lambda: not missing(prometheus), "every series is there", 60)
        assert missing(prometheus) == set()
        assert sorted(each["metric"]["job"] for each in prometheus.ask("up == 1")) == sorted(targets)
        scenarios = {each["metric"]["scenario"] for each in prometheus.ask("headstream_events_total")}
        assert scenarios == set(travel.settings.scenarios)
        (events,) = prometheus.ask(f'headstream_events_total{{scenario="{SCENARIO}"}}')
        assert 0 < float(events["value"][1]) <= travel.scenarios()[SCENARIO]["events"]
        (letters,) = prometheus.ask('sum(headstream_dead_letters_total{code="not-json"})')
        assert float(letters["value"][1]) == 1
        lineages = {each["value"][1] for each in prometheus.ask(f'headstream_model_lineage{{scenario="{SCENARIO}"}}')}
        assert len(lineages) == 1


def missing(prometheus: Prometheus) -> set[str]:
    """Series that are named and not there."""
    return {name for name in series_named() if not prometheus.ask(f"count({name})")}


def test_what_is_shown_is_written_down_as_series(travel: Installation, store: Store) -> None:
    signals = (
        "recommendations", "latency_milliseconds", "coverage", "popularity_bias", "personalised", "lag", "head_age",
    )  # fmt: skip

    def written() -> dict[str, float] | None:
        found = History(store.engine).series(SCENARIO, signals, 0.0, 4e9).points
        return {name: points[-1].mean for name, points in found.items()} if all(found.values()) else None

    means = until(written, "every signal has a point")
    assert 0 < means["coverage"] <= 1
    assert 0 < means["personalised"] < 1
    assert 0 < means["latency_milliseconds"] < 60_000
    assert means["lag"] >= 0
    assert "Traceback" not in travel.log("serve") + travel.log("learn")
