"""The segmented index: what it does beyond the contract, while it compacts, and when things go wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import rule, run_state_machine_as_test
from torch import Tensor

from index.compactor import Compactor
from index.exact import ExactIndex
from index.ivf import IvfSegment
from index.live import IndexRefused
from index.policy import Policy
from index.segmented import SegmentedIndex
from tests.index.contract import CHANGES, BruteForce, columns, machine

DIMENSION = 16
IVF = Policy(kind="ivf", delta_items=400, delta_share=0.0, rows_per_list=10)
ALL_LISTS = replace(IVF, recall=1.0)
FUZZ_SECONDS = 60.0 if os.environ.get("HEADSTREAM_NIGHTLY") else 10.0
"""A minute in the nightly form."""


def clustered(count: int, seed: int, clusters: int = 40, spread: float = 0.4) -> Tensor:
    """Unit vectors around some centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(clusters, DIMENSION, generator=generator)
    at = torch.randint(clusters, (count,), generator=generator)
    vectors = centres[at] + spread * torch.randn(count, DIMENSION, generator=generator)
    return torch.nn.functional.normalize(vectors, dim=1)


def filled(vectors: Tensor, policy: Policy = IVF) -> SegmentedIndex:
    """An index of these vectors, with the ids 1, 2, 3, …, compacted if that is due."""
    index = SegmentedIndex(DIMENSION, policy=policy)
    index.upsert(torch.arange(1, len(vectors) + 1), vectors, torch.zeros(len(vectors)))
    if index.due:
        index.compact()
    return index


def near(vectors: Tensor, count: int) -> Tensor:
    """Queries close to the first of these vectors."""
    noise = torch.randn(count, DIMENSION, generator=torch.Generator().manual_seed(5))
    return torch.nn.functional.normalize(vectors[:count] + 0.2 * noise, dim=1)


def recall(index: SegmentedIndex, vectors: Tensor, queries: Tensor, k: int = 50) -> float:
    """Share of the truly best ids that are found."""
    truth = torch.topk(queries @ vectors.T, k).indices + 1
    found = index.search(queries, k).ids
    return float((truth[:, :, None] == found[:, None, :]).any(2).float().mean())


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.01)


def test_compactions_and_generations_in_any_order_with_all_else_give_what_brute_force_gives() -> None:
    policy = Policy(kind="ivf", recall=1.0, rows_per_list=2)

    class AnyOrder(machine(lambda dimension: SegmentedIndex(dimension, policy=policy))):  # type: ignore[misc]
        index: SegmentedIndex

        @rule()
        def compact(self) -> None:
            self.index.compact()

        @rule(changes=CHANGES)
        def renew(self, changes: list[tuple[int, list[float], float]]) -> None:
            self.brute = BruteForce()
            ids, vectors, bias = columns(changes)
            self.index.renew(torch.tensor(ids, dtype=torch.int64), vectors, bias)
            self.brute.upsert(ids, vectors.tolist(), bias.tolist())
            self.changes += 1

    run_state_machine_as_test(AnyOrder, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))


# Which kind it is


def test_a_small_index_looks_at_every_item_and_says_so() -> None:
    index = filled(clustered(500, 0), Policy(exact_items=1000))
    report = index.report()
    assert (report.kind, report.recall, report.delta) == ("exact", 1.0, 500)
    assert report.why == "500 items, exact up to 1,000"
    assert not index.due


def test_a_large_index_reads_the_lists_that_it_needs_and_says_so() -> None:
    vectors = clustered(3000, 0)
    index = filled(vectors, Policy(exact_items=1000, rows_per_list=10))
    report = index.report()
    assert (report.kind, report.delta, report.items) == ("ivf", 0, 3000)
    assert report.why == "3,000 items, exact up to 1,000"
    assert 0 < report.probes < report.lists
    assert report.recall >= 0.98
    assert recall(index, vectors, near(vectors, 100)) >= 0.97


