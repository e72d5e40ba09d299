"""The contract of every index: a suite that each implementation runs through, beside a plain dict and brute force."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from torch import Tensor

from index.exact import ExactIndex
from index.live import LARGEST_ID, LARGEST_NUMBER, Found, IndexRefused
from index.policy import Policy
from index.segmented import SegmentedIndex
from tests.index.contract import HIDDEN, BruteForce, Build, machine, padded, put, rows, whole_numbers

EVERYTHING = Policy(kind="ivf", recall=1.0, delta_items=3, delta_share=0.0, rows_per_list=2)
"""Lists of a few items, of which enough are read to find all that is best, and a compaction every few changes."""


class Compacting(SegmentedIndex):
    """Moves its items into the IVF segment whenever that is due, and before every seventh search."""

    searches = 0

    def upsert(self, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
        super().upsert(ids, vectors, bias)
        if self.due:
            self.compact()

    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        excluded: Tensor | None = None,
        allowed: Tensor | None = None,
        generation: int | None = None,
    ) -> Found:
        self.searches += 1
        if self.searches % 7 == 0:
            self.compact()
        return super().search(queries, k, excluded=excluded, allowed=allowed, generation=generation)


DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
FACTORIES: dict[str, Build] = {
    f"exact-{device}": lambda dimension, device=device: ExactIndex(dimension, capacity=2, device=device)  # type: ignore[misc]
    for device in DEVICES
}
FACTORIES |= {
    f"segmented-{device}": lambda dimension, device=device: SegmentedIndex(dimension, capacity=2, device=device)  # type: ignore[misc]
    for device in DEVICES
}
FACTORIES["segmented-compacting"] = lambda dimension: Compacting(dimension, policy=EVERYTHING)


@pytest.fixture(params=list(FACTORIES.values()), ids=list(FACTORIES))
def build(request: pytest.FixtureRequest) -> Build:
    make: Build = request.param
    return make


def test_any_order_of_changes_and_searches_gives_what_brute_force_gives(build: Build) -> None:
    run_state_machine_as_test(machine(build), settings=settings(max_examples=40, stateful_step_count=20, deadline=None))


def test_after_five_thousand_random_changes_each_id_answers_with_its_own_vector(build: Build) -> None:
    """Case I35: ids that slip after removals, ids that live twice, removed ids that return."""
    generator = torch.Generator().manual_seed(35)
    index, brute = build(8), BruteForce()
    for step in range(5000):
        ids = (torch.randperm(300, generator=generator)[: step % 5 + 1] + 1).tolist()
        if step % 2:
            index.remove(rows(ids))
            brute.remove(ids)
        else:
            put(index, brute, ids, whole_numbers(generator, len(ids), 8))
        if step % 100 == 0:
            queries = whole_numbers(generator, 2, 8)
            brute.check(index.search(queries, 400), queries.tolist(), 400)
    assert len(index) == len(brute.items)


def test_a_search_with_filters_gives_exactly_k_or_all_that_is_left(build: Build) -> None:
    """Case I37: more or fewer than asked for when a filter is on."""
    generator = torch.Generator().manual_seed(37)
    index, brute = build(4), BruteForce()
    put(index, brute, range(1, 31), whole_numbers(generator, 30, 4))
    queries = whole_numbers(generator, 2, 4)
    for left in range(31):
        excluded = [(torch.randperm(30, generator=generator)[left:] + 1).tolist() for _ in queries]
        for k in range(1, 33):
            found = index.search(queries, k, excluded=padded(excluded))
            brute.check(found, queries.tolist(), k, excluded)
            assert (found.ids > 0).sum(1).tolist() == [min(k, left)] * 2
        allowed = excluded[0]
        found = index.search(queries, 32, excluded=padded([[], [*range(1, 16)]]), allowed=rows(allowed))
        brute.check(found, queries.tolist(), 32, [[], [*range(1, 16)]], allowed)


def test_large_tables_are_searched_exactly_with_and_without_filters(build: Build) -> None:
    generator = torch.Generator().manual_seed(1)
    index, brute = build(16), BruteForce()
    ids = (torch.randperm(20_000, generator=generator)[:7000] + 1).tolist()
    put(index, brute, ids, whole_numbers(generator, 7000, 16))
    queries = whole_numbers(generator, 3, 16)
    excluded, allowed = [ids[:1000], [], ids[3000:3100]], ids[500:3500]
    for k in (1, 10, 100, 6000):
        brute.check(index.search(queries, k), queries.tolist(), k)
        found = index.search(queries, k, excluded=padded(excluded), allowed=rows(allowed))
        brute.check(found, queries.tolist(), k, excluded, allowed)


def test_a_deleted_item_is_found_by_no_search(build: Build) -> None:
    index = build(2)
    index.upsert(rows([1, 2]), torch.tensor([[9.0, 9.0], [1.0, 1.0]]), torch.zeros(2))
    index.remove(rows([1]))
    found = index.search(torch.ones(1, 2), 5, allowed=rows([1, 2]))
    assert found.ids.tolist() == [[2]]
    assert 1 not in index


def test_an_item_that_is_removed_twice_in_one_call_leaves_room_for_one(build: Build) -> None:
    index = build(1)
    index.upsert(rows([1, 2]), torch.ones(2, 1), torch.zeros(2))
    index.remove(rows([1, 1]))
    assert len(index) == 1
    index.upsert(rows([3, 4]), torch.tensor([[3.0], [4.0]]), torch.zeros(2))
    assert index.search(torch.ones(1, 1), 9).ids.tolist() == [[4, 3, 2]]


def test_a_hidden_item_is_found_by_no_search_until_it_is_shown_again(build: Build) -> None:
    index = build(2)
    index.upsert(rows([1, 2]), torch.tensor([[9.0, 9.0], [1.0, 1.0]]), torch.tensor([HIDDEN, 0.0]))
    assert index.search(torch.ones(1, 2), 2, allowed=rows([1, 2])).ids.tolist() == [[2, 0]]
    assert 1 in index
    index.upsert(rows([1]), torch.tensor([[9.0, 9.0]]), torch.zeros(1))
    assert index.search(torch.ones(1, 2), 2).ids.tolist() == [[1, 2]]


def test_of_an_id_named_twice_in_one_upsert_the_last_counts(build: Build) -> None:
    index = build(1)
    index.upsert(rows([7, 3, 7]), torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([0.0, 0.0, 0.5]))
    found = index.search(torch.ones(1, 1), 9)
    assert (found.ids.tolist(), found.scores.tolist()) == ([[7, 3]], [[5.5, 2.0]])


def test_an_empty_index_finds_nothing_for_each_query(build: Build) -> None:
    found = build(3).search(torch.ones(2, 3), 10, excluded=padded([[1], [2]]), allowed=rows([1]))
    assert (found.ids.shape, found.scores.shape) == ((2, 0), (2, 0))


def test_no_queries_and_no_changes_are_fine(build: Build) -> None:
    index = build(3)
    index.upsert(rows([]), torch.zeros(0, 3), torch.zeros(0))
    index.remove(rows([]))
    index.upsert(rows([4]), torch.ones(1, 3), torch.zeros(1))
    assert index.search(torch.zeros(0, 3), 2).ids.shape == (0, 1)
    assert index.search(torch.ones(1, 3), 2, excluded=torch.zeros(1, 0, dtype=torch.int64)).ids.tolist() == [[4]]


def test_what_was_given_may_be_changed_afterwards(build: Build) -> None:
    index = build(2)
    vectors, ids, bias = torch.ones(1, 2), rows([5]), torch.zeros(1)
    index.upsert(ids, vectors, bias)
    vectors.fill_(100.0), ids.fill_(6), bias.fill_(100.0)
    found = index.search(torch.ones(1, 2), 1)
    assert (found.ids.tolist(), found.scores.tolist()) == ([[5]], [[2.0]])
    found.ids.fill_(9), found.scores.fill_(9.0)
    assert index.search(torch.ones(1, 2), 1).ids.tolist() == [[5]]


def test_the_largest_numbers_keep_every_item_findable(build: Build) -> None:
    index = build(64)
    index.upsert(rows([1, 2]), torch.tensor([[LARGEST_NUMBER], [-LARGEST_NUMBER]]).expand(2, 64), torch.zeros(2))
    found = index.search(torch.full((1, 64), LARGEST_NUMBER), 2)
    assert found.ids.tolist() == [[1, 2]]
    assert found.scores.isfinite().all()


GOOD = (rows([1, 2]), torch.ones(2, 3), torch.zeros(2))
BAD_ITEMS = {
    "id-zero": ((rows([1, 0]), *GOOD[1:]), "ids[1]", None),
    "id-negative": ((rows([-4, 2]), *GOOD[1:]), "ids[0]", None),
    "id-too-large": ((rows([1, LARGEST_ID + 1]), *GOOD[1:]), "ids[1]", None),
    "ids-of-floats": ((torch.ones(2), *GOOD[1:]), "ids", None),
    "ids-of-two-dimensions": ((padded([[1, 2]]), *GOOD[1:]), "ids", None),
    "vector-nan": ((GOOD[0], torch.tensor([[1.0] * 3, [0.0, torch.nan, 0.0]]), GOOD[2]), "vectors[1]", 2),
    "vector-infinite": ((GOOD[0], torch.tensor([[1.0, 0.0, -torch.inf], [1.0] * 3]), GOOD[2]), "vectors[0]", 1),
    "vector-too-large": ((GOOD[0], torch.full((2, 3), 1e20), GOOD[2]), "vectors[0]", 1),
    "vectors-of-other-dimension": ((GOOD[0], torch.ones(2, 4), GOOD[2]), "vectors", None),
    "vectors-too-few": ((GOOD[0], torch.ones(1, 3), GOOD[2]), "vectors", None),
    "bias-nan": ((*GOOD[:2], torch.tensor([0.0, torch.nan])), "bias[1]", 2),
    "bias-infinite": ((*GOOD[:2], torch.tensor([torch.inf, 0.0])), "bias[0]", 1),
    "bias-too-many": ((*GOOD[:2], torch.zeros(3)), "bias", None),
}


@pytest.mark.parametrize(("items", "field", "item"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
def test_a_bad_upsert_is_refused_by_name_and_changes_nothing(
    build: Build, items: tuple[Tensor, Tensor, Tensor], field: str, item: int | None
) -> None:
    index = build(3)
    index.upsert(rows([1]), torch.full((1, 3), 2.0), torch.zeros(1))
    with pytest.raises(IndexRefused) as caught:
        index.upsert(*items)
    assert (caught.value.field, caught.value.item) == (field, item)
    assert str(caught.value).startswith(field)
    assert caught.value.value in str(caught.value)
    assert caught.value.allowed in str(caught.value)
    assert (len(index), index.sequence) == (1, 1)
    assert index.search(torch.ones(1, 3), 9).scores.tolist() == [[6.0]]


BAD_SEARCHES: dict[str, tuple[Tensor, int, Tensor | None, Tensor | None, str]] = {
    "k-zero": (torch.ones(1, 3), 0, None, None, "k"),
    "query-nan": (torch.tensor([[0.0, 0.0, torch.nan]]), 1, None, None, "queries[0]"),
    "query-of-other-dimension": (torch.ones(1, 4), 1, None, None, "queries"),
    "query-without-batch": (torch.ones(3), 1, None, None, "queries"),
    "excluded-without-batch": (torch.ones(1, 3), 1, rows([1]), None, "excluded"),
    "excluded-of-other-batch": (torch.ones(1, 3), 1, padded([[1], [2]]), None, "excluded"),
    "allowed-per-query": (torch.ones(1, 3), 1, None, padded([[1]]), "allowed"),
    "allowed-of-floats": (torch.ones(1, 3), 1, None, torch.ones(1), "allowed"),
}


@pytest.mark.parametrize(
    ("queries", "k", "excluded", "allowed", "field"), BAD_SEARCHES.values(), ids=BAD_SEARCHES.keys()
)
def test_a_bad_search_is_refused_by_name(
    build: Build, queries: Tensor, k: int, excluded: Tensor | None, allowed: Tensor | None, field: str
) -> None:
    with pytest.raises(IndexRefused) as caught:
        build(3).search(queries, k, excluded=excluded, allowed=allowed)
    assert caught.value.field == field


def test_readers_beside_a_writer_see_whole_rows_and_all_that_was_published_before(build: Build) -> None:
    """Invariant 4: no reader sees half an update, and a search that starts after an upsert returned sees it."""
    dimension, items, writes, readers = 32, 120, 250, 3
    index = build(dimension)
    ids = rows(range(1, items + 1))
    corners = torch.eye(dimension)[[0, dimension // 2, dimension - 1]]
    published = 0
    failures: list[str] = []
    done = threading.Event()
    searched = [threading.Event() for _ in range(readers)]

    def write() -> None:
        nonlocal published
        for value in range(1, writes + 1):
            index.upsert(ids, torch.full((items, dimension), float(value)), torch.zeros(items))
            published = value
            if value % 10 == 0:
                index.remove(rows([items + 1]))
                index.upsert(rows([items + 1]), torch.full((1, dimension), -1.0), torch.zeros(1))

    def read(reader: int) -> None:
        while not done.is_set():
            before = published
            found = index.search(corners, items)
            of_item = found.scores.gather(1, found.ids.argsort(1))  # (corners, items)
            if before and found.scores.shape[1] == items:
                if int(found.scores.min()) < before:
                    failures.append(f"a search after write {before} found {found.scores.min()}")
                if not bool((of_item == of_item[0]).all()):
                    failures.append("a row was read half old, half new")
            searched[reader].set()

    threads = [threading.Thread(target=read, args=(reader,)) for reader in range(readers)]
    for thread in threads:
        thread.start()
    write()
    for event in searched:
        assert event.wait(30)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
