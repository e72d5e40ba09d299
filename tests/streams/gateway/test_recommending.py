"""Questions over HTTP: each gets its own answer off the topic, or is told in time that none comes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.decoding import Invalid
from schemas.recommendations import (
    ModelVersion,
    Recommendation,
    RecommendedItem,
    Request,
    Trigger,
    decode_request,
    encode_recommendation,
)
from schemas.topics import Topics
from streams.administration import end_offsets
from tests.streams.gateway.conftest import Door


class StandIn:
    """Answers requests as SERVE does, in the order that the test wants; its one item says what was asked."""

    def __init__(self, broker: str, topics: Topics, gather: int) -> None:
        self._topics, self._gather = topics, gather
        self._producer = Producer({"bootstrap.servers": broker})
        self._consumer = Consumer({"bootstrap.servers": broker, "group.id": "stand-in", "enable.auto.commit": False})
        ends = end_offsets(broker, [topics.requests])
        self._consumer.assign([TopicPartition(*partition, end) for partition, end in ends.items()])
        self.stop = threading.Event()
        self.asked: list[Request] = []

    def run(self) -> None:
        waiting: list[Request] = []
        while not self.stop.is_set():
            record = self._consumer.poll(0.05)
            if record is None or record.error():
                continue
            request = decode_request(record.value() or b"", Counter())
            assert not isinstance(request, Invalid)
            self.asked.append(request)
            waiting.append(request)
            if len(waiting) == self._gather:
                for each in reversed(waiting):
                    self._send(each, "somebody-elses")
                    self._send(each, each.request_id)
                self._producer.flush(10)
                waiting.clear()
        self._consumer.close()

    def _send(self, request: Request, request_id: str) -> None:
        answer = Recommendation(
            recommendation_id="r",
            user_id=request.user_id,
            item_id=request.item_id,
            scenario=request.scenario,
            request_id=request_id,
            generated_at="2026-11-25T09:30:00.021Z",
            items=[RecommendedItem(f"for {request.user_id or request.item_id}", 1.0, "model")],
            trigger=Trigger("t", 0, 0),
            model=ModelVersion(1, 1),
            trained_through={},
            index_sequence=0,
        )
        self._producer.produce(self._topics.recommendations(request.scenario), encode_recommendation(answer))


@contextmanager
def stand_in(door: Door, gather: int = 1) -> Iterator[StandIn]:
    served = StandIn(door.gateway.broker, door.gateway.topics, gather)
    thread = threading.Thread(target=served.run)
    thread.start()
    try:
        yield served
    finally:
        served.stop.set()
        thread.join()


def test_all_that_a_request_can_say_can_be_said(door: Door) -> None:
    with stand_in(door) as served:
        query = "k=3&exclude=a&exclude=b%2Fc&category=shoes"
        found = door.get(f"/api/recommendations/shop/u%2F1?{query}").json()
        door.get("/api/similar/news/i%201?k=2")
        body = {"user_id": 42, "history": ["x", "y"], "k": 4, "categories": ["shoes"], "exclude": [7]}
        door.post("/api/recommendations/shop", json=body)
    assert found["items"][0]["item_id"] == "for u/1"
    asked = [msgspec.structs.replace(each, request_id="") for each in served.asked]
    assert asked == [
        Request(request_id="", user_id="u/1", scenario="shop", k=3, exclude=("a", "b/c"), categories=("shoes",)),
        Request(request_id="", item_id="i 1", scenario="news", k=2),
        Request(
            request_id="", user_id="42", scenario="shop", k=4, exclude=("7",), categories=("shoes",), history=("x", "y")
        ),
    ]


def test_answers_find_who_asked_in_whatever_order_they_come(door: Door) -> None:
    with stand_in(door, gather=20), ThreadPoolExecutor(20) as many:
        found = list(many.map(lambda n: door.get(f"/api/recommendations/shop/u{n}").json(), range(20)))
    assert [each["items"][0]["item_id"] for each in found] == [f"for u{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("k=0", "bad-k"),
        ("k=1001", "bad-k"),
        ("k=many", "bad-parameter"),
        ("kk=1", "bad-parameter"),
        ("exclude=", "bad-id"),
    ],
)
def test_a_bad_request_is_refused_before_it_is_asked(door: Door, query: str, code: str) -> None:
    answer = door.get(f"/api/recommendations/shop/u?{query}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


def test_an_unknown_scenario_is_answered_with_the_known_ones(door: Door) -> None:
    answer = door.get("/api/recommendations/shp/u")
    assert (answer.status_code, answer.json()["error"]["nearest"]) == (404, "shop")


def test_nobody_waits_for_ever(closed_door: Door) -> None:
    answer = closed_door.get("/api/recommendations/shop/u")
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "no-answer")
    assert "0.5 s" in answer.json()["error"]["message"]


def test_no_more_wait_at_once_than_may(closed_door: Door) -> None:
    closed_door.gateway.replies._most_waiting = 2
    with ThreadPoolExecutor(5) as many:
        found = sorted(many.map(lambda n: closed_door.get(f"/api/recommendations/shop/u{n}").status_code, range(5)))
    assert found == [429, 429, 429, 504, 504]
    assert closed_door.get("/api/recommendations/shop/u").status_code == 504  # who waited has made room


def test_what_is_no_recommendation_stops_nobody(door: Door) -> None:
    producer = Producer({"bootstrap.servers": door.gateway.broker})
    for value in (b'{"request_id": 7}', b'\xff"request_id"', json.dumps({"x": 1}).encode()):
        producer.produce(door.gateway.topics.recommendations("shop"), value)
    producer.flush(10)
    with stand_in(door):
        assert door.get("/api/recommendations/shop/u").status_code == 200


def test_who_leaves_before_the_answer_leaves_nothing(door: Door) -> None:
    with suppress(httpx.ReadTimeout):
        door.get("/api/recommendations/shop/u", timeout=0.2)
    with stand_in(door):
        assert door.get("/api/recommendations/shop/u").status_code == 200
    assert list(door.gateway.replies._waiting) == [] or waited(door) == []


def waited(door: Door) -> list[Any]:
    """Who still waits once the longest wait is over."""
    threading.Event().wait(door.gateway.settings.gateway.timeout_seconds)
    return list(door.gateway.replies._waiting)
