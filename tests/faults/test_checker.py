"""The checker sees what is lost and what counts twice."""

from __future__ import annotations

from schemas.packed import pack
from schemas.records import Example
from tests.faults.checker import Findings, history_fault

LENGTH = 3


def example(item: str, *history: str, weight: float = 1.0) -> Example:
    return Example(0, 0, "u", 0.0, "view", item, weight, pack(history), b"", "")


WHOLE = [[example("a")], [example("b", "a")], [example("c", "a", "b")], [example("d", "a", "b", "c")]]


def test_a_history_that_grows_by_each_event_is_whole() -> None:
    assert history_fault(WHOLE, ["b", "c", "d"], LENGTH) is None


def test_an_event_that_left_no_trace_in_the_history_is_seen() -> None:
    without = [WHOLE[0], WHOLE[1], [example("c", "a", "b")], [example("d", "a", "b")]]
    assert history_fault(without, ["a", "b", "d"], LENGTH) is not None


def test_an_event_that_was_applied_twice_is_seen() -> None:
    twice = [WHOLE[0], WHOLE[1], [example("c", "a", "b", "b")]]
    assert history_fault(twice, ["b", "b", "c"], LENGTH) is not None


def test_a_row_that_lags_behind_the_examples_is_seen() -> None:
    assert history_fault(WHOLE, ["a", "b", "c"], LENGTH) is not None


def test_of_an_example_that_was_published_again_one_copy_has_to_fit() -> None:
    again = [WHOLE[0], [example("b"), example("b", "a")], WHOLE[2], WHOLE[3]]
    assert history_fault(again, ["b", "c", "d"], LENGTH) is None


def test_a_dislike_leaves_the_history_and_has_to_have_met_it() -> None:
    met, never = [example("x", "a", weight=-1.0)], [example("x", "z", weight=-1.0)]
    assert history_fault([*WHOLE, met], ["b", "c", "d"], LENGTH) is None
    assert history_fault([*WHOLE, never], ["b", "c", "d"], LENGTH) is not None


def test_fewer_than_wanted_are_lost_and_more_are_duplicated() -> None:
    findings = Findings()
    findings.expect("events", 3, 5)
    findings.expect("events", 6, 5)
    assert (findings.lost, findings.duplicated, len(findings.problems)) == (2, 1, 2)
