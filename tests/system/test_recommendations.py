"""What consumers get: fresh, filtered, explained lists, and an answer to every request."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from schemas.packed import unpack
from schemas.recommendations import Recommendation
from tests.system.installation import Installation, until

TOPICS = {
    "garden": ["Garden hose with brass nozzle", "Rose pruning shears", "Compost bin for the garden", "Tomato seed mix"],
    "kitchen": ["Cast iron frying pan", "Chef's kitchen knife", "Espresso machine", "Bread baking stone"],
    "camping": ["Two person tent", "Down sleeping bag", "Camping gas stove", "Trekking backpack"],
}


@pytest.fixture(scope="module")
def shop(installation: Installation) -> Iterator[Installation]:
    """An installation whose shop knows a few items."""
    for topic, titles in TOPICS.items():
        for number, title in enumerate(titles):
            installation.item(f"{topic}-{number}", title, categories=[topic], scenarios=["shop"])
    installation.flush()
    until(
        lambda: len(installation.answer("shop", "nobody", k=100).items) == 12,
        "all items are known",
    )
    yield installation


def ids(recommendation: Recommendation) -> list[str]:
    return [item.item_id for item in recommendation.items]


def answered(shop: Installation, user: str, offset_from: int = 0) -> Recommendation:
    """The newest recommendation that an event of this user caused."""
    found = until(
        lambda: [
            each
            for each in shop.recommendations("shop")
            if each.user_id == user and each.request_id is None and each.trigger.offset >= offset_from
        ],
        f"a recommendation for {user}",
    )
    return found[-1]


def test_an_event_causes_a_recommendation_that_names_it(shop: Installation) -> None:
    shop.event("shop", "ann", "garden-0")
    shop.flush()
    found = answered(shop, "ann")
    trigger = found.trigger
    assert trigger.topic == shop.topics.events("shop")
    assert found.recommendation_id == f"{trigger.topic}:{trigger.partition}:{trigger.offset}"
    assert "garden-0" not in ids(found)
    assert len(set(ids(found))) == 10
    assert {item.source for item in found.items} <= {"model", "popular", "fresh", "explore"}
    assert {item.because for item in found.items if item.source == "model"} == {"garden-0"}
    assert found.index_sequence > 0


def test_before_anything_is_learnt_lists_follow_the_text(shop: Installation) -> None:
    shop.event("shop", "bea", "camping-0")
    shop.flush()
    first = [name.split("-")[0] for name in ids(answered(shop, "bea"))[:3]]
    assert first.count("camping") >= 2


def test_a_new_item_is_recommended_and_a_hidden_or_deleted_one_never_again(shop: Installation) -> None:
    """Cases E27, and K15 of items, which a null value deletes."""
    shop.item("new", "Garden gnome with lantern", categories=["garden"], scenarios=["shop"])
    shop.flush()
    until(lambda: "new" in ids(shop.answer("shop", "cid")), "the new item is recommended")
    shop.item("new", "Garden gnome with lantern", categories=["garden"], scenarios=["shop"], hidden=True)
    shop.flush()
    everything = until(
        lambda: found if "new" not in (found := ids(shop.answer("shop", "cid", k=100))) else None,
        "the hidden item is gone",
    )
    assert len(everything) == 12
    shop.item("new", "Garden gnome with lantern", scenarios=["shop"])
    shop.flush()
    until(lambda: "new" in ids(shop.answer("shop", "cid", k=100)), "it is back")
    shop.send(shop.topics.items, None, "new")
    shop.flush()
    until(lambda: "new" not in ids(shop.answer("shop", "cid", k=100)), "it is deleted")
    for name in ("shop", "video"):
        assert "new" not in ids(shop.answer(name, "someone-else", k=100))


def test_an_item_of_one_scenario_is_not_recommended_in_another(shop: Installation) -> None:
    assert ids(shop.answer("video", "dan", k=100)) == []


def test_k_larger_than_the_catalogue_gives_what_there_is(shop: Installation) -> None:
    assert len(ids(shop.answer("shop", "eve", k=1000))) == 12


def test_what_the_user_acted_on_does_not_come_back_until_nothing_is_left(shop: Installation) -> None:
    shown: set[str] = set()
    for _ in range(6):
        found = ids(shop.answer("shop", "fay", k=3))
        assert shown.isdisjoint(found)
        for item in found:
            shop.event("shop", "fay", item, "view")
        shop.flush()
        shown.update(found)
        until(
            lambda: shown.isdisjoint(ids(shop.answer("shop", "fay", k=100))),
            "the views are known",
        )
    assert len(shown) == 12
    assert ids(shop.answer("shop", "fay")) == []


def test_what_was_acted_on_does_not_come_back_from_another_serve(shop: Installation) -> None:
    """Case E29: two SERVEs know the user, and the events come through both."""
    shop.start("serve", "second serve")
    until(lambda: re.search(r"reading [1-9]\d* partitions", shop.log("second serve")), "it has partitions")
    acted: set[str] = set()
    for turn in range(5):
        found = ids(shop.answer("shop", "joy", k=2))
        assert len(found) == 2 and acted.isdisjoint(found)
        before = shop.scenarios()["shop"]["events"]
        for number, item in enumerate(found):
            body = {"user_id": "joy", "item_id": item, "event": "view"}
            shop.send(shop.topics.events("shop"), body, partition=(turn + 2 * number) % shop.settings.kafka.partitions)
        shop.flush()
        acted.update(found)
        until(lambda before=before: shop.scenarios()["shop"]["events"] == before + 2, "both events are applied")
    assert shop.stop("second serve") == 0


def test_exclusions_and_categories_are_kept_to_the_letter(shop: Installation) -> None:
    garden = [f"garden-{number}" for number in range(4)]
    assert sorted(ids(shop.answer("shop", "gus", k=10, categories=["garden"]))) == garden
    assert ids(shop.answer("shop", "gus", k=10, categories=["garden"], exclude=garden[:3])) == [garden[3]]
    assert ids(shop.answer("shop", "gus", categories=["no such thing"])) == []
    for count in range(13):
        excluded = sorted(ids(shop.answer("shop", "gus", k=100)))[:count]
        left = ids(shop.answer("shop", "gus", k=5, exclude=excluded))
        assert len(left) == min(5, 12 - count)
        assert not set(left) & set(excluded)


def test_a_request_may_bring_its_own_history(shop: Installation) -> None:
    found = shop.answer("shop", "hal", k=3, history=["kitchen-0", "kitchen-1"])
    assert {item.because for item in found.items if item.source == "model"} <= {"kitchen-0", "kitchen-1"}


def test_an_unknown_user_gets_what_is_popular(shop: Installation) -> None:
    found = shop.answer("shop", "never seen before")
    assert len(found.items) == 10
    assert {item.source for item in found.items} <= {"popular", "fresh"}


def test_a_request_for_an_unknown_scenario_is_answered_from_what_is_popular(shop: Installation) -> None:
    shop.request("books", "ian", "ian-1")
    shop.flush()
    topic = shop.topics.recommendations("books")
    until(
        lambda: [each for each in shop.recommendations("books") if each.request_id == "ian-1"], f"an answer on {topic}"
    )
    found = next(each for each in shop.recommendations("books") if each.request_id == "ian-1")
    assert (found.scenario, len(found.items)) == ("books", 10)


def test_what_is_similar_to_an_item_is_asked_for_by_its_id(shop: Installation) -> None:
    found = shop.similar("shop", "camping-0", k=100)
    assert (found.item_id, found.user_id, found.scenario) == ("camping-0", None, "shop")
    assert found.recommendation_id == f"{shop.topics.requests}:{found.trigger.partition}:{found.trigger.offset}"
    assert {each.source for each in found.items} == {"similar"}
    assert "camping-0" not in ids(found)
    assert len(set(ids(found))) == len(shop.answer("shop", "nobody", k=100).items) - 1
    assert [each.split("-")[0] for each in ids(found)[:2]] == ["camping", "camping"]
    assert [each.score for each in found.items] == sorted((each.score for each in found.items), reverse=True)
    excluded = ids(found)[0]
    assert sorted(ids(shop.similar("shop", "garden-0", categories=["camping"], exclude=[excluded], k=100))) == sorted(
        {f"camping-{number}" for number in range(4)} - {excluded}
    )
    assert ids(shop.similar("shop", "nobody knows it")) == []
    keys = {record.key() for record in shop.records(shop.topics.recommendations("shop"))}
    assert {b"camping-0", b"garden-0", b"nobody knows it"} <= keys


def test_what_is_similar_in_an_unknown_scenario_is_answered_where_users_of_such_are(shop: Installation) -> None:
    found = shop.similar("books", "kitchen-0", k=3)
    assert (found.scenario, found.item_id, len(found.items)) == ("books", "kitchen-0", 3)


def test_a_request_for_nobody_or_for_two_is_put_aside_with_its_reason(shop: Installation) -> None:
    wrong = {
        "no-subject": {},
        "two-subjects": {"user_id": "u", "item_id": "kitchen-0"},
        "history-of-item": {"item_id": "kitchen-0", "history": ["kitchen-1"]},
    }
    for code, fields in wrong.items():
        shop.send(shop.topics.requests, {"request_id": code, "scenario": "shop", **fields}, code)
    shop.flush()

    def letters() -> dict[bytes, bytes] | None:
        records = shop.records(shop.topics.dead_letters)
        found = {each.key(): dict(each.headers())["error.code"] for each in records if each.key().decode() in wrong}
        return found if len(found) == len(wrong) else None

    found = until(letters, "all three are put aside")
    assert found == {code.encode(): code.encode() for code in wrong}


def test_an_event_on_an_unknown_item_counts_once_the_item_arrives(shop: Installation) -> None:
    """Case E30."""
    shop.event("shop", "joe", "later")
    shop.flush()
    until(lambda: "later" in [e.item_id for e in shop.examples("shop")], "the event became an example")
    shop.item("later", "Rain barrel for the garden", scenarios=["shop"])
    shop.flush()
    until(lambda: "later" in ids(shop.answer("shop", "kim", k=100)), "the item is known")
    assert "later" not in ids(shop.answer("shop", "joe", k=100))
    found = shop.answer("shop", "joe", k=3)
    assert {item.because for item in found.items if item.source == "model"} == {"later"}


def test_an_item_without_text_can_be_recommended(shop: Installation) -> None:
    shop.send(shop.topics.items, {"item_id": "mute", "scenarios": ["shop"]}, "mute")
    shop.flush()
    until(lambda: "mute" in ids(shop.answer("shop", "lea", k=100)), "it is found")


def test_learning_moves_the_version_and_lineage_says_through_what(shop: Installation) -> None:
    before = shop.answer("shop", "max").model.version
    for number in range(70):
        shop.event("shop", f"crowd-{number}", f"kitchen-{number % 4}")
    shop.flush()
    after = until(
        lambda: (
            found if (found := shop.answer("shop", "max")).model.version > before and found.trained_through else None
        ),
        "a newer version",
    )
    assert after.model.step > 0
    assert all(name.startswith(shop.topics.events("shop")) for name in after.trained_through)


def test_what_was_passed_over_in_a_list_is_an_impression(alone: Installation) -> None:
    for number in range(12):
        alone.item(f"i{number}", f"Thing number {number}", scenarios=["shop", "news"])
    for name in ("serve", "learn"):
        alone.start(name, HEADSTREAM_SCENARIOS_SHOP_IMPRESSIONS="0.5")
    until(lambda: len(alone.answer("shop", "nobody", k=100).items) == 12, "all items are known")
    lists = {scenario: ids(alone.answer(scenario, "ann")) for scenario in ("shop", "news")}
    for scenario, shown in lists.items():
        alone.event(scenario, "ann", shown[2])
    alone.flush()
    for scenario, expected in (("shop", lists["shop"][:2]), ("news", [])):
        (example,) = until(lambda scenario=scenario: alone.examples(scenario), "the example is sent")
        assert unpack(example.passed_over) == expected
    until(lambda: alone.scenarios()["shop"]["examples"] == 1, "it is learnt")
    assert "Traceback" not in alone.log("serve") + alone.log("learn")
