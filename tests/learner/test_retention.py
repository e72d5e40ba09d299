"""Forgetting and backward transfer are what their papers define, over any course of tests."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.probes import Key
from learner.retention import Retention

SHOP, NEWS, VIDEO = (0, 0), (1, 0), (2, 0)


def after_blocks(matrix: list[list[float]], kept: int = 100) -> Retention:
    """Of a model that learns scenarios 0, 1, … one after the other; rows are tests, columns scenarios."""
    retention = Retention(kept)
    for block, row in enumerate(matrix):
        retention.add({(scenario, 0): recall for scenario, recall in enumerate(row)})
        retention.mark_learnt((block, 0))
    return retention


def test_forgetting_is_the_best_before_the_end_less_the_end_and_the_last_block_has_none() -> None:
    retention = after_blocks([[0.5, 0.8, 0.0], [0.9, 0.6, 0.1], [0.2, 0.7, 0.9]])
    assert retention.forgetting() == pytest.approx({SHOP: 0.7, NEWS: 0.1})


def test_backward_transfer_is_the_end_less_what_was_there_right_after_the_own_block() -> None:
    retention = after_blocks([[0.5, 0.8, 0.0], [0.9, 0.6, 0.1], [0.2, 0.7, 0.9]])
    assert retention.backward_transfer() == pytest.approx({SHOP: -0.3, NEWS: 0.1})


def test_one_block_is_neither_forgotten_nor_gained() -> None:
    retention = after_blocks([[0.5]])
    assert (retention.forgetting(), retention.backward_transfer(), retention.latest()) == ({}, {}, {SHOP: 0.5})


def test_what_was_never_learnt_cannot_be_forgotten() -> None:
    retention = Retention()
    retention.add({SHOP: 0.5})
    retention.add({SHOP: 0.1})
    retention.mark_learnt(NEWS)
    assert retention.forgetting() == {}


def test_the_matrix_has_a_row_for_each_window_and_a_hole_where_it_was_not_tested() -> None:
    retention = Retention()
    retention.add({(0, 3): 0.1})
    retention.add({(0, 3): 0.2, (0, 7): 0.3, (1, 3): 0.9})
    retention.add({(0, 7): 0.4})
    assert retention.matrix(0) == [[0.1, 0.2, None], [None, 0.3, 0.4]]
    assert retention.matrix(1) == [[None, 0.9, None]]
    assert retention.matrix(2) == []


def test_a_set_that_is_missing_from_a_test_is_as_it_was() -> None:
    retention = after_blocks([[0.8, 0.1], [0.5, 0.2]])
    retention.add({NEWS: 0.1})
    assert retention.forgetting() == pytest.approx({SHOP: 0.3, NEWS: 0.1})


def test_a_set_that_is_dropped_leaves_no_trace() -> None:
    retention = after_blocks([[0.8, 0.1], [0.5, 0.2], [0.5, 0.2]])
    retention.drop(SHOP)
    assert retention.matrix(0) == []
    assert retention.forgetting() == pytest.approx({NEWS: 0.0})


recalls = st.floats(0, 1, allow_nan=False)
keys = st.tuples(st.integers(0, 2), st.integers(0, 2))
tests = st.lists(st.tuples(st.dictionaries(keys, recalls, min_size=1), st.lists(keys)), max_size=12)
Tests = list[tuple[dict[Key, float], list[Key]]]


def played(course: Tests, kept: int) -> Retention:
    retention = Retention(kept)
    for found, learnt in course:
        retention.add(found)
        for key in learnt:
            retention.mark_learnt(key)
    return retention


@given(tests)
def test_both_measures_are_those_of_the_definitions(course: Tests) -> None:
    retention = played(course, 100)
    forgetting, transfer = {}, {}
    for key in {key for found, _ in course for key in found}:
        own = [(found[key], key in learnt) for found, learnt in course if key in found]
        # A mark that comes while the set is not tested holds for its latest test.
        marks = [
            sum(key in found for found, _ in course[: number + 1]) - 1
            for number, (_, learnt) in enumerate(course)
            if key in learnt
        ]
        marks = [mark for mark in marks if mark >= 0]
        if marks and marks[-1] < len(own) - 1:
            values = [recall for recall, _ in own]
            forgetting[key] = max(values[:-1]) - values[-1]
            transfer[key] = values[-1] - values[marks[-1]]
    assert retention.forgetting() == pytest.approx(forgetting)
    assert retention.backward_transfer() == pytest.approx(transfer)


@given(tests, st.integers(1, 4))
def test_the_measures_do_not_depend_on_how_many_tests_are_kept(course: Tests, kept: int) -> None:
    short, whole = played(course, kept), played(course, 100)
    assert short.forgetting() == whole.forgetting()
    assert short.backward_transfer() == whole.backward_transfer()
    for scenario in range(3):
        for brief, full in zip(short.matrix(scenario), whole.matrix(scenario), strict=True):
            assert brief == full[-kept:]


@given(tests, tests, st.integers(1, 4))
def test_what_was_saved_goes_on_as_if_it_had_never_stopped(before: Tests, after: Tests, kept: int) -> None:
    whole, resumed = played(before, kept), Retention(kept)
    resumed.add({VIDEO: 0.5})
    resumed.load({name: tensor.clone() for name, tensor in whole.state().items()})
    for retention in (whole, resumed):
        for found, learnt in after:
            retention.add(found)
            for key in learnt:
                retention.mark_learnt(key)
    assert resumed.forgetting() == whole.forgetting()
    assert [resumed.matrix(scenario) for scenario in range(3)] == [whole.matrix(scenario) for scenario in range(3)]
    for name, tensor in whole.state().items():
        assert torch.equal(resumed.state()[name].nan_to_num(-1), tensor.nan_to_num(-1))


def test_avalanche_is_loaded_only_when_a_measure_is_asked_for() -> None:
    code = "import sys, learner.stress; sys.exit('avalanche' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
