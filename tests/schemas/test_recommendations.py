"""Requests as they are asked, and recommendations as they are consumed."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decoding import Invalid
from schemas.recommendations import (
    MAX_REQUEST_LIST,
    ModelVersion,
    Recommendation,
    RecommendedItem,
    Request,
    Trigger,
    decode_recommendation,
    decode_request,
    encode_recommendation,
)


def decode(**fields: Any) -> Request | Invalid:
    value = json.dumps({"request_id": "r", "user_id": "u", "scenario": "shop", **fields}).encode()
    return decode_request(value, Counter())


def test_the_least_request_leaves_all_else_to_the_scenario() -> None:
    assert decode() == Request(request_id="r", user_id="u", scenario="shop")
    assert decode(k=None, exclude=None, categories=None, history=None) == decode()


def test_every_field_is_taken() -> None:
    found = decode(request_id=1, user_id=2, k=3, exclude=[4, "5"], categories=["a"], history=[6])
    assert found == Request(
        request_id="1", user_id="2", scenario="shop", k=3, exclude=("4", "5"), categories=("a",), history=("6",)
    )


def test_an_empty_history_is_not_an_absent_one() -> None:
    found = decode(history=[])
    assert isinstance(found, Request)
    assert found.history == ()


def decode_for(**fields: Any) -> Request | Invalid:
    return decode_request(json.dumps({"request_id": "r", "scenario": "shop", **fields}).encode(), Counter())


def test_an_item_may_stand_in_the_place_of_the_user() -> None:
    expected = Request(request_id="r", item_id="7", scenario="shop", k=3, exclude=("8",), categories=("a",))
    assert decode_for(item_id=7, k=3, exclude=[8], categories=["a"]) == expected
    assert decode_for(item_id=7, k=3, exclude=[8], categories=["a"], user_id=None, history=None) == expected


@pytest.mark.parametrize(
    ("fields", "code", "message"),
    [
        ({}, "no-subject", "a request needs user_id (recommend for a user) or item_id (items similar to it)"),
        ({"user_id": None, "item_id": None}, "no-subject", "needs user_id"),
        ({"user_id": "u", "item_id": "i"}, "two-subjects", "user_id and item_id are both given"),
        ({"item_id": "i", "history": []}, "history-of-item", "history goes with user_id, not with item_id"),
        ({"item_id": ""}, "bad-id", "item_id is empty"),
        ({"user_id": ""}, "bad-id", "user_id is empty"),
    ],
)
def test_a_request_is_for_one_user_or_about_one_item(fields: dict[str, Any], code: str, message: str) -> None:
    found = decode_for(**fields)
    assert isinstance(found, Invalid)
    assert (found.code, message in found.message) == (code, True)


def test_what_a_user_is_answered_reads_as_it_always_did() -> None:
    answer = Recommendation(
        recommendation_id="t:0:1",
        user_id="u",
        scenario="shop",
        request_id="r",
        generated_at="2025-01-01T00:00:00.000Z",
        items=[RecommendedItem("i", 0.5, "model", "j")],
        trigger=Trigger("t", 0, 1),
        model=ModelVersion(1, 2),
        trained_through={"t:0": 0},
        index_sequence=3,
    )
    written = (
        b'{"recommendation_id":"t:0:1","user_id":"u","scenario":"shop","request_id":"r",'
        b'"generated_at":"2025-01-01T00:00:00.000Z",'
        b'"items":[{"item_id":"i","score":0.5,"source":"model","because":"j"}],'
        b'"trigger":{"topic":"t","partition":0,"offset":1},"model":{"version":1,"step":2},'
        b'"trained_through":{"t:0":0},"index_sequence":3}'
    )
    assert encode_recommendation(answer) == written
    similar = msgspec.structs.replace(answer, user_id=None, item_id="i")
    assert encode_recommendation(similar) == written.replace(b'"user_id":"u"', b'"item_id":"i"')


@pytest.mark.parametrize("k", [1, 10, 1000])
def test_k_may_be_one_to_a_thousand(k: int) -> None:
    found = decode(k=k)
    assert isinstance(found, Request)
    assert found.k == k


@pytest.mark.parametrize("k", [0, -1, 1001, 2**63])
def test_k_out_of_range_is_told_with_the_range(k: int) -> None:
    assert decode(k=k) == Invalid("bad-k", f"k is {k}; 1 to 1000 are allowed")


@pytest.mark.parametrize("k", ["10", 1.5, True])
def test_k_is_a_whole_number(k: object) -> None:
    found = decode(k=k)
    assert isinstance(found, Invalid)
    assert (found.code, "k" in found.message) == ("wrong-type", True)


@pytest.mark.parametrize("field", ["exclude", "categories", "history"])
def test_a_list_is_bounded_and_of_ids(field: str) -> None:
    assert isinstance(decode(**{field: ["x"] * MAX_REQUEST_LIST}), Request)
    for wrong, code in ((["x"] * (MAX_REQUEST_LIST + 1), "too-many"), ([""], "bad-id"), ([None], "wrong-type")):
        found = decode(**{field: wrong})
        assert isinstance(found, Invalid)
        assert (found.code, field in found.message) == (code, True)


def test_a_scenario_that_nobody_configured_is_still_a_request() -> None:
    found = decode(scenario="nowhere / at all")
    assert isinstance(found, Request)
    assert found.scenario == "nowhere / at all"


def test_the_same_input_record_gives_the_same_recommendation_id() -> None:
    assert Trigger("headstream.events.shop", 3, 81).recommendation_id == "headstream.events.shop:3:81"


IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NUMBERS = st.integers(0, 2**63 - 1)


@given(
    st.builds(
        Recommendation,
        recommendation_id=IDS,
        user_id=st.none() | IDS,
        item_id=st.none() | IDS,
        scenario=IDS,
        request_id=st.none() | IDS,
        generated_at=st.just("2025-01-01T00:00:00.000Z"),
        items=st.lists(
            st.builds(
                RecommendedItem,
                item_id=IDS,
                score=st.floats(allow_nan=False, allow_infinity=False),
                source=st.sampled_from(["model", "popular", "fresh", "explore", "similar"]),
                because=st.none() | IDS,
            ),
            max_size=3,
        ),
        trigger=st.builds(Trigger, topic=IDS, partition=NUMBERS, offset=NUMBERS),
        model=st.builds(ModelVersion, version=NUMBERS, step=NUMBERS),
        trained_through=st.dictionaries(IDS, NUMBERS, max_size=3),
        index_sequence=NUMBERS,
    )
)
def test_a_recommendation_reads_back_as_it_was_written(recommendation: Recommendation) -> None:
    written = encode_recommendation(recommendation)
    assert decode_recommendation(written) == recommendation
    assert json.loads(written)["trigger"].keys() == {"topic", "partition", "offset"}
    assert ("request_id" in json.loads(written)) == (recommendation.request_id is not None)
