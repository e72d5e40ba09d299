"""The examiner: tests as serving would have ranked, before anything learns from it, and changes nothing by that."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.lessons import as_lessons
from learner.online import OnlineLearner
from learner.outcomes import DEPTH
from learner.ranking import Ranking, Search
from schemas.records import Example
from tests.learner.builders import NAMES, example, put, small_learner, started, stream


def state(learner: OnlineLearner) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in learner.remember().tensors.items()}


def names_of(learner: OnlineLearner, ranking: Ranking) -> list[list[str | None]]:
    return [[learner.table.id_of[row] for row in rows if row] for rows in ranking.rows.tolist()]


def test_an_exam_changes_neither_what_is_learnt_nor_what_is_counted() -> None:
    learner = started()
    before, progress = state(learner), repr(learner.run.progress)
    assert learner.examiner.examine("shop", stream(NAMES, 12, seed=5, first=100)) is not None
    after = state(learner)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert repr(learner.run.progress) == progress


def test_the_same_questions_have_the_same_answers() -> None:
    learner = started()
    asked = stream(NAMES, 12, seed=5, first=100)
    first, second = (learner.examiner.examine("shop", asked) for _ in range(2))
    assert first is not None and second is not None
    assert first.ranking is not None and second.ranking is not None
    assert torch.equal(first.ranking.rows, second.ranking.rows)


def test_of_items_that_are_not_known_there_is_no_exam() -> None:
    learner = started()
    assert learner.examiner.examine("shop", [example("nowhere", NAMES[:2], offset=100)]) is None
    exam = learner.examiner.examine("shop", [example("nowhere", offset=100), example(NAMES[7], NAMES[:2], offset=101)])
    assert exam is not None
    assert [each.item_id for each in exam.examples] == [NAMES[7]]


def test_what_could_not_have_been_shown_is_no_test() -> None:
    """A dislike wants no item at all, and what the user had already was left out of every list."""
    learner = started()
    dislike = example(NAMES[3], NAMES[:2], offset=100, weight=-1.0)
    again = example(NAMES[1], NAMES[:2], offset=101)
    fair = example(NAMES[7], NAMES[:2], offset=102)
    exam = learner.examiner.examine("shop", [dislike, again, fair])
    assert exam is not None
    assert exam.tested.tolist() == [2]
    none = learner.examiner.examine("shop", [dislike])
    assert none is not None
    assert (none.tested.tolist(), none.ranking) == ([], None)


def test_a_list_holds_only_what_the_scenario_may_recommend_and_the_user_has_not_had() -> None:
    learner = small_learner()
    put(learner, NAMES[:20], scenarios=("shop",))
    put(learner, NAMES[20:], scenarios=("news",))
    learner.learn("shop", stream(NAMES[:20], 40))
    exam = learner.examiner.examine("shop", [example(NAMES[9], NAMES[:3], offset=100)])
    assert exam is not None and exam.ranking is not None
    (shown,) = names_of(learner, exam.ranking)
    assert set(shown) <= set(NAMES[3:20])
    assert len(shown) >= DEPTH


def test_a_test_is_noted_as_a_hit_where_its_item_is_among_the_first_ten() -> None:
    learner = started()
    asked: list[Example] = stream(NAMES, 30, seed=5, first=100)
    exam = learner.examiner.examine("shop", asked)
    assert exam is not None and exam.ranking is not None
    found = names_of(learner, exam.ranking)
    hits = [asked[place].item_id in names[:DEPTH] for place, names in zip(exam.tested.tolist(), found, strict=True)]
    shop = learner.run.progress["shop"]
    tested, before = shop.tested, shop.hits
    placed = list(zip(asked, learner.table.rows([each.item_id for each in asked]), strict=True))
    lessons = as_lessons(learner.table, 0, placed, 5)
    learner.examiner.test(0, lessons)
    assert (shop.tested - tested, shop.hits - before) == (len(hits), sum(hits))
    assert shop.recent[-len(hits) :] == [int(hit) for hit in hits]
    assert 0 < sum(hits) < len(hits)


def test_it_looks_for_items_where_it_is_told_to() -> None:
    learner = started()
    exam = learner.examiner.examine("shop", [example(NAMES[9], NAMES[:3], offset=100)])
    assert exam is not None and exam.ranking is not None
    asked: list[int] = []
    whole = learner.examiner.search_of

    def search_of(number: int) -> Search:
        asked.append(number)
        return whole(number)

    learner.examiner.search_of = search_of
    again = learner.examiner.examine("shop", [example(NAMES[9], NAMES[:3], offset=100)])
    assert again is not None and again.ranking is not None
    assert asked == [0]
    assert torch.equal(again.ranking.rows, exam.ranking.rows)
