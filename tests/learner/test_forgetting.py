"""The forgetting matrix is bounded, whatever comes, and says how well each window of the past is still known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.forgetting import COLUMNS, Course
from learner.online import OnlineLearner
from tests.learner.builders import NAMES, START, everything, put, small_learner, small_settings, stream

SETTINGS = small_settings(probe_share=0.5, probe_rows=6, probe_window=40, probe_windows=4)


def taught(count: int = 600) -> OnlineLearner:
    learner = small_learner(SETTINGS)
    put(learner, NAMES)
    for start in range(0, count, 60):
        learner.learn("shop", stream(NAMES, 60, seed=start, first=start))
        learner.hold_out.test(START + start)
    return learner


def walked(pieces: list[int], length: int) -> dict[int, int]:
    """Examples of each window."""
    course, found = Course(), dict[int, int]()
    for examples in pieces:
        for here in course.stretches(examples, length):
            found[course.present] = found.get(course.present, 0) + here
    return found


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 30))
def test_windows_are_as_long_as_each_other_however_the_stream_is_cut(pieces: list[int], length: int) -> None:
    whole = walked([sum(pieces)], length)
    assert walked(pieces, length) == whole
    assert all(size == length for size in list(whole.values())[:-1])


def test_windows_follow_each_other_and_are_never_too_many() -> None:
    learner = taught()
    course = learner.forgetting.courses["shop"]
    assert course.present == 600 // 40 - 1
    assert len(course.windows) == SETTINGS.learn.probe_windows
    assert [window for _, window in learner.probes.keys] == course.windows
    assert all(learner.probes.size((0, window)) <= SETTINGS.learn.probe_rows for window in course.windows)
    assert learner.forgetting.courses["news"].windows == []


def test_what_is_old_spans_more() -> None:
    cells = taught().forgetting.courses["shop"].cells()
    spans = {cell.window: cell.ended_at - cell.began_at for cell in cells}
    assert spans[min(spans)] > 2 * spans[max(spans)]
    began = [min(cell.began_at for cell in cells if cell.window == window) for window in sorted(spans)]
    assert began == sorted(began)


def test_no_window_holds_what_was_learnt() -> None:
    learner, learnt = small_learner(SETTINGS), set()
    put(learner, NAMES)
    learner.on_exam = lambda exam: learnt.update(example.offset for example in exam.examples)
    examples = stream(NAMES, 600)
    learner.learn("shop", examples)
    held = {each.offset for each in examples} - learnt
    assert len(learnt) + len(held) == 600
    # Six of each of fifteen windows: all that is held out, and nothing twice, though only four windows are left.
    assert len(held) == 6 * 15


def test_each_test_is_a_column_and_changes_nothing(tmp_path: Path) -> None:
    learner = taught(300)
    before = everything(learner, tmp_path / "1")
    assert learner.hold_out.test(START + 1000) == "shop"
    after = everything(learner, tmp_path / "2")
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {name.split("/")[0] for name in changed} == {"forgetting"}
    newest = [cell for cell in learner.forgetting.courses["shop"].cells() if cell.at == START + 1000]
    found = learner.probes.test(lambda number, asked: {"served": learner.examiner.rank(number, asked).rows})["served"]
    assert {(0, cell.window): cell.recall for cell in newest} == found


def test_scenarios_take_turns() -> None:
    learner = small_learner(SETTINGS)
    put(learner, NAMES)
    assert learner.hold_out.test(START) is None
    learner.learn("shop", stream(NAMES, 100))
    learner.learn("news", stream(NAMES, 100, seed=1))
    assert [learner.hold_out.test(START + second) for second in range(4)] == ["news", "shop", "news", "shop"]


def test_a_matrix_grows_no_further_and_keeps_its_beginning() -> None:
    course = Course()
    for at in range(10 * COLUMNS):
        course.add(float(at), {0: 0.5}, {0: 10})
    kept = [cell.at for cell in course.cells()]
    assert COLUMNS // 2 <= len(kept) <= COLUMNS
    assert (kept[0], kept[-1]) == (0, 10 * COLUMNS - 1)
    assert kept == sorted(set(kept))


def test_what_was_forgotten_is_told_by_avalanches_measures() -> None:
    course = Course()
    list(course.stretches(10, 10))
    course.add(1.0, {0: 0.8}, {0: 10})
    list(course.stretches(5, 10))
    course.add(2.0, {0: 0.9, 1: 0.4}, {0: 10, 1: 5})
    course.add(3.0, {0: 0.6, 1: 0.5}, {0: 10, 1: 10})
    assert (course.forgetting(), course.backward_transfer()) == pytest.approx((0.3, -0.2))


def test_neighbours_that_become_one_are_known_as_well_as_both_in_the_mean() -> None:
    course = Course()
    for window in range(3):
        course.present = window
        course.hold([float(window)])
        course.add(float(window), dict.fromkeys(range(window + 1), 0.2 + 0.2 * window), {0: 10, 1: 30, 2: 5})
    assert course.neighbours() == (0, 1)
    course.merge(0, 1)
    cells = [(cell.window, cell.at, cell.began_at, cell.ended_at, round(cell.recall, 6)) for cell in course.cells()]
    assert cells == [
        (0, 0, 0.0, 1.0, 0.2),
        (0, 1, 0.0, 1.0, 0.4),
        (0, 2, 0.0, 1.0, 0.6),
        (2, 2, 2.0, 2.0, 0.6),
    ]
    course.present = 3
    course.add(3.0, {0: 0.1, 2: 0.5}, {0: 10, 2: 5})
    # The best of the merged: a quarter of .4 and three of .4; it was learnt at .2 and at .4.
    assert course.forgetting() == pytest.approx((0.5 + 0.1) / 2)
    assert course.backward_transfer() == pytest.approx(((0.1 - 0.35) + (0.5 - 0.6)) / 2)


def test_a_window_of_whom_all_is_erased_is_gone() -> None:
    learner = taught(100)
    for number in range(8):
        learner.forget_user(f"user-{number}")
    assert learner.hold_out.test(START + 5000) is None
    learner.learn("shop", stream(NAMES, 60, seed=9, first=1000))
    learner.hold_out.test(START + 6000)
    course = learner.forgetting.courses["shop"]
    assert course.windows == [window for _, window in learner.probes.keys]
    assert {cell.window for cell in course.cells()} == set(course.windows)


def test_the_matrix_survives_a_restart_and_goes_on(tmp_path: Path) -> None:
    learner = taught(300)
    learner.save(tmp_path / "1", {})
    other = small_learner(SETTINGS)
    other.restore(tmp_path / "1")
    for each in (learner, other):
        each.learn("shop", stream(NAMES, 200, seed=77, first=300))
        each.hold_out.test(START + 900)
    ours, theirs = (each.forgetting.courses["shop"] for each in (learner, other))
    assert ours.cells() == theirs.cells() != []
    assert (ours.present, ours.seen) == (theirs.present, theirs.seen)
    first, second = everything(learner, tmp_path / "2"), everything(other, tmp_path / "3")
    assert all(torch.equal(tensor.nan_to_num(), second[name].nan_to_num()) for name, tensor in first.items())


def test_scenarios_that_stay_keep_their_matrix_under_another_number(tmp_path: Path) -> None:
    learner = taught(300)
    learner.save(tmp_path / "1", {})
    other = small_learner(small_settings(("news", "shop"), probe_share=0.5, probe_rows=6, probe_window=40))
    other.restore(tmp_path / "1")
    assert other.forgetting.courses["shop"].cells() == learner.forgetting.courses["shop"].cells()
    assert other.forgetting.courses["news"].cells() == []
