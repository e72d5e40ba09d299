"""GATEWAY beside SERVE and LEARN: a company that speaks no Kafka publishes, asks, and mends what went wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.system.installation import Installation, until

ODD = "sku/1 ?#% 😀"


@pytest.fixture(scope="module")
def door(installation: Installation) -> Iterator[httpx.Client]:
    installation.start("gateway", HEADSTREAM_GATEWAY_PORT="0")

    def url() -> Any:
        return re.search(r"GATEWAY answers on (\S+)", installation.log("gateway"))

    address = until(url, "GATEWAY answers")[1]
    token = (Path(installation.settings.data) / "gateway.token").read_text().strip()
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
        until(lambda: client.get("/ready").status_code == 200, "GATEWAY is ready")
        yield client


def recommended(door: httpx.Client, path: str) -> list[str]:
    return [each["item_id"] for each in door.get(path).json().get("items", [])]


def test_an_event_goes_in_and_a_recommendation_comes_out(door: httpx.Client) -> None:
    titles = {ODD: "Trail running shoe", "boot": "Walking boot for muddy trails", "lamp": "A lamp for the desk"}
    items = [{"item_id": name, "title": title, "scenarios": ["shop"]} for name, title in titles.items()]
    assert door.post("/api/items", json=items).json()["taken"] == 3
    path = "/api/recommendations/shop/u%2F1?k=3"
    until(lambda: set(recommended(door, path)) == set(titles), "every item may be recommended")
    event = {"user_id": "u/1", "item_id": ODD, "event": "click", "event_id": "e-1"}
    assert door.post("/api/events/shop", json=[event, event]).json()["taken"] == 2
    until(lambda: set(recommended(door, path)) == {"boot", "lamp"}, "what was clicked is shown no more")
    assert recommended(door, f"{path}&exclude=boot") == ["lamp"]
    assert recommended(door, f"/api/similar/shop/{quote(ODD, safe='')}?k=1") == ["boot"]
    user = door.get("/api/users/u%2F1").json()
    assert [(each["item_id"], each["title"]) for each in user["history"]] == [(ODD, "Trail running shoe")]
    item = door.get(f"/api/items/{quote(ODD, safe='')}").json()
    assert (item["item_id"], item["visible"], item["eligible"]) == (ODD, True, ["shop"])
    shop = next(each for each in door.get("/api/scenarios").json()["scenarios"] if each["scenario"] == "shop")
    assert (shop["status"]["events"], shop["status"]["duplicates"]) == (1, 1)
    door.delete(f"/api/items/{quote(ODD, safe='')}")
    until(lambda: door.get(f"/api/items/{quote(ODD, safe='')}").status_code == 404, "the item is gone")


def test_a_dead_letter_is_seen_put_right_and_counted_once(door: httpx.Client, installation: Installation) -> None:
    installation.event("news", "mended", "story", "clik")
    installation.flush()

    def letters() -> Any:
        return door.get("/api/dead-letters?code=unknown-event").json()["letters"]

    (letter,) = until(letters, "it is among the dead letters")
    assert '"clik" is not one of' in letter["message"]
    counted = door.get("/api/health-of-data").json()["dead_letters"]
    assert {"topic": installation.topics.events("news"), "code": "unknown-event", "count": 1} in counted
    right = {**json.loads(letter["value"]["text"]), "event": "click"}
    mend = {"offset": letter["offset"], "author": "eve", "reason": "clik is click", "value": right}
    assert door.post("/api/dead-letters/republish", json=mend).status_code == 202
    assert door.post("/api/dead-letters/republish", json=mend).status_code == 409
    until(lambda: door.get("/api/users/mended").status_code == 200, "the event has counted")
    assert installation.scenarios()["news"]["events"] == 1
    assert len(letters()) == 1


def test_an_order_is_carried_out_and_what_came_of_it_is_told(door: httpx.Client, installation: Installation) -> None:
    order = {"action": "pause", "scenario": "travel", "author": "eve", "reason": "bots", "action_id": "of/eve"}
    for _ in range(2):
        assert door.post("/api/actions", json=order).json() == {"action_id": "of/eve"}
    until(lambda: door.get("/api/actions/of%2Feve").json()["outcome"] == "done", "LEARN has come to it")
    travel = next(each for each in door.get("/api/scenarios").json()["scenarios"] if each["scenario"] == "travel")
    assert travel["stance"]["learning"] == "paused"
    common = ["travel", "--author", "bob", "--reason", "bots are blocked"]
    assert installation.command("resume", *common).startswith("resume of travel: done. ")
    refused = installation.fails("rollback", "--version", "99", *common)
    assert refused.startswith("rollback of travel: refused. ")
    authors = [each["author"] for each in door.get("/api/actions?scenario=travel").json()["actions"]]
    assert authors == ["bob", "bob", "eve"]


def test_an_order_without_a_learn_waits_in_kafka_and_says_so(alone: Installation) -> None:
    common = ["pause", "shop", "--reason", "bots"]
    assert "LEARN is not running" in alone.fails(*common, "--timeout", "0.5")
    assert json.loads(alone.command(*common, "--no-wait", "--json"))["action_id"]
    assert len(alone.records(alone.topics.control)) == 2


def test_an_order_that_cannot_be_given_says_why(alone: Installation) -> None:
    assert "known are shop" in alone.fails("pause", "shp", "--reason", "so")
    assert "say why" in alone.fails("pause", "shop", "--reason", " ")


def test_it_ends_at_once_though_somebody_listens(door: httpx.Client, installation: Installation) -> None:
    with door.stream("GET", "/api/live") as answer:
        lines = answer.iter_lines()
        next(lines)
        assert installation.stop("gateway") == 0
        list(lines)
