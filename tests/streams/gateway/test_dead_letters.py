"""Dead letters over HTTP: seen with their reason, and sent back once they would be taken."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from confluent_kafka import Message

from schemas.decoding import Invalid
from schemas.reports import Erasure, dead_letter_headers
from tests.streams.gateway.conftest import Door
from tests.streams.gateway.kafka import publish, records

GOOD = {"user_id": "u", "item_id": "i", "event": "click"}


class Graveyard:
    """Puts records among the dead letters, each as if it were another record of its source topic."""

    offsets = 1000

    def __init__(self, door: Door) -> None:
        self.door = door

    def add(
        self,
        value: bytes | None,
        *,
        topic: str | None = None,
        code: str = "bad-id",
        key: bytes = b"u",
        written: float | None = None,
    ) -> int:
        """Returns the offset of the dead letter; it was `written` (epoch seconds) just now if that is left out."""
        Graveyard.offsets += 1
        source = topic or self.door.gateway.topics.events("shop")
        at = round((time.time() if written is None else written) * 1000)
        fault = dead_letter_headers(Invalid(code, "It is bad."), source, 1, self.offsets, at)
        headers = [("trace", b"\xff7"), *fault]
        _, offset = publish(
            self.door.gateway.broker, self.door.gateway.topics.dead_letters, value, key, headers=headers
        )
        return offset

    def back(self, offset: int, **more: Any) -> Any:
        body = {"offset": offset, "author": "eve", "reason": "a typo", **more}
        return self.door.post("/api/dead-letters/republish", json=body)

    def came_back(self, topic: str, offset: int) -> list[Message]:
        place = f"{self.door.gateway.topics.dead_letters}:0:{offset}".encode()
        found = records(self.door.gateway.broker, topic)
        return [each for each in found if ("republished.from", place) in (each.headers() or ())]


@pytest.fixture
def graveyard(door: Door) -> Graveyard:
    return Graveyard(door)


def test_the_newest_stand_first_with_their_reason(door: Door, graveyard: Graveyard) -> None:
    first = graveyard.add(b'{"user_id": ""}', code="bad-id")
    second = graveyard.add(b"\xff\xfe", code="not-json")
    third = graveyard.add(None, code="null")
    letters = door.get("/api/dead-letters?limit=3").json()["letters"]
    assert [each["offset"] for each in letters] == [third, second, first]
    assert [each["value"] for each in letters] == [
        None, {"size": 2, "base64": "//4="}, {"size": 15, "text": '{"user_id": ""}'},
    ]  # fmt: skip
    assert [each["code"] for each in letters] == ["null", "not-json", "bad-id"]
    assert letters[2]["message"].startswith("It is bad. (topic ")
    assert letters[2]["source_partition"] == 1
    assert letters[2]["headers"] == [["trace", {"size": 2, "base64": "/zc="}]]


def test_a_page_goes_on_where_the_last_one_ended(door: Door, graveyard: Graveyard) -> None:
    offsets = [graveyard.add(b"x", code="paged") for _ in range(5)]
    seen, before = [], ""
    for _ in range(3):
        found = door.get(f"/api/dead-letters?limit=2&code=paged{before}").json()
        seen += [each["offset"] for each in found["letters"]]
        before = f"&before={found['next_before']}"
    assert seen == offsets[::-1]


def test_they_are_told_apart_by_code_and_topic(door: Door, graveyard: Graveyard) -> None:
    items = door.gateway.topics.items
    wanted = graveyard.add(b"x", topic=items, code="wrong-type")
    graveyard.add(b"x", code="wrong-type")
    graveyard.add(b"x", topic=items, code="other")
    found = door.get("/api/dead-letters", params={"topic": items, "code": "wrong-type"}).json()["letters"]
    assert [each["offset"] for each in found] == [wanted]


def test_a_large_one_is_shown_in_part(door: Door, graveyard: Graveyard) -> None:
    offset = graveyard.add(("é" * 50_000).encode())
    letter = door.get("/api/dead-letters?limit=1").json()["letters"][0]
    assert (letter["offset"], letter["value"]["size"]) == (offset, 100_000)
    assert letter["value"]["text"] == "é" * 1000


def test_one_that_was_put_right_goes_back_to_where_it_came_from(door: Door, graveyard: Graveyard) -> None:
    offset = graveyard.add(b'{"user_id": ""}', key=b"wrong")
    answer = graveyard.back(offset, value=GOOD)
    topic = door.gateway.topics.events("shop")
    assert (answer.status_code, answer.json()["topic"]) == (202, topic)
    (back,) = graveyard.came_back(topic, offset)
    assert (json.loads(back.value()), back.key()) == (GOOD, b"u")
    assert dict(back.headers()).keys() == {"trace", "republished.from"}
    done = door.get(f"/api/actions/{answer.json()['action_id']}").json()
    assert (done["action"], done["scenario"], done["outcome"], done["author"]) == ("republish", "shop", "done", "eve")
    assert door.get("/api/dead-letters?limit=1").json()["letters"][0]["went_back"] is not None


def test_one_that_would_be_taken_now_goes_back_as_it_was(door: Door, graveyard: Graveyard) -> None:
    """Such as after the event that it names was added to the configuration."""
    value = json.dumps(GOOD, indent=3).encode()
    offset = graveyard.add(value, key=b"any")
    assert graveyard.back(offset).status_code == 202
    (back,) = graveyard.came_back(door.gateway.topics.events("shop"), offset)
    assert (back.value(), back.key()) == (value, b"any")


@pytest.mark.parametrize("value", [None, b"\xff", b'{"user_id": "", "item_id": "i", "event": "click"}'])
def test_one_that_would_come_straight_back_is_not_sent(door: Door, graveyard: Graveyard, value: bytes | None) -> None:
    offset = graveyard.add(value)
    answer = graveyard.back(offset)
    assert answer.status_code == 422
    assert "put it right" in answer.json()["error"]["message"]
    assert graveyard.came_back(door.gateway.topics.events("shop"), offset) == []


def test_the_same_one_goes_back_once_unless_it_is_forced(door: Door, graveyard: Graveyard) -> None:
    offset = graveyard.add(b"{}")
    assert graveyard.back(offset, value=GOOD).status_code == 202
    again = graveyard.back(offset, value=GOOD)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "republished-before")
    assert "by eve" in again.json()["error"]["message"]
    assert graveyard.back(offset, value=GOOD, force=True).status_code == 202
    assert len(graveyard.came_back(door.gateway.topics.events("shop"), offset)) == 2


def test_every_topic_that_is_published_to_can_be_mended(door: Door, graveyard: Graveyard) -> None:
    topics = door.gateway.topics
    right: dict[str, dict[str, Any]] = {
        topics.items: {"item_id": "i", "title": "Thing"},
        topics.requests: {"request_id": "r", "user_id": "u", "scenario": "shop"},
        topics.erasures: {"user_id": "u"},
        topics.control: {"action_id": "a", "action": "pause", "scenario": "shop", "author": "eve", "reason": "so"},
    }
    for topic, value in right.items():
        assert graveyard.back(graveyard.add(b"{}", topic=topic), value={}).status_code == 422
        assert graveyard.back(graveyard.add(b"{}", topic=topic), value=value).json()["topic"] == topic


def test_a_letter_put_aside_after_an_erasure_is_judged_by_when_its_record_was_written(
    door: Door, graveyard: Graveyard
) -> None:
    erasures, now = door.gateway.erasures, time.time()
    with erasures._engine.begin() as connection:
        erasures.erase(connection, Erasure(user_id="gone", requested_at=now - 60), now - 60)
    value = b'{"user_id": "gone", "item_id": ""}'
    late = graveyard.add(value, written=now - 61)
    new = graveyard.add(value, written=now - 59)
    others = graveyard.add(b'{"user_id": "bob", "item_id": ""}', written=now - 61)
    letters = door.get("/api/dead-letters?limit=2").json()["letters"]
    assert [each["offset"] for each in letters] == [others, new]
    assert graveyard.back(late, value=GOOD).status_code == 404


@pytest.mark.parametrize("topic", ["vectors", "somebody.elses"])
def test_only_topics_that_are_published_to_are_written(door: Door, graveyard: Graveyard, topic: str) -> None:
    prefix = door.gateway.settings.kafka.prefix
    answer = graveyard.back(graveyard.add(b"{}", topic=f"{prefix}{topic}"), value=GOOD)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "unknown-source")


def test_one_that_is_not_there_is_not_found(graveyard: Graveyard) -> None:
    offset = graveyard.add(b"{}")
    assert graveyard.back(offset + 1, value=GOOD).status_code == 404
    assert graveyard.back(offset, partition=1, value=GOOD).status_code == 404


def test_without_an_author_and_a_reason_nothing_goes_back(graveyard: Graveyard) -> None:
    offset = graveyard.add(b"{}")
    assert graveyard.back(offset, value=GOOD, reason=" ").json()["error"]["code"] == "bad-text"
    assert graveyard.back(offset, value=GOOD).status_code == 202


def test_without_kafka_it_is_said(closed_door: Door) -> None:
    answer = closed_door.get("/api/dead-letters")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-broker")
