"""Adam on rows beside torch's own: the same numbers, whatever the table's size."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from learner.moments import RowAdam

ROWS, WIDTH, RATE = 6, 3, 0.1


def gradients(steps: int, rows: int = ROWS) -> Tensor:
    return torch.randn(steps, rows, WIDTH, generator=torch.Generator().manual_seed(0))


def test_where_every_row_moves_it_is_adam() -> None:
    table, parameter = torch.ones(ROWS, WIDTH), torch.nn.Parameter(torch.ones(ROWS, WIDTH))
    rows, reference = RowAdam(table, RATE), torch.optim.Adam([parameter], RATE)
    for gradient in gradients(20):
        rows.step(table, torch.arange(ROWS), gradient)
        parameter.grad = gradient.clone()
        reference.step()
    torch.testing.assert_close(table, parameter.data)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sets(st.integers(0, ROWS - 1), min_size=1), min_size=1, max_size=12))
def test_where_some_rows_move_it_is_sparse_adam(named: list[set[int]]) -> None:
    table, parameter = torch.ones(ROWS, WIDTH), torch.nn.Parameter(torch.ones(ROWS, WIDTH))
    rows, reference = RowAdam(table, RATE), torch.optim.SparseAdam([parameter], RATE)
    for some, gradient in zip(named, gradients(len(named)), strict=False):
        at = torch.tensor(sorted(some))
        rows.step(table, at, gradient[at])
        with torch.sparse.check_sparse_tensor_invariants():
            parameter.grad = torch.sparse_coo_tensor(at[None], gradient[at], parameter.shape).coalesce()
        reference.step()
    torch.testing.assert_close(table, parameter.data, rtol=1e-3, atol=1e-4)  # torch adds epsilon at another place


def test_rows_that_are_not_named_stay_as_they_are() -> None:
    table = torch.ones(ROWS, WIDTH)
    rows = RowAdam(table, RATE)
    for gradient in gradients(3):
        rows.step(table, torch.tensor([1, 4]), gradient[[1, 4]])
    assert (table == 1).all(1).tolist() == [True, False, True, True, False, True]


def test_it_goes_on_in_a_table_that_has_grown() -> None:
    small, large = torch.ones(ROWS, WIDTH), torch.ones(2 * ROWS, WIDTH)
    growing, reference = RowAdam(small, RATE), RowAdam(large, RATE)
    at = torch.arange(ROWS)
    for number, gradient in enumerate(gradients(6)):
        if number == 3:
            small = torch.cat([small, torch.ones(ROWS, WIDTH)])
        growing.step(small, at, gradient)
        reference.step(large, at, gradient)
    assert torch.equal(small, large)


def test_what_is_forgotten_has_no_momentum() -> None:
    table = torch.ones(ROWS, WIDTH)
    rows = RowAdam(table, RATE)
    everywhere = torch.arange(ROWS)
    rows.step(table, everywhere, torch.ones(ROWS, WIDTH))
    rows.forget(table, 2)
    before = table.clone()
    rows.step(table, everywhere, torch.zeros(ROWS, WIDTH))
    assert (table == before).all(1).tolist() == [row == 2 for row in range(ROWS)]


@pytest.mark.parametrize("after", [0, 3])
def test_a_loaded_one_goes_on_as_the_saved_one_does(after: int) -> None:
    table = torch.ones(ROWS, WIDTH)
    saved, loaded = RowAdam(table, RATE), RowAdam(table[:2], RATE)
    at = torch.arange(ROWS)
    for gradient in gradients(after):
        saved.step(table, at, gradient)
    loaded.load(saved.state())
    copy = table.clone()
    for gradient in gradients(4):
        saved.step(table, at, gradient)
        loaded.step(copy, at, gradient)
    assert torch.equal(table, copy)
