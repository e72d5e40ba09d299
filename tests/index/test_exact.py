"""What is the exact index's own: its slots, its growth, its block-wise top-k."""

from __future__ import annotations

import threading

import pytest
import torch

from index import exact
from index.exact import ExactIndex
from index.live import IndexRefused


def filled(ids: range, *, capacity: int, dimension: int = 2) -> ExactIndex:
    index = ExactIndex(dimension, capacity=capacity)
    index.upsert(torch.tensor(ids), torch.ones(len(ids), dimension), torch.zeros(len(ids)))
    return index


def test_slots_that_were_left_are_taken_again() -> None:
    index = filled(range(1, 9), capacity=31)
    for turn in range(50):
        index.remove(torch.tensor([turn + 1, turn + 2]))
        index.upsert(torch.tensor([turn + 2, turn + 9]), torch.ones(2, 2), torch.zeros(2))
    assert (len(index), index.capacity) == (8, 31)


def test_it_doubles_when_it_is_full() -> None:
    index = filled(range(1, 32), capacity=31)
    index.upsert(torch.tensor([32]), torch.ones(1, 2), torch.zeros(1))
    assert (len(index), index.capacity) == (32, 63)
    assert sorted(index.search(torch.ones(1, 2), 40).ids[0].tolist()) == [*range(1, 33)]


def test_one_upsert_may_be_larger_than_twice_the_capacity() -> None:
    assert len(filled(range(1, 1001), capacity=1)) == 1000


def test_an_index_that_grew_in_inference_mode_is_written_outside_of_it() -> None:
    index = ExactIndex(2, capacity=1)
    with torch.inference_mode():
        index.upsert(torch.arange(1, 40), torch.ones(39, 2), torch.zeros(39))
    index.upsert(torch.tensor([3]), torch.full((1, 2), 5.0), torch.zeros(1))
    assert index.search(torch.ones(1, 2), 1).ids.tolist() == [[3]]


def test_vectors_that_require_gradients_leave_none_in_the_index() -> None:
    index = ExactIndex(2)
    index.upsert(torch.tensor([3]), torch.ones(1, 2, requires_grad=True), torch.zeros(1, requires_grad=True))
    assert not index.search(torch.ones(1, 2, requires_grad=True), 1).scores.requires_grad


def test_queries_that_do_not_fit_in_memory_at_once_are_searched_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    index = ExactIndex(4, capacity=50)
    index.upsert(torch.arange(1, 51), torch.randint(-9, 9, (50, 4)).float(), torch.zeros(50))
    queries = torch.randint(-9, 9, (23, 4)).float()
    excluded = torch.randint(0, 51, (23, 7))
    whole = index.search(queries, 6, excluded=excluded)
    monkeypatch.setattr(exact, "SCORES_AT_ONCE", 51 * 5)
    parts = index.search(queries, 6, excluded=excluded)
    assert torch.equal(whole.scores, parts.scores)


def test_a_search_beside_an_upsert_sees_all_of_it_or_nothing() -> None:
    """Invariant 4: readers never see half an update."""
    items, dimension = 4000, 64
    index = filled(range(1, items + 1), capacity=items, dimension=dimension)
    stop = threading.Event()

    def write() -> None:
        value = 1.0
        while not stop.is_set():
            value += 1.0
            index.upsert(torch.arange(1, items + 1), torch.full((items, dimension), value), torch.zeros(items))

    writer = threading.Thread(target=write)
    writer.start()
    query = torch.ones(1, dimension)
    answers = [index.search(query, items).scores for _ in range(200)]
    stop.set()
    writer.join()
    assert all(bool((scores == scores[0, 0]).all()) for scores in answers)


@pytest.mark.parametrize(("field", "arguments"), [("dimension", (0, 8)), ("capacity", (4, 0))])
def test_a_size_below_one_is_refused(field: str, arguments: tuple[int, int]) -> None:
    with pytest.raises(IndexRefused) as caught:
        ExactIndex(arguments[0], capacity=arguments[1])
    assert caught.value.field == field
