"""Rows in the database as SERVE and LEARN leave them, for what GATEWAY shows of them."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from schemas.items import Item
from schemas.packed import pack, pack_times
from schemas.records import Weights
from schemas.reports import DriftReport
from schemas.times import say_time
from streams.gateway.gateway import Gateway
from streams.history import Measured
from streams.store import Progress, StoredUser
from streams.users import User


def report(number: int, *, signal: str = "recall@10", status: str = "alarm", at: float, **more: Any) -> DriftReport:
    fields = {
        "report_id": f"r-{number:03d}", "scenario": "shop", "signal": signal, "status": status, "severity": "page",
        "value": 0.1, "reference": 0.3, "threshold": 0.05, "window": 400, "detected_at": say_time(at), "action": "",
        "reason": f"{signal} fell.", **more,
    }  # fmt: skip
    return DriftReport(**fields)


def stance(scenario: str, **more: Any) -> dict[str, Any]:
    return {
        "scenario": scenario, "learning": "on", "restores": None, "good": 7, "since": time.time(), "reason": "",
        "pairs": 0, "difference": 0.0, **more,
    }  # fmt: skip


def serve_something(gateway: Gateway, scenario: str = "shop", *, events: int = 5) -> None:
    """Events were counted, a model was published, and something is measured."""
    topic = gateway.topics.events(scenario)
    position = gateway.serve.claim([(topic, 0)])[topic, 0]
    progress = [Progress(topic, 0, position.next or 0, (position.next or 0) + events, position.claim)]
    gateway.serve.commit(
        progress, lambda connection: gateway.serve.add_tallies(connection, topic, {(0, "events"): events})
    )
    gateway.learn.save_heads([head(scenario)])
    gateway.history.add([Measured.one(scenario, "learning_lag", time.time(), 0.0)])


def head(scenario: str) -> Weights:
    fields: dict[str, Any] = dict.fromkeys(Weights.__struct_fields__, 0)
    fields |= {"scenario": scenario, "lineage": "l", "published_at": time.time(), "recall": 0.3, "version": 7}
    return Weights(**fields)


def save_user(gateway: Gateway, user_id: str, *items: tuple[str, float]) -> None:
    ids = [name for name, _ in items]
    user = User(
        items=pack(ids),
        times=pack_times([at for _, at in items]),
        used={"shop": pack(ids)},
        disliked={"news": pack("x")},
    )
    with gateway.serve.engine.begin() as connection:
        gateway.serve.save_users(connection, {user_id: StoredUser(msgspec.msgpack.encode(user), 1)})


def save_items(gateway: Gateway, *items: Item) -> None:
    with gateway.learn.engine.begin() as connection:
        gateway.learn.save_items(connection, items, [])
