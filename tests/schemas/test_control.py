"""Control records: an order is carried out only if it says what, where, who and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from schemas.control import ACTIONS, Control, decode_control, encode_control
from schemas.decoding import Invalid

RECEIVED = 1_750_000_000.0
ORDER = {"action_id": "a-1", "action": "pause", "scenario": "shop", "author": "eve", "reason": "a sale"}


def decoded(**changes: Any) -> Control | Invalid:
    order = {name: value for name, value in {**ORDER, **changes}.items() if value is not ...}
    return decode_control(msgspec.json.encode(order), RECEIVED, Counter())


def test_an_order_is_what_was_sent_and_comes_from_when_it_was_received() -> None:
    assert decoded() == Control(
        action_id="a-1", action="pause", scenario="shop", author="eve", reason="a sale", requested_at=RECEIVED
    )
    assert decoded(action="rollback", version=117) == Control(
        action_id="a-1", action="rollback", scenario="shop", version=117, author="eve", reason="a sale",
        requested_at=RECEIVED,
    )  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_reads_back_as_it_was_written(action: str) -> None:
    order = decoded(action=action, scenario=... if action == "consolidate" else "shop")
    assert isinstance(order, Control)
    assert decode_control(encode_control(order), RECEIVED, Counter()) == order


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"action": "explode"}, "bad-action"),
        ({"scenario": ...}, "bad-scope"),
        ({"action": "consolidate"}, "bad-scope"),
        ({"version": 3}, "bad-version"),
        ({"action": "rollback", "version": 0}, "bad-version"),
        ({"author": "  "}, "bad-text"),
        ({"reason": ""}, "bad-text"),
        ({"reason": "x" * 1001}, "bad-text"),
        ({"reason": 7}, "wrong-type"),
        ({"author": ...}, "wrong-type"),
        ({"action_id": ""}, "bad-id"),
        ({"scenario": "x" * 300}, "bad-id"),
        ({"requested_at": "yesterday"}, "bad-time"),
    ],
)
def test_what_is_no_order_is_refused_with_a_code(changes: dict[str, Any], code: str) -> None:
    refused = decoded(**changes)
    assert isinstance(refused, Invalid) and refused.code == code
