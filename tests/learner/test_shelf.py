"""The exact search over a shelf, beside sorting by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from learner.items import ItemTable
from learner.shelf import search_shelf
from tests.learner.builders import assert_near, small_model


@settings(max_examples=60, deadline=None)
@given(
    eligible=st.lists(st.booleans(), min_size=20, max_size=20),
    excluded=st.lists(st.lists(st.integers(0, 25), min_size=3, max_size=3), min_size=2, max_size=2),
    allowed=st.none() | st.lists(st.integers(1, 20), max_size=20),
    k=st.integers(1, 30),
)
def test_it_finds_the_best_of_what_is_permitted(
    eligible: list[bool], excluded: list[list[int]], allowed: list[int] | None, k: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    table = ItemTable(("shop",), small_model())
    for number, shown in enumerate(eligible):
        row = table.add(f"item-{number}")
        table.vectors[row] = torch.randn(8, generator=generator)
        table.bias[0, row] = torch.randn((), generator=generator)
        table.set_eligible(f"item-{number}", ["shop"] if shown else [])
    queries = torch.randn(2, 8, generator=generator)
    among = None if allowed is None else torch.tensor(allowed, dtype=torch.long)
    ids, scores = search_shelf(table, 0)(queries, k, torch.tensor(excluded), among)
    everything = queries @ table.vectors.T + table.bias[0]
    for user in range(2):
        permitted = [row for row in range(1, 21) if eligible[row - 1] and row not in excluded[user]]
        permitted = [row for row in permitted if allowed is None or row in allowed]
        best = sorted(permitted, key=lambda row: -float(everything[user, row]))[:k]
        assert [row for row in ids[user].tolist() if row] == best
        assert_near(scores[user, : len(best)], everything[user, best])
        assert (scores[user, len(best) :] == -torch.inf).all()