def test_lists_are_read_as_far_as_the_queries_of_late_need() -> None:
    vectors, strange = clustered(3000, 0), clustered(328, 77)
    index = filled(vectors, replace(IVF, recall=0.99))
    before = index.report().probes
    index.search(strange[:128], 10)
    index.compact()
    assert index.report().probes > before
    assert recall(index, vectors, strange[128:]) >= 0.98


def test_items_without_any_clusters_are_all_looked_at_however_many_and_it_says_so() -> None:
    noise = torch.randn(2000, 64, generator=torch.Generator().manual_seed(0))
    index = SegmentedIndex(64, policy=Policy(exact_items=1000, rows_per_list=10))
    index.upsert(torch.arange(1, 2001), noise, torch.zeros(2000))
    index.compact()
    assert (index.report().kind, index.due) == ("exact", False)
    assert index.report().why == ("2,000 items without clusters: too many lists would have to be read")
    assert recall(index, noise, noise[:20]) == 1.0
    index.upsert(torch.arange(2001, 4002), noise[:1].expand(2001, -1), torch.zeros(2001))
    assert index.due


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_the_kind_can_be_told(kind: str) -> None:
    index = filled(clustered(300, 0), Policy(kind=kind, exact_items=100))  # type: ignore[arg-type]
    assert (index.report().kind, index.report().why) == (kind, f'index.kind is "{kind}"')


def test_numbers_are_kept_at_half_their_length_where_memory_is_short() -> None:
    vectors = clustered(2000, 0)
    whole, half = filled(vectors), filled(vectors, replace(IVF, memory=100_000))
    assert whole.report().nbytes - half.report().nbytes == 2000 * (DIMENSION + 1) * 2
    queries = clustered(50, 1)
    assert recall(half, vectors, queries) >= 0.96
    torch.testing.assert_close(half.search(queries, 5).scores, whole.search(queries, 5).scores, atol=2e-3, rtol=0)
    half.remove(torch.tensor([7]))
    assert 7 not in half.search(vectors[6:7], 20).ids


def test_numbers_that_half_the_length_cannot_hold_keep_theirs() -> None:
    vectors = clustered(2000, 0)
    index = SegmentedIndex(DIMENSION, policy=replace(ALL_LISTS, memory=100_000))
    bias = torch.zeros(2000)
    bias[0], bias[1] = 1e5, -1e5
    index.upsert(torch.arange(1, 2001), vectors, bias)
    index.compact()
    found = index.search(vectors[:1], 2000)
    assert (int(found.ids[0, 0]), int(found.ids[0, -1])) == (1, 2)
    assert found.scores.isfinite().all()


# Compaction


def test_few_changes_join_the_lists_as_they_are_and_new_clusters_bring_new_ones() -> None:
    old, new = clustered(4000, 0), clustered(4000, 99)
    index = filled(old)
    assert index.report().retrained == 1
    index.upsert(torch.arange(1, 501), old[:500], torch.zeros(500))
    index.compact()
    assert (index.report().compactions, index.report().retrained) == (2, 1)
    half = torch.arange(1, 2001)
    for batch in half.split(500):
        index.upsert(batch, new[batch - 1], torch.zeros(len(batch)))
        index.compact()
    index.compact()
    assert index.report().retrained > 1
    now = torch.cat([new[:2000], old[2000:]])
    queries = torch.cat([clustered(50, 1), new[:50]])
    assert abs(recall(index, now, queries) - recall(filled(now), now, queries)) <= 0.01
    assert (len(index), index.report().gone) == (4000, 0)


