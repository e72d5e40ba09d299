"""Orders over HTTP: they reach the control topic as LEARN will take them, and what came of them is found."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest

from schemas.control import Control, decode_control
from tests.streams.gateway.conftest import Door
from tests.streams.gateway.kafka import records


def order(door: Door, action: str = "pause", **more: Any) -> Any:
    fields = {"action": action, "scenario": "shop", "author": "eve", "reason": "bots", **more}
    return door.post("/api/actions", json={name: value for name, value in fields.items() if value is not None})


def ordered(door: Door, action_id: str) -> list[Control]:
    values = [each.value() for each in records(door.gateway.broker, door.gateway.topics.control)]
    found = [decode_control(value, time.time(), Counter()) for value in values]
    return [each for each in found if isinstance(each, Control) and each.action_id == action_id]


@pytest.mark.parametrize(
    ("action", "more"),
    [
        ("pause", {}), ("resume", {}), ("promote", {}), ("rollback", {}), ("rollback", {"version": 7}),
        ("consolidate", {"scenario": None}),
    ],
)  # fmt: skip
def test_an_order_is_in_kafka_once_it_is_answered(door: Door, action: str, more: dict[str, Any]) -> None:
    answer = order(door, action, **more)
    assert answer.status_code == 202
    (found,) = ordered(door, answer.json()["action_id"])
    wanted = ("consolidate", None, None) if action == "consolidate" else (action, "shop", more.get("version"))
    assert (found.action, found.scenario, found.version) == wanted
    assert (found.author, found.reason) == ("eve", "bots")


def test_what_came_of_an_order_is_pending_until_it_is_known(door: Door) -> None:
    action_id = order(door, action_id="mine/1").json()["action_id"]
    assert action_id == "mine/1"
    assert door.get("/api/actions/mine%2F1").json()["outcome"] == "pending"
    (found,) = ordered(door, action_id)
    fields = {name: getattr(found, name) for name in Control.__struct_fields__}
    door.gateway.history.record_action({**fields, "performed_at": 5.0, "outcome": "refused", "detail": "It was."})
    known = door.get("/api/actions/mine%2F1").json()
    assert (known["outcome"], known["detail"], known["performed_at"]) == ("refused", "It was.", 5.0)
    assert [each["action_id"] for each in door.get("/api/actions?scenario=shop").json()["actions"]] == ["mine/1"]
    assert door.get("/api/actions?scenario=news").json()["actions"] == []
    assert door.get("/api/actions/nobodys").status_code == 404


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"scenario": "shp"}, 404, "unknown-scenario"), ({"scenario": None}, 400, "bad-scope"),
        ({"version": 3}, 400, "bad-version"), ({"action": "stop"}, 400, "bad-body"), ({"author": " "}, 400, "bad-text"),
        ({"reason": ""}, 400, "bad-text"), ({"reason": None}, 400, "bad-body"), ({"colour": "red"}, 400, "bad-body"),
        ({"action_id": "x" * 257}, 400, "bad-id"),
    ],
)  # fmt: skip
def test_an_order_that_would_not_be_taken_is_not_given(
    door: Door, more: dict[str, Any], status: int, code: str
) -> None:
    answer = order(door, **more)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_without_kafka_no_order_is_said_to_be_given(closed_door: Door) -> None:
    answer = order(closed_door)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-broker")
