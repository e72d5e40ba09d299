"""The forgetting matrix: what was once known better, at a glance, however often it was tested."""

from __future__ import annotations

import pytest

from schemas.tables import ProbeRecall
from streams.gateway.matrix import MOST_COLUMNS, matrix_of


def cell(window: int, at: int, recall: float) -> ProbeRecall:
    return ProbeRecall(
        scenario="shop", window=window, at=at, began_at=window * 10.0, ended_at=window * 10.0 + 10, size=50,
        recall=recall,
    )  # fmt: skip


def test_a_cell_that_was_not_tested_is_empty() -> None:
    matrix = matrix_of([cell(0, 1, 0.3), cell(0, 2, 0.2), cell(1, 2, 0.4)])
    assert [[each and each.recall for each in row.cells] for row in matrix.rows] == [[0.3, 0.2], [None, 0.4]]


def test_forgetting_is_how_far_older_sets_lie_under_their_best() -> None:
    matrix = matrix_of([cell(0, 1, 0.3), cell(0, 2, 0.2), cell(1, 2, 0.4)])
    assert matrix.forgetting == pytest.approx(0.1)
    assert matrix.most_forgotten is not None and matrix.most_forgotten.window == 0
    assert matrix_of([cell(0, 1, 0.3)]).forgetting is None
    assert matrix_of([]).rows == []


def test_of_many_tests_few_are_shown_and_the_newest_always_but_none_is_left_out_of_the_best() -> None:
    cells = [cell(0, at, 0.9 if at == 7 else 0.3) for at in range(500)]
    matrix = matrix_of(cells)
    assert len(matrix.times) == MOST_COLUMNS and matrix.times[-1] == 499
    assert matrix.rows[0].best == 0.9
    assert matrix.rows[0].cells[-1] is not None and matrix.rows[0].cells[-1].lost


def test_what_is_a_little_worse_is_not_called_forgotten() -> None:
    matrix = matrix_of([cell(0, 1, 0.30), cell(0, 2, 0.28), cell(1, 2, 0.3)])
    assert matrix.most_forgotten is None
