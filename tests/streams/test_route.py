"""Where everything goes: a clear route is taken, and an unclear one says what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from schemas.decoding import Invalid
from schemas.settings import Settings
from streams.route import (
    Route,
    ScenarioNotConfigured,
    ScenarioUnclear,
    Survey,
    UnknownEvents,
    choose_route,
    look_through,
)
from streams.sources import Row
from tests.streams.builders import event, settings_of


class Past:
    """A history made of events written as "scenario:event", one of each string."""

    name = "the past"

    def __init__(self, *events: str, home: str | None = None) -> None:
        self.home = home
        self._events = events

    def items(self) -> Iterator[Row]:
        return iter(())

    def events(self) -> Iterator[Row]:
        for line, each in enumerate(self._events, 1):
            scenario, _, event = each.rpartition(":")
            yield Row(line, scenario or None, {"user_id": "u", "item_id": f"i{line}", "event": event})


def route_of(past: Past, settings: Settings, scenario: str | None = None) -> Route:
    return choose_route(past, look_through(past.events()), settings, scenario)


def test_a_named_scenario_takes_everything() -> None:
    route = route_of(Past("shop:view", "other:view", ":view"), settings_of(), "video")
    assert [route.of(row) for row in Past("shop:view", ":view").events()] == ["video", "video"]


def test_a_named_scenario_must_be_configured() -> None:
    with pytest.raises(ScenarioNotConfigured, match="shop, video"):
        route_of(Past("shop:view"), settings_of(), "vidoe")


def test_configured_scenarios_of_the_source_are_its_own() -> None:
    route = route_of(Past("shop:view", "video:view"), settings_of())
    assert [route.of(row) for row in Past("shop:view", "video:view").events()] == ["shop", "video"]


def test_scenarios_that_are_not_configured_are_listed_with_what_to_do() -> None:
    with pytest.raises(ScenarioUnclear) as caught:
        route_of(Past("shop:view", "feed:view", "feed:view"), settings_of())
    assert caught.value.found == {"shop": 1, "feed": 2}
    for part in ('"feed" (2 rows)', "configured are shop, video", "--scenario NAME"):
        assert part in str(caught.value)


def test_a_scenario_that_one_row_names_is_a_slip_of_that_row() -> None:
    past = Past("shop:view", "shpo:view", ":view", "video:view")
    found = [route_of(past, settings_of()).of(row) for row in past.events()]
    assert [each.code if isinstance(each, Invalid) else each for each in found] == [
        "shop", "unknown-scenario", "unknown-scenario", "video",
    ]  # fmt: skip


def test_without_any_scenario_the_only_one_configured_is_meant() -> None:
    assert route_of(Past("view"), settings_of(scenarios=["news"])).scenario == "news"
    with pytest.raises(ScenarioUnclear, match="name no scenario"):
        route_of(Past("view"), settings_of())


def test_a_source_with_a_home_goes_there_and_says_so() -> None:
    past = Past("family:rate", "drama:rate", home="video")
    route = route_of(past, settings_of())
    assert route.scenario == "video"
    assert 'everything goes into "video"' in route.notices[0]
    assert route_of(past, settings_of(scenarios=["news", "shop"])).scenario == "news"
    assert route_of(past, settings_of(scenarios=["family", "drama"])).scenario is None


def test_events_that_nobody_configured_are_listed_with_counts_and_what_to_do() -> None:
    with pytest.raises(UnknownEvents) as caught:
        route_of(Past("favori", "favori", "view"), settings_of(), "shop")
    assert caught.value.found == {("shop", "favori"): 2}
    for part in (
        '"favori" in scenario "shop" (2 rows)',
        "among the events of scenarios.shop",
        "--event NAME",
        "view, like, rate",
    ):
        assert part in str(caught.value)


def test_an_event_that_one_row_names_is_a_slip_unless_there_is_nothing_else() -> None:
    assert route_of(Past("veiw", "view"), settings_of(), "shop").scenario == "shop"
    with pytest.raises(UnknownEvents):
        route_of(Past("veiw", "lkie"), settings_of(), "shop")


def test_a_survey_knows_where_each_item_was_used() -> None:
    survey = look_through([Row(1, "shop", event("u")), Row(2, "video", event("v")), Row(3, None, Invalid("x", "y"))])
    assert survey == Survey(
        rows=3, names=Counter({("shop", "view"): 1, ("video", "view"): 1}), places={"i": frozenset({"shop", "video"})}
    )
