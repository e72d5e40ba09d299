"""What the pass over a table must find; `test_scan.py` runs these cases in a process of their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from index.scan import GROUP, group_maxima, scan

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SIZES = [(64, 992, 3), (48, 800, 70), (150, 2016, 5)]


def table(dimension: int, n: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries that float16 keeps as they are, rows and biases, of which each seventh is hidden."""
    generator = torch.Generator().manual_seed(n)
    queries = torch.randn(batch, dimension, generator=generator).half().float()
    rows = torch.randn(n, dimension, generator=generator).half()
    bias = torch.randn(n, generator=generator)
    bias[::7] = -torch.inf
    return queries.to(DEVICE), rows.to(DEVICE), bias.to(DEVICE)


@pytest.mark.parametrize(("dimension", "n", "batch"), SIZES)
def test_each_group_has_the_maximum_of_its_scores(dimension: int, n: int, batch: int) -> None:
    queries, rows, bias = table(dimension, n, batch)
    scores = queries @ rows.float().T + bias
    torch.testing.assert_close(
        group_maxima(queries.half(), rows, bias), scores.view(batch, -1, GROUP).amax(2), atol=1e-3, rtol=1e-5
    )


@pytest.mark.parametrize(("dimension", "n", "batch"), SIZES)
@pytest.mark.parametrize("excluded", [0, 40])
def test_the_best_are_found_and_none_that_is_hidden(dimension: int, n: int, batch: int, excluded: int) -> None:
    queries, rows, bias = table(dimension, n, batch)
    hidden = torch.randint(0, n, (batch, excluded), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    scores = (queries @ rows.float().T + bias).scatter(1, hidden, -torch.inf)
    best, places = torch.topk(scores, 20)
    found, at = scan(queries, rows, bias, 20, hidden)
    torch.testing.assert_close(found, best, atol=1e-3, rtol=1e-5)
    assert torch.equal(at, places)


def test_where_fewer_are_left_the_rest_scores_lowest() -> None:
    queries, rows, bias = table(64, 64, 2)
    bias[3:] = -torch.inf
    found, _ = scan(queries, rows, bias, 10, None)
    assert found.isfinite().sum(1).tolist() == [2, 2]
