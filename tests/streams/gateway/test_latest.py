"""The latest lists: the newest over all partitions, a bounded number of them, with what items are called."""

from __future__ import annotations

from schemas.items import Item
from schemas.recommendations import ModelVersion, Recommendation, RecommendedItem, Trigger, encode_recommendation
from tests.streams.gateway.conftest import Door
from tests.streams.gateway.kafka import publish
from tests.streams.gateway.rows import save_items


def recommended(number: int) -> bytes:
    items = [RecommendedItem("i-1", 2.0, "model", "i-2"), RecommendedItem("i-3", 1.0, "fresh")]
    return encode_recommendation(
        Recommendation(
            recommendation_id=f"r-{number}", user_id=f"u-{number}", scenario="news", generated_at="", items=items,
            trigger=Trigger("t", 0, number), model=ModelVersion(7, 70), trained_through={}, index_sequence=0,
        )
    )  # fmt: skip


def test_the_newest_lists_of_all_partitions_come_first(door: Door) -> None:
    topic = door.gateway.topics.recommendations("news")
    save_items(door.gateway, Item(item_id="i-1", title="Kettle"), Item(item_id="i-2", title="Teapot"))
    for number in range(6):
        publish(door.gateway.broker, topic, recommended(number), partition=number % 2, timestamp=1_000 * (number + 1))
    found = door.get("/api/latest/news?limit=4").json()
    assert [each["user_id"] for each in found["lists"]] == ["u-5", "u-4", "u-3", "u-2"]
    assert found["sources"] == {"model": 4, "fresh": 4}
    first, second = found["lists"][0]["items"]
    assert (first["title"], first["because_title"], second["title"]) == ("Kettle", "Teapot", None)


def test_a_scenario_without_lists_has_none(door: Door) -> None:
    assert door.get("/api/latest/shop").json() == {"scenario": "shop", "lists": [], "sources": {}}


def test_without_kafka_it_is_said_to_be_gone(closed_door: Door) -> None:
    answer = closed_door.get("/api/latest/shop")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-broker")
