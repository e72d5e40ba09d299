"""Events and items over HTTP: each record stands for itself, and what is answered is what Kafka has."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.gateway.intake import MOST_RECORDS, split
from streams.gateway.refusal import Refusal
from tests.streams.gateway.conftest import Door
from tests.streams.gateway.kafka import records

JSON_LINES = {"Content-Type": "application/x-ndjson"}


def event(user: str, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": "i", "event": "click", **more}


def published(door: Door, topic: str, *users: str) -> list[tuple[bytes, Any]]:
    """Keys and values of the records of these users, in the order of their names."""
    found = [(each.key(), json.loads(each.value())) for each in records(door.gateway.broker, topic) if each.value()]
    return sorted([each for each in found if each[0].decode() in users], key=lambda each: each[0])


def test_one_event_is_in_kafka_once_it_is_answered(door: Door) -> None:
    answer = door.post("/api/events/shop", json=event("one", context={"page": 3}))
    assert (answer.status_code, answer.json()["taken"]) == (202, 1)
    wanted = [(b"one", event("one", context={"page": 3}))]
    assert published(door, door.gateway.topics.events("shop"), "one") == wanted


@pytest.mark.parametrize("form", ["array", "lines"])
def test_one_bad_row_never_stops_the_others(door: Door, form: str) -> None:
    """CASES B 26."""
    rows = [event(f"{form}-a"), event(""), event(f"{form}-b", event="clik"), event(f"{form}-c", timestamp="soon"), 7]
    rows.append(event(f"{form}-d", colour="red"))
    body = json.dumps(rows) if form == "array" else "\n".join(json.dumps(row) for row in rows) + "\n\n"
    answer = door.post("/api/events/shop", content=body, headers=JSON_LINES if form == "lines" else {})
    assert answer.status_code == 202
    found = answer.json()
    assert (found["taken"], found["refused"], found["unknown_fields"]) == (2, 4, 1)
    assert [(each["index"], each["code"]) for each in found["refusals"]] == [
        (1, "bad-id"), (2, "unknown-event"), (3, "bad-time"), (4, "wrong-type"),
    ]  # fmt: skip
    names = [f"{form}-{letter}" for letter in "abcd"]
    keys = [key.decode() for key, _ in published(door, door.gateway.topics.events("shop"), *names)]
    assert keys == [f"{form}-a", f"{form}-d"]


def test_a_broken_line_is_refused_by_its_number(door: Door) -> None:
    body = json.dumps(event("line")) + '\n{"user_id": \n' + json.dumps(event("line"))
    found = door.post("/api/events/shop", content=body).json()
    assert (found["taken"], [(each["index"], each["code"]) for each in found["refusals"]]) == (2, [(1, "not-json")])


def test_where_nothing_can_be_taken_the_call_fails_and_says_why(door: Door) -> None:
    answer = door.post("/api/events/shop", json=[event(""), event("u", event="clik")])
    assert answer.status_code == 400
    fault = answer.json()["error"]
    assert fault["code"] == "nothing-taken"
    assert [each["index"] for each in fault["refusals"]] == [0, 1]


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "empty"), (b" \n ", "empty"), (b"[]", "empty"), (b"[{]", "not-json"), (b"\xff", "nothing-taken")],
)
def test_a_body_without_records_says_what_is_wanted(door: Door, body: bytes, code: str) -> None:
    answer = door.post("/api/events/shop", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_an_unknown_scenario_is_answered_with_the_known_ones(door: Door) -> None:
    answer = door.post("/api/events/shp", json=event("u"))
    assert answer.status_code == 404
    assert answer.json()["error"]["known"] == ["shop", "news"]
    assert answer.json()["error"]["nearest"] == "shop"


ODD_IDS = ["a/b", "a%2Fb", "?x=1", "#top", "two words", "😀", "‮right", "x" * 256, "..", "a//b", "+", "é", "a&b", "'\""]


@pytest.mark.parametrize("item_id", ODD_IDS)
def test_any_id_comes_and_goes_by_url(door: Door, item_id: str) -> None:
    """CASES B 26."""
    assert door.post("/api/items", json={"item_id": item_id, "title": "Thing"}).json()["taken"] == 1
    # httpx takes ".." out of a path unless its dots are written with %, as other clients do.
    path = quote(item_id, safe="").replace(".", "%2E")
    assert door.delete(f"/api/items/{path}").json() == {"item_id": item_id}
    last = [each for each in records(door.gateway.broker, door.gateway.topics.items) if each.key() == item_id.encode()]
    assert last[-1].value() is None


@pytest.mark.parametrize(
    ("path", "code"), [("x" * 257, "bad-id"), ("%00", "bad-id"), ("%ff", "bad-path"), ("", "bad-id")]
)
def test_what_cannot_be_an_id_is_refused(door: Door, path: str, code: str) -> None:
    answer = door.delete(f"/api/items/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_a_call_may_not_bring_more_records_than_are_said(door: Door) -> None:
    answer = door.post("/api/events/shop", content=b"{}\n" * (MOST_RECORDS + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too-many-records")


def test_without_kafka_nothing_is_said_to_be_taken(closed_door: Door) -> None:
    answer = closed_door.post("/api/events/shop", json=event("u"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-broker")
    assert int(answer.headers["retry-after"]) > 0
    assert "event_id" in answer.json()["error"]["message"]


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text()), min_size=1, max_size=8))
def test_the_records_of_a_body_are_the_same_however_they_are_sent(rows: list[dict[str, Any]]) -> None:
    as_array = json.dumps(rows, ensure_ascii=False, indent=1).encode()
    as_lines = "\r\n".join(json.dumps(row) for row in rows).encode()
    assert [json.loads(each) for each in split(as_array)] == rows
    assert [json.loads(each) for each in split(as_lines)] == rows


@given(st.binary(max_size=200))
def test_no_bytes_break_the_splitting(content: bytes) -> None:
    try:
        assert split(content)
    except Refusal as refusal:
        assert refusal.fault.code in ("empty", "not-json")
