"""Ids, times and records from outside: every decoder takes what the contract allows and never raises."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import decode_control
from schemas.decoding import (
    CLAMPED_TIMES,
    CODES,
    EARLIEST_TIME,
    FUTURE_TOLERANCE_SECONDS,
    MAX_ID_BYTES,
    MAX_RECORD_BYTES,
    UNKNOWN_FIELDS,
    Invalid,
    Refused,
    parse_id,
    parse_time,
)
from schemas.events import Event, decode_event
from schemas.items import MAX_NAMES, MAX_TEXT_CHARACTERS, Item, decode_item, decode_item_key
from schemas.recommendations import MAX_K, MAX_REQUEST_LIST, Request, decode_request
from schemas.reports import Erasure, decode_erasure

RECEIVED = 1_750_000_000.0

Decode = Callable[[bytes, Counter[str]], Any]

DECODERS: dict[str, Decode] = {
    "event": lambda value, counts: decode_event(value, RECEIVED, "shop", {"view": 1.0, "hate": -1.0}, counts),
    "item": lambda value, counts: decode_item(value, RECEIVED, counts),
    "request": decode_request,
    "request for similar": decode_request,
    "erasure": lambda value, counts: decode_erasure(value, RECEIVED, counts),
    "control": lambda value, counts: decode_control(value, RECEIVED, counts),
}
MINIMAL: dict[str, dict[str, Any]] = {
    "event": {"user_id": "u", "item_id": "i", "event": "view"},
    "item": {"item_id": "i"},
    "request": {"request_id": "r", "user_id": "u", "scenario": "shop"},
    "request for similar": {"request_id": "r", "item_id": "i", "scenario": "shop"},
    "erasure": {"user_id": "u"},
    "control": {"action_id": "a", "action": "pause", "scenario": "shop", "author": "eve", "reason": "a sale"},
}


def code_without(kind: str, name: str) -> str:
    """What a record is refused with that lacks a field, which some records may do for some of them."""
    if kind == "control" and name == "scenario":
        return "bad-scope"
    return "no-subject" if kind.startswith("request") and name in ("user_id", "item_id") else "wrong-type"


@pytest.fixture(params=list(DECODERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def decode(kind: str, value: bytes) -> Any:
    return DECODERS[kind](value, Counter())


def code_of(kind: str, value: bytes) -> str:
    found = decode(kind, value)
    assert isinstance(found, Invalid)
    assert found.message
    return found.code


@pytest.mark.parametrize(
    "value",
    [b"", b"sadkjfh", b"{", b"\xff\xfe", b"\0\0\0\0\x07payload", b'{"user_id": NaN}', b"NaN", b'{"user_id":"\\ud800"}'],
)
def test_what_is_not_json_is_refused_as_that(kind: str, value: bytes) -> None:
    assert code_of(kind, value) == "not-json"


@pytest.mark.parametrize("value", [b"[]", b"null", b"3", b'"text"', b"true"])
def test_json_that_is_no_object_is_refused(kind: str, value: bytes) -> None:
    assert code_of(kind, value) == "wrong-type"


@pytest.mark.parametrize("depth", [5_000, MAX_RECORD_BYTES // 2 - 200])
@pytest.mark.parametrize("field", ["context", "attributes", "exclude", "other"])
def test_deep_nesting_is_refused_and_harmless(kind: str, field: str, depth: int) -> None:
    head = json.dumps(MINIMAL[kind])[:-1].encode()
    nested = head + b',"' + field.encode() + b'":' + b"[" * depth + b"]" * depth + b"}"
    assert code_of(kind, nested) in ("not-json", "wrong-type")


def test_a_record_may_have_a_mebibyte_and_no_more(kind: str) -> None:
    value = json.dumps(MINIMAL[kind]).encode()
    assert not isinstance(decode(kind, value.ljust(MAX_RECORD_BYTES)), Invalid)
    assert code_of(kind, value.ljust(MAX_RECORD_BYTES + 1)) == "too-large"
    assert code_of(kind, value.ljust(2 << 20)) == "too-large"


def test_unknown_fields_are_ignored_and_their_record_counted_once(kind: str) -> None:
    counts: Counter[str] = Counter()
    plain = DECODERS[kind](json.dumps(MINIMAL[kind]).encode(), counts)
    assert counts == {}
    more = json.dumps({**MINIMAL[kind], "unknown field": {"deep": [1e300]}, "x": None}).encode()
    assert DECODERS[kind](more, counts) == plain
    assert counts == {UNKNOWN_FIELDS: 1}


def test_a_field_that_must_be_there_is_named(kind: str) -> None:
    for name in MINIMAL[kind]:
        found = decode(kind, json.dumps({**MINIMAL[kind], "x": 1, name: None}).encode())
        assert isinstance(found, Invalid)
        assert name in found.message
        found = decode(kind, json.dumps({key: value for key, value in MINIMAL[kind].items() if key != name}).encode())
        assert isinstance(found, Invalid)
        assert (found.code, name in found.message) == (code_without(kind, name), True)


def ids_of(kind: str) -> list[str]:
    return [name for name in MINIMAL[kind] if name.endswith("_id")]


@pytest.mark.parametrize(
    "text",
    [
        "a/b",
        "100%",
        "%2F",
        "two words",
        "?#&=",
        "🛒",
        "‏rtl",
        "..",
        "'; --",
        "\n",
        "e\u0301",
        "x" * 256,
        "ü" * 128,
        "🛒" * 64,
    ],
)
def test_ids_of_any_signs_stay_as_they_are(kind: str, text: str) -> None:
    for name in ids_of(kind):
        for escaped in (True, False):
            value = json.dumps({**MINIMAL[kind], name: text}, ensure_ascii=escaped).encode()
            assert getattr(decode(kind, value), name) == text


@pytest.mark.parametrize("text", ["", "x" * 257, "ü" * 129, "🛒" * 64 + "x", "nul\0", "x" * 300])
def test_ids_that_are_empty_too_long_or_hold_nul_are_refused(kind: str, text: str) -> None:
    for name in ids_of(kind):
        found = decode(kind, json.dumps({**MINIMAL[kind], name: text}).encode())
        assert isinstance(found, Invalid)
        assert (found.code, name in found.message) == ("bad-id", True)


@pytest.mark.parametrize("number", [42, 0, -7, 2**63 - 1, 2**64 - 1, 2**64, 10**30])
def test_an_integer_and_its_decimal_string_are_one_id(kind: str, number: int) -> None:
    as_number = decode(kind, json.dumps({**MINIMAL[kind], **dict.fromkeys(ids_of(kind), number)}).encode())
    as_text = decode(kind, json.dumps({**MINIMAL[kind], **dict.fromkeys(ids_of(kind), str(number))}).encode())
    assert as_number == as_text
    assert not isinstance(as_number, Invalid)


@pytest.mark.parametrize("wrong", [1.5, True, None, [], {}, 1e30])
def test_an_id_of_another_type_is_refused(kind: str, wrong: object) -> None:
    for name in ids_of(kind):
        expected = code_without(kind, name) if wrong is None else "wrong-type"
        assert code_of(kind, json.dumps({**MINIMAL[kind], name: wrong}).encode()) == expected


@given(st.text() | st.integers())
def test_an_id_is_taken_exactly_within_its_limits(value: str | int) -> None:
    text = str(value)
    try:
        size = len(text.encode())
    except UnicodeEncodeError:  # no JSON decoder of ours lets a lone surrogate through
        return
    if 0 < size <= MAX_ID_BYTES and "\0" not in text:
        assert parse_id("id", value) == text
    else:
        with pytest.raises(Refused):
            parse_id("id", value)


def at(value: str | float, received: float = RECEIVED) -> float:
    return parse_time("timestamp", value, received, Counter())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_700_000_000, 1_700_000_000.0),
        (1_700_000_000.25, 1_700_000_000.25),
        (1_700_000_000_250, 1_700_000_000.25),
        (1_700_000_000_250_000, 1_700_000_000.25),
        ("2023-11-14T22:13:20Z", 1_700_000_000.0),
        ("2023-11-14t22:13:20z", 1_700_000_000.0),
        ("2023-11-14T22:13:20", 1_700_000_000.0),
        ("2023-11-14 22:13:20", 1_700_000_000.0),
        ("2023-11-15T00:13:20+02:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20-00:00", 1_700_000_000.0),
        ("2023-11-14T22:13:20.250Z", 1_700_000_000.25),
        ("2023-11-14T22:13:20.250000999Z", 1_700_000_000.25),
        ("2016-12-31T23:59:60Z", 1_483_228_799.0),
        (0, 0.0),
        (253_402_300_799, 253_402_300.799),  # year 9999 in seconds cannot be told from 1978 in milliseconds
        (-3_334_608_000, -3_334_608_000.0),
        ("1864-05-01T00:00:00Z", -3_334_608_000.0),
        (-3_334_608_000_000, -3_334_608_000.0),
        ("0001-01-01T00:00:00Z", EARLIEST_TIME),
    ],
)
def test_a_time_is_read_in_its_unit(value: str | float, seconds: float) -> None:
    assert at(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "1700000000",
        "2023-13-01T00:00:00Z",
        "2023-11-14T10:60:00Z",
        "10000-01-01T00:00:00Z",
        "x" * 99_999,
        "0001-01-01T00:00:00+14:00",
        -1e300,
        -(10**400),
        10**400,
    ],
)
def test_what_is_no_time_is_refused_and_named(value: str | float) -> None:
    with pytest.raises(Refused, match="timestamp") as caught:
        at(value)
    assert caught.value.invalid.code == "bad-time"
    assert len(caught.value.invalid.message) < 200


@pytest.mark.parametrize(
    "value",
    [
        RECEIVED + 301,
        RECEIVED + 86_400,
        (RECEIVED + 86_400) * 1e3,
        (RECEIVED + 100 * 365 * 86_400) * 1e6,
        "9999-12-31T23:59:59Z",
        1e300,
        RECEIVED * 1e9,
    ],
)
def test_a_time_from_the_future_is_the_record_s_own_and_counted(value: str | float) -> None:
    """Case S23."""
    counts: Counter[str] = Counter()
    assert parse_time("timestamp", value, RECEIVED, counts) == RECEIVED
    assert counts == {CLAMPED_TIMES: 1}


def test_a_clock_that_is_five_minutes_fast_is_believed() -> None:
    counts: Counter[str] = Counter()
    allowed = RECEIVED + FUTURE_TOLERANCE_SECONDS
    assert parse_time("timestamp", allowed, RECEIVED, counts) == allowed
    assert counts == {}


@given(
    st.datetimes(datetime(1, 1, 2), datetime(2025, 1, 1)),
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
def test_an_offset_moves_a_time_and_none_is_utc(moment: datetime, offset: timezone) -> None:
    seconds = moment.replace(tzinfo=UTC).timestamp()
    assert at(moment.isoformat()) == seconds
    assert (
        at(moment.replace(tzinfo=UTC).astimezone(offset).isoformat() if moment.year > 1 else moment.isoformat())
        == seconds
    )


@given(st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_time_is_finite_and_in_its_bounds_or_refused(value: str | float) -> None:
    try:
        seconds = at(value)
    except Refused:
        return
    assert EARLIEST_TIME <= seconds <= RECEIVED + FUTURE_TOLERANCE_SECONDS


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["view", "shop", "a" * 300, "\0"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = [
    "user_id",
    "item_id",
    "event",
    "timestamp",
    "event_id",
    "value",
    "recommendation_id",
    "context",
    "title",
    "text",
    "categories",
    "scenarios",
    "hidden",
    "published_at",
    "attributes",
    "request_id",
    "scenario",
    "k",
    "exclude",
    "history",
    "requested_at",
    "other",
]
OBJECTS = st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, max_size=6)


def assert_within_limits(found: Event | Item | Request | Erasure | Invalid) -> None:
    if isinstance(found, Invalid):
        assert found.code in CODES
        assert found.message.encode()
        return
    plain = msgspec.to_builtins(found)
    for name, value in plain.items():
        if name in ("time", "published_at", "requested_at", "value"):
            assert value is None or math.isfinite(value)
        elif name in ("title", "text"):
            assert len(value) <= MAX_TEXT_CHARACTERS
            assert "\0" not in value
        elif isinstance(value, list | tuple):
            assert len(value) <= max(MAX_NAMES, MAX_REQUEST_LIST)
            assert all(0 < len(each.encode()) <= MAX_ID_BYTES for each in value)
        elif isinstance(value, str):
            assert 0 < len(value.encode()) <= MAX_ID_BYTES
        elif name == "k":
            assert value is None or 1 <= value <= MAX_K
    # What was taken can be written to every place it goes to.
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=type(found)) == found


@given(st.sampled_from(list(DECODERS)), OBJECTS)
def test_whatever_fields_hold_what_is_taken_is_within_the_limits(kind: str, fields: dict[str, Any]) -> None:
    value = json.dumps({**MINIMAL[kind], **fields}).encode()
    assert_within_limits(decode(kind, value))


@given(st.sampled_from(list(DECODERS)), st.binary(max_size=300))
def test_no_bytes_make_a_decoder_raise(kind: str, value: bytes) -> None:
    assert_within_limits(decode(kind, value))


@given(st.sampled_from(list(DECODERS)), st.data())
def test_no_damage_to_a_good_record_makes_a_decoder_raise(kind: str, data: st.DataObject) -> None:
    value = bytearray(json.dumps({**MINIMAL[kind], "timestamp": 1, "k": 3, "categories": ["a"]}).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(value) - 1))
        value[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        value = value or bytearray(b"{")
    assert_within_limits(decode(kind, bytes(value)))


@given(st.none() | st.binary(max_size=300))
def test_the_key_of_a_delete_is_an_id_or_refused(key: bytes | None) -> None:
    found = decode_item_key(key)
    if isinstance(found, Invalid):
        assert found.code == "bad-id"
    else:
        assert found.encode() == key
        assert 0 < len(found.encode()) <= MAX_ID_BYTES
