"""Events as companies publish them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from schemas.decoding import CLAMPED_TIMES, UNKNOWN_FIELDS, Invalid
from schemas.events import Event, decode_event

RECEIVED = 1_750_000_000.0
WEIGHTS = {"view": 1.0, "purchase": 3.0, "hate": -1.0}


def decode(counts: Counter[str] | None = None, /, **fields: Any) -> Event | Invalid:
    value = json.dumps({"user_id": "u", "item_id": "i", "event": "view", **fields}).encode()
    return decode_event(value, RECEIVED, "shop", WEIGHTS, Counter() if counts is None else counts)


def test_the_least_event_has_the_time_of_its_record() -> None:
    assert decode() == Event(user_id="u", item_id="i", event="view", weight=1.0, time=RECEIVED)


def test_every_field_is_taken() -> None:
    counts: Counter[str] = Counter()
    found = decode(
        counts,
        event="purchase",
        timestamp="2025-06-15T12:00:00+02:00",
        event_id=7,
        value=-0.0,
        recommendation_id="headstream.events.shop:3:81",
        context={"page": {"depth": [1, 2]}},
    )
    assert found == Event(
        user_id="u",
        item_id="i",
        event="purchase",
        weight=3.0,
        time=1_749_981_600.0,
        event_id="7",
        value=0.0,
        recommendation_id="headstream.events.shop:3:81",
    )
    assert counts == {}


def test_null_stands_for_an_absent_field() -> None:
    assert decode(timestamp=None, event_id=None, value=None, recommendation_id=None, context=None) == decode()


@pytest.mark.parametrize("context", [{}, [], "text", 0, None, {"a": {"b": [1, {"c": None}]}}])
def test_a_context_may_be_anything(context: object) -> None:
    assert decode(context=context) == decode()


def test_dislike_has_its_negative_weight() -> None:
    found = decode(event="hate")
    assert isinstance(found, Event)
    assert found.weight == -1.0


def test_an_unknown_event_is_told_with_the_scenario_and_what_it_knows() -> None:
    assert decode(event="buy") == Invalid(
        "unknown-event", 'scenario "shop": event "buy" is not one of view, purchase, hate'
    )


@pytest.mark.parametrize("event", ["", "View", "view ", "e" * 100_000])
def test_an_event_s_name_is_exact_and_its_message_short(event: str) -> None:
    found = decode(event=event)
    assert isinstance(found, Invalid)
    assert found.code == "unknown-event"
    assert len(found.message) < 200


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("field", ["value", "timestamp", "user_id"])
def test_numbers_that_json_does_not_know_are_refused(field: str, text: str) -> None:
    """Case E33."""
    value = f'{{"user_id":"u","item_id":"i","event":"view","{field}":{text}}}'.encode()
    found = decode_event(value, RECEIVED, "shop", WEIGHTS, Counter())
    assert isinstance(found, Invalid)
    assert found.code == "not-json"


@pytest.mark.parametrize("text", ["1e999", "-1e999", "1e400", '"NaN"', '"Infinity"', "9" * 400])
def test_a_value_that_is_not_finite_is_refused(text: str) -> None:
    """Case E33."""
    value = f'{{"user_id":"u","item_id":"i","event":"view","value":{text}}}'.encode()
    found = decode_event(value, RECEIVED, "shop", WEIGHTS, Counter())
    assert isinstance(found, Invalid)
    assert (found.code, "value" in found.message) == ("wrong-type", True)


@pytest.mark.parametrize("text", ["1e999", '"NaN"', '"soon"', "9" * 400])
def test_a_timestamp_that_is_not_finite_is_refused(text: str) -> None:
    value = f'{{"user_id":"u","item_id":"i","event":"view","timestamp":{text}}}'.encode()
    found = decode_event(value, RECEIVED, "shop", WEIGHTS, Counter())
    assert isinstance(found, Invalid)
    assert (found.code in ("wrong-type", "bad-time"), "timestamp" in found.message) == (True, True)


@pytest.mark.parametrize("field", ["event_id", "recommendation_id"])
def test_an_id_that_may_be_left_out_must_be_an_id_where_it_stands(field: str) -> None:
    for wrong in ("", "x" * 257, "\0"):
        found = decode(**{field: wrong})
        assert isinstance(found, Invalid)
        assert (found.code, field in found.message) == ("bad-id", True)
    assert decode(**{field: 12}) == decode(**{field: "12"})


def test_one_event_from_the_future_leaves_the_times_of_the_others_alone() -> None:
    """Case S23."""
    counts: Counter[str] = Counter()
    found = [decode(counts, timestamp=time) for time in (RECEIVED - 5, RECEIVED * 1e3 + 86_400e3, RECEIVED - 4)]
    assert [each.time for each in found if isinstance(each, Event)] == [RECEIVED - 5, RECEIVED, RECEIVED - 4]
    assert counts == {CLAMPED_TIMES: 1}


def test_repeats_without_an_event_id_are_all_taken() -> None:
    found = [decode(timestamp=1_700_000_000) for _ in range(100)]
    assert found == [Event(user_id="u", item_id="i", event="view", weight=1.0, time=1_700_000_000.0)] * 100


def test_a_refused_event_with_an_unknown_field_is_both() -> None:
    counts: Counter[str] = Counter()
    found = decode(counts, item_id="", colour="red")
    assert isinstance(found, Invalid)
    assert found.code == "bad-id"
    assert counts == {UNKNOWN_FIELDS: 1}
