"""Headstream on a Kafka that allows each user what docs/security.md says, and no more: it works, and says what lacks.

SERVE, LEARN and GATEWAY come in three ways: with SCRAM-SHA-256, with a certificate, and with PLAIN over TLS.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from confluent_kafka import Consumer, Producer

from schemas.recommendations import decode_recommendation
from schemas.settings import Kafka
from streams.access import cluster, librdkafka
from streams.rights import Right, rights_of
from tests.system.conftest import environment
from tests.system.installation import HEADSTREAM, Installation, until
from tests.system.secured import Secured, secured_kafka

PREFIX = "guarded."
WAYS = {"serve": "SCRAM-SHA-256", "learn": "certificate", "gateway": "PLAIN"}
PEOPLE = ("serve", "learn", "gateway", "operator", "publisher", "consumer")
ENDED_SECONDS = 120


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        for user in PEOPLE:
            kafka.grant(user, list(rights_of(user, PREFIX)))
        kafka.grant("consumer", [Right("Read", "group", "theirs")])
        yield kafka


@pytest.fixture(scope="module")
def guarded(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """SERVE, LEARN and GATEWAY; its commands are given by the operator, and its topics were made behind the guard."""
    data = tmp_path_factory.mktemp("guarded")
    by_operator = environment("", PREFIX, data) | secured.variables("SCRAM-SHA-512", "operator")
    made = Installation(data, by_operator | {"HEADSTREAM_GATEWAY_PORT": "0"}, own_broker=secured.open)
    for process, way in WAYS.items():
        made.start(process, **secured.variables(way, process))
    try:
        yield made
    finally:
        made.close()


class Site(NamedTuple):
    """A company that uses it: what it publishes with, what it reads, and the door for its people."""

    publisher: Producer
    consumer: Consumer
    door: httpx.Client


@pytest.fixture(scope="module")
def site(secured: Secured, guarded: Installation) -> Iterator[Site]:
    def told(user: str) -> dict[str, Any]:
        return librdkafka(cluster(Kafka(**secured.settings("SCRAM-SHA-512", user))))  # type: ignore[arg-type]

    answers = until(lambda: re.search(r"GATEWAY answers on (\S+)", guarded.log("gateway")), "GATEWAY answers")
    token = (Path(guarded.settings.data) / "gateway.token").read_text().strip()
    consumer = Consumer({**told("consumer"), "group.id": "theirs", "auto.offset.reset": "earliest"})
    consumer.subscribe([guarded.topics.recommendations("shop")])
    with httpx.Client(base_url=answers[1], headers={"Authorization": f"Bearer {token}"}, timeout=30) as door:
        yield Site(Producer(told("publisher")), consumer, door)
    consumer.close()


def publish(site: Site, topic: str, *values: object) -> None:
    """Each with a key, which compacted topics ask for."""
    refused: list[str] = []
    for number, value in enumerate(values):
        site.publisher.produce(
            topic,
            value if isinstance(value, bytes) else json.dumps(value).encode(),
            str(number),
            on_delivery=lambda error, _: refused.append(str(error)) if error else None,
        )
    assert site.publisher.flush(30) == 0
    assert refused == []


def received(site: Site) -> tuple[str | None, set[str]] | None:
    """Whom the next record recommends what, if one comes."""
    record = site.consumer.poll(1)
    if record is None:
        return None
    assert record.error() is None
    found = decode_recommendation(record.value() or b"")
    return found.user_id, {item.item_id for item in found.items}


def test_an_event_goes_in_and_a_recommendation_comes_out(guarded: Installation, site: Site) -> None:
    topics = guarded.topics
    items = [{"item_id": name, "title": name, "scenarios": ["shop"]} for name in ("boot", "lamp", "shoe")]
    click = {"item_id": "shoe", "event": "click"}
    publish(site, topics.items, *items, b"no item")
    publish(site, topics.events("shop"), {"user_id": "u", **click}, b"no event")

    def asked() -> set[str]:
        found = site.door.get("/api/recommendations/shop/u?k=3").json().get("items", [])
        return {each["item_id"] for each in found}

    until(lambda: asked() == {"boot", "lamp"}, "what is left is recommended to who asks")
    publish(site, topics.events("shop"), {"user_id": "t", **click})
    until(lambda: received(site) == ("t", {"boot", "lamp"}), "what is left is recommended to who acts")
    until(lambda: guarded.status()["scenarios"]["shop"]["examples"] == 2, "LEARN has learnt from both")
    assert site.door.get("/ready").status_code == 200


def test_people_and_commands_may_do_what_they_are_there_for(guarded: Installation, site: Site) -> None:
    letters = until(
        lambda: len(found := site.door.get("/api/dead-letters").json()["letters"]) == 2 and found, "both put aside"
    )
    assert {each["source_topic"] for each in letters} == {guarded.topics.items, guarded.topics.events("shop")}
    item, event = {"item_id": "hat", "title": "hat"}, {"user_id": "v", "item_id": "hat", "event": "click"}
    assert site.door.post("/api/items", json=item).json()["taken"] == 1
    assert site.door.post("/api/events/shop", json=event).json()["taken"] == 1
    assert site.door.get("/api/latest/shop").status_code == 200
    erasure = site.door.post("/api/erasures", json={"user_id": "v"}).json()["erasure_id"]
    assert site.door.get(f"/api/erasures/{erasure}").json()["held"]
    assert site.door.get("/api/erasures/none").status_code == 404
    order = {"action": "pause", "scenario": "shop", "author": "me", "reason": "to try it"}
    ordered = site.door.post("/api/actions", json=order).json()["action_id"]
    assert site.door.get(f"/api/actions/{ordered}").status_code == 200
    assert site.door.get("/api/actions/none").status_code == 404

    assert "done" in guarded.command("resume", "shop", "--reason", "tried")
    assert "done" in guarded.command("erase", "u")
    assert "user u" in guarded.command("watch", "shop", "--from-beginning", "--count", "1")
    history = Path(guarded.settings.data) / "events.jsonl"
    history.write_text('{"user_id": "w", "item_id": "boot", "event": "click"}\n')
    (history.parent / "items.jsonl").write_text('{"item_id": "boot", "title": "boot"}\n')
    assert json.loads(guarded.command("replay", str(history), "--scenario", "shop", "--json"))["taken"] == 1
    until(lambda: guarded.records(guarded.topics.drift), "LEARN says on the drift topic what was done")


@pytest.mark.usefixtures("site")
def test_each_right_of_the_table_is_used_and_none_is_missing(secured: Secured) -> None:
    """Of the tests above, on record at the broker."""
    asked = secured.asked()
    denied = {(user, str(right)) for user, allowed, right in asked if not allowed and user in (*WAYS, "consumer")}
    assert denied == set()
    for user in PEOPLE:
        used = [right for who, allowed, right in asked if who == user and allowed]
        idle = [
            str(right)
            for right in rights_of(user, PREFIX)
            if not any(each[:2] == right[:2] and right.covers(each.name) for each in used)
        ]
        assert idle == ([f"Write on topic {PREFIX}requests"] if user == "publisher" else []), user


@pytest.mark.parametrize(
    ("process", "held_back", "named"),
    [
        (
            "serve",
            [Right("Write", "topic", f"{PREFIX}dead-letters"), Right("Read", "group", f"{PREFIX}serve")],
            [f"Write on topic {PREFIX}dead-letters", f"Read on group {PREFIX}serve"],
        ),
        (
            "learn",
            [Right("Read", "topic", f"{PREFIX}control"), Right("Write", "transactional id", f"{PREFIX}learn")],
            [f"Read on topic {PREFIX}control", f"Write on transactional id {PREFIX}learn"],
        ),
        ("gateway", [Right("Describe", "topic", f"{PREFIX}*")], [f"Describe on topic {PREFIX}"]),
    ],
)
@pytest.mark.usefixtures("site")
def test_a_process_that_lacks_a_right_ends_and_says_which(
    secured: Secured, tmp_path: Path, process: str, held_back: list[Right], named: list[str]
) -> None:
    needed = list(rights_of(process, PREFIX))
    assert set(held_back) < set(needed)
    rights = [right for right in needed if right not in held_back]
    secured.grant("newcomer", rights)
    try:
        variables = secured.variables("SCRAM-SHA-512", "newcomer") | environment(secured.address, PREFIX, tmp_path)
        ended = run(process, variables=variables)
    finally:
        secured.withdraw("newcomer", rights)
    assert ended.returncode == 1
    assert 'user "newcomer" (kafka.username) may not do what is needed' in ended.stderr
    assert [each for each in named if each not in ended.stderr] == []
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("command", "lacking"),
    [
        (("status",), "Describe on topic"),
        (("watch", "shop", "--count", "1", "--from-beginning", "--json"), "Read on topic guarded.recommendations.shop"),
        (("pause", "shop", "--reason", "x"), "authorization"),
    ],
)
@pytest.mark.usefixtures("site")
def test_a_command_that_may_not_says_so(
    secured: Secured, tmp_path: Path, command: tuple[str, ...], lacking: str
) -> None:
    seen = "requests" if command[0] == "status" else "*"
    may = [Right("Describe", "topic", f"{PREFIX}{seen}")]
    secured.grant("newcomer", may)
    try:
        variables = secured.variables("SCRAM-SHA-512", "newcomer") | environment(secured.address, PREFIX, tmp_path)
        ended = run(*command, variables=variables)
    finally:
        secured.withdraw("newcomer", may)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert lacking in ended.stderr


def test_a_right_that_is_taken_ends_the_process_which_says_so(
    secured: Secured, guarded: Installation, site: Site
) -> None:
    taken = [Right("Write", "topic", f"{PREFIX}examples.*")]
    secured.withdraw("serve", taken)
    publish(site, guarded.topics.events("shop"), {"user_id": "x", "item_id": "boot", "event": "click"})
    assert guarded.processes["serve"].wait(ENDED_SECONDS) == 75
    assert "authorization failed" in guarded.log("serve")
    guarded.start("serve", "serve again", **secured.variables(WAYS["serve"], "serve"))
    assert guarded.processes["serve again"].wait(ENDED_SECONDS) == 1
    assert f"Write on topic {PREFIX}examples.shop" in guarded.log("serve again")


def run(*command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEADSTREAM, *command],
        env={**os.environ, **variables, "HEADSTREAM_GATEWAY_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=ENDED_SECONDS,
    )
