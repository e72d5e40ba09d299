"""Requests for similar items, out of SERVE's mirror."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from schemas.recommendations import Request, Trigger
from schemas.records import encode
from streams.mirror import Mirror
from streams.similar import AskedForSimilar, similar_items
from tests.streams.test_mirror import SETTINGS, Record, Source, item


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def mirror(source: Source) -> Mirror:
    """Five items on a quarter of a circle, in the order of their names; e is only in video."""
    mirror = Mirror(SETTINGS, torch.device("cpu"))
    records = [item(name, categories=["vowel"] if name in "ae" else []) for name in "abcd"]
    mirror.take_items([*records, item("e", categories=["vowel"], scenarios=["video"])])
    for number, name in enumerate("abcde"):
        source.vector(name, 0.0)
        angle = torch.tensor(number / 5 * torch.pi / 2)
        source.table.vectors[source.table.row_of[name], :2] = torch.stack((angle.cos(), angle.sin()))
    described = source.table.describe_rows(list(source.table.row_of.values()), fresh=True)
    mirror.take_vectors([Record(each.item_id.encode(), encode(each)) for each in described], 5)
    return mirror


def asked(item_id: str, k: int = 10, **more: Any) -> AskedForSimilar:
    request = Request(request_id="r", item_id=item_id, scenario="shop", k=k, **more)
    return AskedForSimilar(Trigger("requests", 0, 1), item_id, "shop", k, request)


def names(mirror: Mirror, *questions: AskedForSimilar, shelf: str = "shop") -> list[list[str]]:
    return [[each.item_id for each in items] for items in similar_items(mirror, shelf, questions)]


def test_the_nearest_come_first_and_the_item_itself_is_not_among_them(mirror: Mirror) -> None:
    assert names(mirror, asked("a"), asked("d", k=2)) == [["b", "c", "d"], ["c", "b"]]
    assert names(mirror, asked("a"), shelf="video") == [["b", "c", "d", "e"]]
    (found,) = similar_items(mirror, "shop", [asked("a", k=1)])
    assert [(each.item_id, each.source, each.because) for each in found] == [("b", "similar", None)]
    assert found[0].score == pytest.approx(0.951, abs=1e-3)


def test_exclusions_and_categories_are_kept(mirror: Mirror) -> None:
    assert names(mirror, asked("a", exclude=("b", "unheard of"))) == [["c", "d"]]
    assert names(mirror, asked("d", categories=("vowel",))) == [["a"]]
    assert names(mirror, asked("d", categories=("no such thing",))) == [[]]


def test_hidden_and_deleted_items_are_in_no_answer_but_a_hidden_one_may_be_asked_about(mirror: Mirror) -> None:
    """Case E27, of similar items."""
    mirror.take_items([item("b", hidden=True), Record(b"c", None)])
    assert names(mirror, asked("a"), asked("b"), asked("c")) == [["d"], ["a", "d"], []]


def test_nothing_is_similar_to_an_item_that_is_unknown_or_has_no_vector_yet(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("later")])
    mirror.take_vectors([source.vector("not an item", 1.0, fresh=True)], 6)
    questions = [asked(name) for name in ("nobody knows", "later", "not an item", "a")]
    assert names(mirror, *questions) == [[], [], [], ["b", "c", "d"]]