def test_what_is_written_while_a_compaction_runs_is_found_at_once_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(1000, 0)
    index = filled(vectors, ALL_LISTS)
    building, go_on = threading.Event(), threading.Event()

    put_together = IvfSegment.__init__

    def slowly(*arguments: object) -> None:
        building.set()
        assert go_on.wait(30)
        put_together(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(IvfSegment, "__init__", slowly)
    other = torch.nn.functional.normalize(torch.ones(1, DIMENSION), dim=1)
    index.upsert(torch.tensor([2000]), vectors[:1], torch.zeros(1))
    thread = threading.Thread(target=index.compact)
    thread.start()
    assert building.wait(30)
    index.remove(torch.tensor([1]))
    index.upsert(torch.tensor([2, 2000, 3000]), other.expand(3, -1), torch.tensor([0.0, 1.0, 2.0]))
    expected = [3000, 2000, 2]
    assert index.search(other, 3).ids.tolist() == [expected]
    go_on.set()
    thread.join()
    assert index.search(other, 3).ids.tolist() == [expected]
    assert (1 in index, len(index)) == (False, 1001)
    assert 1 not in index.search(vectors[:1], 50).ids


def test_a_compaction_that_fails_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(1000, 0)
    index = filled(vectors, ALL_LISTS)

    def fail(*_: object) -> None:
        index.upsert(torch.tensor([5000]), vectors[:1], torch.ones(1))
        raise MemoryError

    monkeypatch.setattr(IvfSegment, "__init__", fail)
    index.upsert(torch.tensor([4000]), vectors[:1], torch.full((1,), 0.5))
    with pytest.raises(MemoryError):
        index.compact()
    monkeypatch.undo()
    assert (len(index), index.search(vectors[:1], 3).ids.tolist()) == (1002, [[5000, 4000, 1]])
    index.compact()
    assert (len(index), index.search(vectors[:1], 3).ids.tolist()) == (1002, [[5000, 4000, 1]])


def test_the_compactor_goes_on_after_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    index = filled(clustered(100, 0), Policy(exact_items=1000))
    compact, calls = index.compact, []

    def fail_once() -> None:
        calls.append(None)
        if len(calls) == 1:
            raise MemoryError
        compact()

    monkeypatch.setattr(index, "compact", fail_once)
    monkeypatch.setattr(index, "_policy", IVF)
    monkeypatch.setattr("index.compactor.LONGEST_REST_SECONDS", 0.05)
    compactor = Compactor(lambda: [index])
    wait_until(lambda: index.report().kind == "ivf")
    compactor.close()
    assert compactor.failures == 1
    assert "an index of 100 items could not be compacted" in caplog.text


def test_a_writer_is_told_when_compactions_do_not_keep_up() -> None:
    index = filled(clustered(500, 0), Policy(kind="ivf", full_items=50, full_share=0.0, rows_per_list=10))
    assert not index.full
    index.upsert(torch.arange(1, 61), clustered(60, 1), torch.zeros(60))
    assert (index.full, index.report().full) == (True, True)
    index.compact()
    assert not index.full


# Races


def test_under_writers_readers_and_compactions_no_item_vanishes_and_none_returns() -> None:
    """Constant items are written over and over and must be in every answer, deleted ones in none."""
    vectors = clustered(3000, 0, clusters=300, spread=0.2)
    index = filled(vectors, Policy(kind="ivf", delta_items=150, delta_share=0.0, rows_per_list=10, recall=1.0))
    ids = torch.arange(1, 3001)
    index.remove(ids[ids % 10 == 0])
    stop = threading.Event()
    faults: list[str] = []
    searches = [0, 0]

    def write() -> None:
        generator = torch.Generator().manual_seed(1)
        while not stop.is_set():
            some = torch.randint(1, 3001, (32,), generator=generator)
            some = some[some % 10 != 0]
            index.upsert(some, vectors[some - 1], torch.zeros(len(some)))
            extra = torch.randint(4001, 4100, (1,), generator=generator)
            index.upsert(extra, vectors[:1], torch.full((1,), -5.0))
            index.remove(extra)
            if extra[0] in index.search(vectors[:1], 3001).ids:
                faults.append(f"{int(extra[0])} was found after it was removed")

    def read(number: int) -> None:
        generator = torch.Generator().manual_seed(10 + number)
        while not stop.is_set():
            asked = torch.randint(1, 3001, (8,), generator=generator)
            found = index.search(vectors[asked - 1], 5).ids
            for item, row in zip(asked.tolist(), found.tolist(), strict=True):
                if (item in row) != (item % 10 != 0) or len(set(row)) < 5:
                    faults.append(f"{item} in {row}")
            if bool((found % 10 == 0).any()):
                faults.append(f"deleted ones among {found.tolist()}")
            searches[number] += 1

    compactor = Compactor(lambda: [index])
    threads = [threading.Thread(target=write), *(threading.Thread(target=read, args=(n,)) for n in range(2))]
    for thread in threads:
        thread.start()
    time.sleep(FUZZ_SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    compactor.close()
    assert faults == []
    assert min(searches) > 50
    assert index.report().compactions > 5
    assert compactor.failures == 0


# Generations


def test_a_new_generation_takes_the_place_of_all_that_was_there() -> None:
    old, new = clustered(1000, 0), clustered(800, 5)
    index = filled(old, ALL_LISTS)
    before = index.sequence
    index.renew(torch.arange(501, 1301), new, torch.zeros(800))
    assert (len(index), index.generation, index.sequence) == (800, 1, before + 1)
    assert (500 in index, 501 in index) == (False, True)
    assert index.search(new[:5], 1).ids.flatten().tolist() == [501, 502, 503, 504, 505]
    index.remove(torch.tensor([501]))
    index.compact()
    assert (len(index), 501 in index) == (799, False)


def test_a_query_of_another_generation_is_refused() -> None:
    index = filled(clustered(100, 0))
    query = clustered(1, 1)
    assert index.search(query, 1, generation=0).ids.shape == (1, 1)
    index.renew(torch.tensor([1]), query, torch.zeros(1))
    with pytest.raises(IndexRefused, match="generation is 0; allowed is 1"):
        index.search(query, 1, generation=0)


def test_searches_find_the_old_generation_or_the_new_one_and_no_mixture() -> None:
    """Every search finds ids of one generation only, and one that starts after the exchange finds the new one."""
    index = filled(clustered(2000, 0))
    stop = threading.Event()
    faults: list[object] = []

    def read() -> None:
        queries = clustered(4, 3)
        while not stop.is_set():
            least = index.generation
            generations = {(item - 1) // 2000 for item in index.search(queries, 50).ids.flatten().tolist()}
            if len(generations) != 1 or min(generations) < least:
                faults.append((least, generations))

    thread = threading.Thread(target=read)
    thread.start()
    for generation in range(1, 6):
        ids = torch.arange(1, 2001) + 2000 * generation
        index.renew(ids, clustered(2000, generation), torch.zeros(2000))
    stop.set()
    thread.join()
    assert faults == []


# A GPU that has too little memory


class TooSmall(ExactIndex):
    """Stands in for a table on a GPU whose memory is used up; there is none on the machines that run this."""

    full = False

    @property
    def device(self) -> torch.device:
        return torch.device("cuda")

    def upsert(self, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
        if self.full:
            raise torch.OutOfMemoryError("no memory is left")
        super().upsert(ids, vectors, bias)

    def search(self, queries: Tensor, k: int, **filters: Tensor | None) -> object:  # type: ignore[override]
        if self.full:
            raise torch.OutOfMemoryError("no memory is left")
        return super().search(queries, k, **filters)


@pytest.mark.parametrize("by", ["upsert", "search"])
def test_an_index_goes_on_in_the_hosts_memory_when_the_gpu_has_none_left(
    by: str, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = clustered(100, 0)
    index = SegmentedIndex(DIMENSION, policy=Policy(exact_items=50, rows_per_list=10, recall=1.0))
    table = TooSmall(DIMENSION)
    index._device, index._segments = torch.device("cuda"), (table,)
    index.upsert(torch.arange(1, 91), vectors[:90], torch.zeros(90))
    assert index.report().why == "on cuda every item is looked at"
    assert not index.due
    table.full = True
    if by == "upsert":
        index.upsert(torch.arange(91, 101), vectors[90:], torch.zeros(10))
    assert index.search(vectors[:90], 1).ids.flatten().tolist() == [*range(1, 91)]
    assert (len(index), index.report().device) == (100 if by == "upsert" else 90, "cpu")
    assert index.report().why == "cuda ran out of memory"
    assert "goes on in the host's memory: no memory is left" in caplog.text
    assert index.due
    index.compact()
    assert index.search(vectors[:90], 1).ids.flatten().tolist() == [*range(1, 91)]
