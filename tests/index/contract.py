"""Brute force, and any order of changes and searches beside it: what every index is held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import hypothesis.strategies as st
import torch
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import Tensor

from index.live import Found, Index

Build = Callable[[int], Index]

HIDDEN = -torch.inf

DIMENSION = 3
KNOWN = st.integers(1, 12)
ANYTHING = st.one_of(KNOWN, st.integers(0, 5000))
VECTOR = st.lists(st.integers(-9, 9).map(float), min_size=DIMENSION, max_size=DIMENSION)
BIAS = st.one_of(st.integers(-9, 9).map(float), st.just(HIDDEN))
CHANGES = st.lists(st.tuples(st.one_of(KNOWN, st.integers(1, 5000)), VECTOR, BIAS), max_size=6)


class BruteForce:
    """What an index must do, in the plainest words: a dict, and every score of every search."""

    def __init__(self) -> None:
        self.items: dict[int, tuple[list[float], float]] = {}

    def upsert(self, ids: Sequence[int], vectors: Sequence[list[float]], bias: Sequence[float]) -> None:
        for item, vector, extra in zip(ids, vectors, bias, strict=True):
            self.items[item] = (vector, extra)

    def remove(self, ids: Sequence[int]) -> None:
        for item in ids:
            self.items.pop(item, None)

    def scores(self, query: list[float], excluded: set[int], allowed: set[int] | None) -> dict[int, float]:
        return {
            item: sum(a * b for a, b in zip(query, vector, strict=True)) + extra
            for item, (vector, extra) in self.items.items()
            if extra != HIDDEN and item not in excluded and (allowed is None or item in allowed)
        }

    def check(
        self,
        found: Found,
        queries: Sequence[list[float]],
        k: int,
        excluded: Sequence[Sequence[int]] | None = None,
        allowed: Sequence[int] | None = None,
    ) -> None:
        """Compare a whole answer; of items with one score, any may stand for the other."""
        assert found.ids.shape == found.scores.shape == (len(queries), min(k, len(self.items)))
        assert (found.ids.dtype, found.scores.dtype) == (torch.int64, torch.float32)
        for row, query in enumerate(queries):
            left = self.scores(query, set(excluded[row] if excluded else ()), None if allowed is None else set(allowed))
            count = min(k, len(left))
            ids, scores = found.ids[row].tolist(), found.scores[row].tolist()
            assert scores[:count] == sorted(left.values(), reverse=True)[:count]
            assert [left[item] for item in ids[:count]] == scores[:count]
            assert len(set(ids[:count])) == count
            assert set(ids[count:]) <= {0}
            assert set(scores[count:]) <= {HIDDEN}


def rows(ids: Sequence[int]) -> Tensor:
    return torch.tensor(ids, dtype=torch.int64)


def padded(lists: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, lists), default=0)
    filled = [[*row, *[0] * (longest - len(row))] for row in lists]
    return torch.tensor(filled, dtype=torch.int64).view(len(lists), longest)


def put(index: Index, brute: BruteForce, ids: Sequence[int], vectors: Tensor, bias: Tensor | None = None) -> None:
    bias = torch.zeros(len(ids)) if bias is None else bias
    index.upsert(rows(ids), vectors, bias)
    brute.upsert(ids, vectors.tolist(), bias.tolist())


def whole_numbers(generator: torch.Generator, count: int, dimension: int) -> Tensor:
    """Vectors whose inner products are exact, whatever the order of summation."""
    return torch.randint(-50, 51, (count, dimension), generator=generator).float()


def columns(changes: Sequence[tuple[int, list[float], float]]) -> tuple[list[int], Tensor, Tensor]:
    """Ids, vectors and biases."""
    vectors = torch.tensor([values for _, values, _ in changes]).view(-1, DIMENSION)
    return [item for item, _, _ in changes], vectors, torch.tensor([value for _, _, value in changes])


def machine(build: Build) -> type[RuleBasedStateMachine]:
    """Any order of upserts, removes and searches against one index and brute force."""

    class AnyOrder(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            self.index = build(DIMENSION)
            self.brute = BruteForce()
            self.changes = 0

        @rule(changes=CHANGES)
        def upsert(self, changes: list[tuple[int, list[float], float]]) -> None:
            put(self.index, self.brute, *columns(changes))
            self.changes += 1

        @rule(ids=st.lists(ANYTHING, max_size=6))
        def remove(self, ids: list[int]) -> None:
            self.index.remove(rows(ids))
            self.brute.remove(ids)
            self.changes += 1

        @rule(
            asked=st.lists(st.tuples(VECTOR, st.lists(ANYTHING, max_size=15)), min_size=1, max_size=3),
            k=st.integers(1, 16),
            allowed=st.none() | st.lists(ANYTHING, max_size=15),
            excludes=st.booleans(),
        )
        def search(
            self, asked: list[tuple[list[float], list[int]]], k: int, allowed: list[int] | None, excludes: bool
        ) -> None:
            queries = [query for query, _ in asked]
            excluded = [ids for _, ids in asked] if excludes else None
            found = self.index.search(
                torch.tensor(queries),
                k,
                excluded=None if excluded is None else padded(excluded),
                allowed=None if allowed is None else rows(allowed),
            )
            self.brute.check(found, queries, k, excluded, allowed)

        @invariant()
        def holds_what_brute_force_holds(self) -> None:
            assert len(self.index) == len(self.brute.items)
            assert [item for item in range(-1, 14) if item in self.index] == sorted(
                set(self.brute.items) & {*range(14)}
            )
            assert self.index.sequence == self.changes

    return AnyOrder
