"""The best of many scores."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings

from index.blocks import top_k


@settings(max_examples=150, deadline=None)
@given(
    batch=st.integers(1, 4),
    n=st.integers(1, 3000),
    share=st.floats(0, 1),
    values=st.integers(1, 1000),
    hidden=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_block_wise_top_k_gives_what_a_sort_gives(
    batch: int, n: int, share: float, values: int, hidden: float, seed: int
) -> None:
    k = max(1, int(n * share**4))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-values, values, (batch, n), generator=generator).float()
    scores[torch.rand(batch, n, generator=generator) < hidden] = -torch.inf
    best, columns = top_k(scores, k)
    assert torch.equal(best, scores.sort(1, descending=True).values[:, :k])
    assert torch.equal(scores.gather(1, columns), best)
    assert all(len(set(row)) == k for row in columns.tolist())
