"""Erasures as they are asked for, and the headers of dead letters."""

from __future__ import annotations

from collections import Counter

from schemas.decoding import CLAMPED_TIMES, Invalid
from schemas.reports import Erasure, dead_letter_headers, decode_erasure

RECEIVED = 1_750_000_000.0


def test_an_erasure_is_for_one_user_at_a_time() -> None:
    counts: Counter[str] = Counter()
    assert decode_erasure(b'{"user_id":42}', RECEIVED, counts) == Erasure(user_id="42", requested_at=RECEIVED)
    asked = b'{"user_id":"42","requested_at":"2025-01-01T00:00:00Z"}'
    assert decode_erasure(asked, RECEIVED, counts) == Erasure(user_id="42", requested_at=1_735_689_600.0)
    assert counts == {}


def test_an_erasure_from_the_future_holds_from_its_record_on() -> None:
    counts: Counter[str] = Counter()
    asked = b'{"user_id":"u","requested_at":"9999-12-31T00:00:00Z"}'
    assert decode_erasure(asked, RECEIVED, counts) == Erasure(user_id="u", requested_at=RECEIVED)
    assert counts == {CLAMPED_TIMES: 1}


def test_an_erasure_without_a_user_is_refused() -> None:
    for value in (b"{}", b'{"user_id":""}', b'{"user_id":null}'):
        assert isinstance(decode_erasure(value, RECEIVED, Counter()), Invalid)


def test_a_dead_letter_names_its_fault_and_its_source() -> None:
    headers = dead_letter_headers(
        Invalid("bad-id", "user_id is empty: ü"), "headstream.events.shop", 3, 81, 1_700_000_000_123
    )
    assert headers == [
        ("error.code", b"bad-id"),
        ("error.message", "user_id is empty: ü (topic headstream.events.shop, partition 3, offset 81)".encode()),
        ("source.topic", b"headstream.events.shop"),
        ("source.partition", b"3"),
        ("source.offset", b"81"),
        ("source.timestamp", b"1700000000123"),
    ]
