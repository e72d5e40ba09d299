"""Probe sets stay as they were held out, and ranking them changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.lessons import Lessons, as_lessons
from learner.online import OnlineLearner
from learner.probes import RANKED_AT_ONCE, Probes
from learner.ranking import Batch
from learner.replay import TrainingBatch, user_hash
from schemas.records import Example
from tests.learner.builders import put, small_learner, small_settings, stream

SHOP, NEWS = (0, 0), (1, 0)
NAMES = [f"item-{number}" for number in range(14)]


def lessons(targets: list[int], testable: list[bool] | None = None, length: int = 3) -> Lessons:
    """Of users who used the row below the target last, and may not be shown it again."""
    target = torch.tensor(targets)
    history = torch.zeros(len(targets), length, dtype=torch.int64)
    history[:, -1] = target - 1
    asked = Batch(history, (history > 0).long(), history[:, -1:].clone(), history[:, :0])
    batch = TrainingBatch(torch.zeros_like(target), history, asked.gaps, target, torch.ones(len(targets)))
    nothing = batch.take(torch.zeros(0, dtype=torch.int64))
    return Lessons(asked, batch, torch.tensor(testable or [True] * len(targets)), nothing)


def next_row(_scenario: int, asked: Batch) -> dict[str, Tensor]:
    """Lists by two oracles: one has the right answer last of ten, the other one place too low."""
    answer = asked.history[:, -1:] + 1
    others = torch.full((len(answer), 9), 10_000)
    return {"knows": torch.cat([others, answer], 1), "too-low": torch.cat([others, others[:, :1], answer], 1)}


def test_recall_is_the_share_of_questions_whose_answer_is_among_the_first_ten() -> None:
    probes = Probes(("shop", "news"))
    probes.hold(SHOP, lessons([2, 5, 9, 11]), [1, 2, 3, 4])
    probes.hold(NEWS, lessons([3]), [1])

    def half_right(scenario: int, asked: Batch) -> dict[str, Tensor]:
        lists = next_row(scenario, asked)["knows"]
        return {"half": lists * (lists > 5)}

    assert probes.test(next_row) == {"knows": {SHOP: 1.0, NEWS: 1.0}, "too-low": {SHOP: 0.0, NEWS: 0.0}}
    assert probes.test(half_right) == {"half": {SHOP: 0.5, NEWS: 0.0}}


def test_large_sets_are_ranked_in_parts_and_counted_whole() -> None:
    probes, sizes = Probes(("shop", "news")), []
    probes.hold(SHOP, lessons(list(range(2, 2 * RANKED_AT_ONCE + 7))), list(range(2 * RANKED_AT_ONCE + 5)))

    def counting(scenario: int, asked: Batch) -> dict[str, Tensor]:
        sizes.append(len(asked.history))
        return next_row(scenario, asked)

    assert probes.test(counting)["knows"] == {SHOP: 1.0}
    assert sizes == [RANKED_AT_ONCE, RANKED_AT_ONCE, 5]


def test_only_what_can_be_a_test_is_held_and_a_set_of_nothing_is_none() -> None:
    probes = Probes(("shop", "news"))
    assert probes.hold(SHOP, lessons([2, 5, 9], [True, False, True]), [1, 2, 3]) == 2
    assert probes.hold(NEWS, lessons([2], [False]), [1]) == 0
    assert (probes.keys, len(probes)) == ([SHOP], 2)
    assert probes.hold(SHOP, lessons([4]), [1]) == 1
    assert (probes.size(SHOP), probes.size(NEWS), len(probes)) == (3, 0, 3)
    probes.drop(SHOP)
    assert (probes.keys, probes.test(next_row)) == ([], {})


questions = st.lists(st.tuples(st.integers(2, 6), st.integers(1, 4)), min_size=1, max_size=20)


def held(asked: list[tuple[int, int]]) -> Probes:
    probes = Probes(("shop", "news"))
    probes.hold(SHOP, lessons([target for target, _ in asked]), [user for _, user in asked])
    return probes


@given(questions, st.integers(1, 4))
def test_a_forgotten_user_has_no_question_left_and_all_others_have_theirs(
    asked: list[tuple[int, int]], user: int
) -> None:
    probes = held(asked)
    left = [one for one in asked if one[1] != user]
    assert probes.forget_user(user) == len(asked) - len(left)
    assert len(probes) == len(left)
    assert probes.forget_user(user) == 0
    if left:
        for name, tensor in held(left).state().items():
            assert torch.equal(probes.state()[name], tensor)


@given(questions, st.integers(1, 6))
def test_a_forgotten_item_is_in_no_question_and_no_answer(asked: list[tuple[int, int]], row: int) -> None:
    probes = held(asked)
    probes.forget_item(row)
    assert len(probes) == sum(target != row for target, _ in asked)
    for name, tensor in probes.state().items():
        field = name.rpartition(".")[2]
        if field in {"history", "excluded", "target"}:
            assert not (tensor == row).any()
        if field == "gaps":
            assert torch.equal(tensor > 0, probes.state()["shop.0.history"] > 0)


@given(questions)
def test_what_was_saved_asks_the_same(asked: list[tuple[int, int]]) -> None:
    probes, loaded = held(asked), Probes(("shop", "news"))
    loaded.hold((1, 2), lessons([2]), [1])
    loaded.load({name: tensor.clone() for name, tensor in probes.state().items()})
    assert loaded.keys == [SHOP]
    assert loaded.test(next_row) == probes.test(next_row)
    assert loaded.forget_user(asked[0][1]) == probes.forget_user(asked[0][1])


def taught(examples: list[Example]) -> OnlineLearner:
    learner = small_learner(small_settings(["shop"], micro_batch=16))
    put(learner, NAMES)
    learner.learn("shop", examples)
    return learner


def test_ranking_the_probes_between_two_lessons_changes_nothing_that_is_learnt() -> None:
    examples = stream(NAMES, 200)
    whole, tested = taught(examples), taught(examples[:96])
    placed = [(each, tested.table.row_of[each.item_id]) for each in examples[:40]]
    probes = Probes(("shop", "news"))
    users = [user_hash(each.user_id) for each, _ in placed]
    probes.hold(SHOP, as_lessons(tested.table, 0, placed, 5), users)
    first = probes.test(lambda scenario, asked: {"served": tested.examiner.rank(scenario, asked).rows})
    again = probes.test(lambda scenario, asked: {"served": tested.examiner.rank(scenario, asked).rows})
    tested.learn("shop", examples[96:])
    assert first == again
    assert 0 < first["served"][SHOP] <= 1
    ours, theirs = tested.versions.republish().weights[0], whole.versions.republish().weights[0]
    assert (ours.tensors, ours.hits, ours.tested, ours.step) == (
        theirs.tensors,
        theirs.hits,
        theirs.tested,
        theirs.step,
    )


def test_ranking_gives_what_the_test_of_the_same_example_gives() -> None:
    examples = stream(NAMES, 128)
    learner = taught(examples[:112])
    asked = as_lessons(learner.table, 0, [(each, learner.table.row_of[each.item_id]) for each in examples[112:]], 5)
    before = learner.examiner.rank(0, asked.asked)
    found = []
    learner.on_exam = found.append
    learner.learn("shop", examples[112:])
    (exam,) = found
    assert exam.ranking is not None
    assert torch.equal(before.rows[exam.tested], exam.ranking.rows)


@pytest.mark.parametrize("window", [0, 12])
def test_windows_of_a_scenario_are_sets_of_their_own(window: int) -> None:
    probes = Probes(("shop", "news"))
    probes.hold((0, 5), lessons([2]), [1])
    probes.hold((0, window), lessons([3, 4]), [1, 2])
    assert probes.keys == sorted([(0, 5), (0, window)])
    assert len(probes) == 3
