"""What is taken in from a history is what serving would make of it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as some

from schemas.decoding import Invalid
from schemas.events import Event, decode_event
from streams.intake import Intake, TakenEvent, TakenItem, encode
from streams.route import Route, Survey
from streams.sources import Row
from tests.streams.builders import WEIGHTS, settings_of

plain = some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=64)


@given(user=plain | some.integers(), item=plain | some.integers(), time=some.integers(1, 2_000_000_000))
def test_what_is_encoded_is_what_serving_decodes(user: str | int, item: str | int, time: int) -> None:
    value = encode({"user_id": user, "item_id": item, "event": "view", "timestamp": time})
    assert isinstance(value, bytes)
    decoded = decode_event(value, 2e9, "shop", WEIGHTS, Counter())
    assert decoded == Event(user_id=str(user), item_id=str(item), event="view", weight=1.0, time=float(time))


def test_bytes_that_are_no_text_are_refused_and_raise_nothing() -> None:
    value = encode({"user_id": "\udcff"})
    assert isinstance(value, Invalid)
    assert value.code == "not-utf8"


def intake(scenario: str | None = None, places: dict[str, frozenset[str]] | None = None) -> Intake:
    settings = settings_of()
    return Intake(settings, Route(scenario, frozenset(settings.scenarios)), Survey(places=places or {}))


def test_an_event_goes_into_its_own_scenario_or_the_one_of_all() -> None:
    row = Row(1, "video", {"user_id": "u", "item_id": "i", "event": "view", "timestamp": 5})
    own, forced = intake().event(row), intake("shop").event(row)
    assert isinstance(own, TakenEvent)
    assert isinstance(forced, TakenEvent)
    assert (own.scenario, forced.scenario) == ("video", "shop")


def test_an_item_without_scenarios_belongs_where_it_was_used() -> None:
    taken = intake(places={"i": frozenset({"video", "elsewhere"})}).item(Row(1, None, {"item_id": "i"}))
    assert isinstance(taken, TakenItem)
    assert taken.item.scenarios == ("video",)


def test_a_row_that_was_refused_before_stays_refused() -> None:
    refused = Invalid("bad-row", "no")
    assert intake().event(Row(1, None, refused)) == intake().item(Row(1, None, refused)) == refused
