"""The online learner: each example once, and tested before it teaches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from learner.exam import Exam
from learner.online import OnlineLearner
from learner.ranking import Question, as_batch
from schemas.items import Item
from schemas.packed import unpack
from tests.learner.builders import (
    CPU,
    NAMES,
    START,
    everything,
    example,
    put,
    random_texts,
    small_learner,
    small_settings,
    started,
    stream,
    top,
)

# Test, then train


def test_each_example_is_tested_on_what_was_known_before_it() -> None:
    learner = small_learner(small_settings(micro_batch=1))
    put(learner, NAMES)
    expected = []
    for each in stream(NAMES, 20):
        expected.append(each.item_id in top(learner, unpack(each.history), unpack(each.excluded), each.time))
        learner.learn("shop", [each])
    assert 0 < sum(expected) < 20
    assert learner.run.recall == {"shop": sum(expected) / 20, "news": None}


def test_a_micro_batch_is_tested_whole_before_any_of_it_is_learnt() -> None:
    learner = small_learner(small_settings(micro_batch=8))
    put(learner, NAMES)
    # Nothing tells these items apart but the batch itself.
    unlucky = top(learner, [], [], START)
    target = next(name for name in NAMES if name not in unlucky)
    learner.learn("shop", [example(target, offset=offset, user=f"user-{offset}") for offset in range(8)])
    assert learner.run.recall["shop"] == 0.0
    assert target in top(learner, [], [], START)


def test_even_users_are_given_even_items() -> None:
    wide = {"neighbours": 16, "covisited_candidates": 16, "neural_candidates": 30}
    learner = small_learner(small_settings(model=wide, learning_rate=0.01))
    put(learner, NAMES, torch.zeros(len(NAMES), 12))
    even, odd = NAMES[::2], NAMES[1::2]
    walks = zip(stream(even, 200), stream(odd, 200, seed=1), strict=True)
    examples = [walk for pair in walks for walk in pair]
    for number, walk in enumerate(examples):
        walk.offset = number
    learner.learn("shop", examples)
    for group in (even, odd):
        shown = top(learner, group[:4], group[:4], START + 600)
        assert len(set(shown) & set(group)) >= 9
    assert (learner.run.recall["shop"] or 0) > 0.6  # 10 of 25 would be chance


@pytest.mark.parametrize("why", ["repeat", "not yet an item", "hidden", "dislike", "of another scenario"])
def test_what_could_not_have_been_shown_is_no_test(why: str) -> None:
    learner = started(0)
    learner.put_items([Item(item_id="hidden", hidden=True), Item(item_id="news", scenarios=("news",))], random_texts(2))
    each = {
        "repeat": example("item-3", ["item-3", "item-4"], offset=1),
        "not yet an item": example("stranger", offset=1),
        "hidden": example("hidden", offset=1),
        "dislike": example("item-3", offset=1, weight=-1.0),
        "of another scenario": example("news", offset=1),
    }[why]
    assert learner.learn("shop", [each]) == 1
    assert learner.run.recall["shop"] is None
    assert learner.run.examples == {"shop": 1, "news": 0}
    assert learner.run.step == 1
    popular = learner.table.popularity.events[learner.table.rows([each.item_id])[0]]
    assert popular == (0 if why == "dislike" else 1)


def test_an_excluded_item_is_not_among_what_is_tested() -> None:
    settings = small_settings(micro_batch=1)
    learner = small_learner(settings)
    put(learner, NAMES[:11])
    # Ten of eleven are excluded or the target itself, so the target must be found.
    learner.learn("shop", [example("item-0", excluded=NAMES[1:11], offset=0)])
    assert learner.run.recall["shop"] == 1.0


def test_an_examination_finds_what_learning_would_and_changes_nothing(tmp_path: Path) -> None:
    learner = started(40)
    examples = [*stream(NAMES, 8, seed=2, first=40)[:7], example("stranger", offset=99)]
    before = everything(learner, tmp_path / "before")
    exam = learner.examiner.examine("shop", examples)
    assert learner.examiner.examine("shop", [examples[-1]]) is None
    after = everything(learner, tmp_path / "after")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    told: list[Exam] = []
    learner.on_exam = told.append
    learner.learn("shop", examples[:7])
    assert exam is not None and exam.ranking is not None and told[0].ranking is not None
    assert torch.equal(exam.ranking.rows, told[0].ranking.rows)
    assert list(exam.examples) == examples[:7]


# Each example once


def test_an_example_that_comes_twice_counts_once(tmp_path: Path) -> None:
    learner, examples = started(0), stream(NAMES, 20)
    assert learner.learn("shop", examples) == 20
    before = everything(learner, tmp_path / "before")
    assert learner.learn("shop", examples[5:]) == 0
    assert learner.learn("shop", [examples[3], example("item-1", offset=20), example("item-1", offset=20)]) == 1
    assert learner.run.examples["shop"] == 21
    assert learner.learn("shop", []) == 0
    assert any(not torch.equal(before[name], tensor) for name, tensor in everything(learner, tmp_path / "2").items())


def test_a_replayed_call_leaves_every_bit_as_it_was(tmp_path: Path) -> None:
    learner, examples = started(0), stream(NAMES, 20)
    learner.learn("shop", examples)
    before = everything(learner, tmp_path / "before")
    learner.learn("shop", examples)
    after = everything(learner, tmp_path / "after")
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_partitions_and_scenarios_have_watermarks_of_their_own() -> None:
    learner = started(0)
    assert learner.learn("shop", [example("item-1", offset=5), example("item-2", offset=5, partition=1)]) == 2
    assert learner.learn("news", [example("item-1", offset=5)]) == 1
    assert learner.learn("shop", [example("item-1", offset=4), example("item-1", offset=4, partition=2)]) == 1
    (shop, news) = learner.versions.republish().weights
    assert shop.trained_through == {
        "headstream.events.shop:0": 5,
        "headstream.events.shop:1": 5,
        "headstream.events.shop:2": 4,
    }
    assert news.trained_through == {"headstream.events.news:0": 5}


# Items


def test_a_new_item_can_be_recommended_from_its_text_alone() -> None:
    learner = started(20)
    text = random_texts(len(NAMES))[:1]  # that of item-0
    (record,) = learner.put_items([Item(item_id="twin")], text)
    assert record.fresh and record.events == 0
    assert "twin" in top(learner, ["item-0"], ["item-0"], START + 100)


def test_an_item_used_before_it_is_announced_is_put_where_its_behaviour_is() -> None:
    learner = started(0)
    learner.learn("shop", [example("late", ["item-1"], offset=0), example("item-2", ["late"], offset=1)])
    row = learner.table.rows(["late"])[0]
    assert row and not learner.table.eligible[:, row].any()
    (record,) = learner.put_items([Item(item_id="late")], random_texts(1, seed=4))
    assert (record.row, record.events) == (row, 1)
    assert learner.table.eligible[:, row].all()


def test_items_are_eligible_where_they_say() -> None:
    learner = small_learner()
    items = [
        Item(item_id="all"),
        Item(item_id="news", scenarios=("news",)),
        Item(item_id="none", scenarios=()),
        Item(item_id="hidden", hidden=True),
    ]
    assert len(learner.put_items(items, random_texts(4))) == 4
    assert learner.table.eligible[:, 1:5].T.tolist() == [[True, True], [False, True], [False, False], [False, False]]
    learner.put_items([Item(item_id="hidden")], random_texts(1))
    assert learner.table.eligible[:, 4].all()


def test_the_last_word_on_an_item_counts() -> None:
    learner = small_learner()
    records = learner.put_items([Item(item_id="a"), Item(item_id="a", hidden=True)], random_texts(2))
    assert len(records) == 1
    assert not learner.table.eligible[:, 1].any()
    assert learner.put_items([], random_texts(0)) == []


def test_a_removed_item_is_recommended_no_more_and_its_row_is_clean() -> None:
    learner = started(60)
    row = learner.table.rows(["item-3"])[0]
    assert learner.remove_item("item-3")
    assert not learner.remove_item("item-3")
    assert "item-3" not in top(learner, ["item-1"], [], START + 100)
    (record,) = learner.put_items([Item(item_id="heir")], torch.zeros(1, 12))
    assert record.row == row and record.events == 0
    learner.learn("shop", stream(NAMES[4:], 30, seed=3, first=100))
    assert learner.table.vectors[row].abs().sum() == 0


def test_those_that_knew_a_removed_item_are_told_anew() -> None:
    learner = started(60)
    row = learner.table.rows(["item-3"])[0]
    knew = {learner.table.id_of[other] for other in learner.table.covisitation.naming(row).tolist()}
    assert knew
    learner.versions.publish()
    learner.remove_item("item-3")
    publication = learner.versions.publish()
    assert publication is not None
    assert {record.item_id for record in publication.vectors} == knew
    for record in publication.vectors:
        assert row not in np.frombuffer(record.neighbours, "<i4")


def test_a_full_table_leaves_items_out_and_goes_on() -> None:
    learner = small_learner(small_settings(model={"items": 5}))
    put(learner, NAMES[:8])
    assert learner.run.left_out == 3
    assert learner.learn("shop", [example("item-0", offset=0), example("stranger", ["item-0"], offset=1)]) == 2
    assert learner.run.left_out == 4
    assert learner.run.examples["shop"] == 2
    assert learner.learn("shop", [example("stranger", offset=1)]) == 0
    assert learner.learn("shop", [example("stranger", offset=2)]) == 1


def test_a_dislike_turns_the_ranking_away() -> None:
    liked, disliked = started(0), started(0)
    for learner, weight in ((liked, 1.0), (disliked, -1.0)):
        examples = [example("item-3", ["item-1"], offset=offset, weight=weight, excluded=[]) for offset in range(40)]
        learner.learn("shop", examples)
    assert top(liked, ["item-1"], [], START + 100)[0] == "item-3"
    assert "item-3" not in top(disliked, ["item-1"], [], START + 100)


def test_what_is_passed_over_falls_where_the_scenario_learns_from_that() -> None:
    fallen = []
    for impressions in (0.0, 1.0):
        settings = small_settings(learning_rate=0.01, replay_batch=0)
        learns = msgspec.structs.replace(settings.scenarios["shop"], impressions=impressions)
        learner = started(40, msgspec.structs.replace(settings, scenarios={**settings.scenarios, "shop": learns}))
        uses = learner.table.popularity.events.clone()
        chosen = [
            example("item-3", ["item-1"], offset=100 + number, user=f"user-{number}", passed_over=["item-4", "gone"])
            for number in range(60)
        ]
        before = neural(learner, "item-4", ["item-1"])
        learner.learn("shop", chosen)
        fallen.append(before - neural(learner, "item-4", ["item-1"]))
        assert learner.run.examples["shop"] == 100
        used = (learner.table.popularity.events > uses).nonzero().flatten().tolist()
        assert used == [learner.table.row_of["item-3"]]  # to be passed over is no use
        assert learner._replay.filled(0) == 40
        assert (learner._replay.sample(200, torch.Generator()).weight > 0).all()  # learnt from once, and not replayed
    assert fallen[1] > fallen[0] + 0.2


def neural(learner: OnlineLearner, item: str, history: Sequence[str]) -> float:
    """The tower's own score of an item of the shop."""
    batch = as_batch([Question(learner.table.rows(history), [START] * len(history), START, [])], 5, CPU)
    query = learner._models[0].query(learner.table.vectors[batch.history], batch.history > 0, batch.gaps)[0]
    row = learner.table.row_of[item]
    return float(query.detach() @ learner.table.vectors[row] + learner.table.bias[0, row])


def test_a_loss_that_is_not_finite_is_counted_and_changes_no_weight() -> None:
    learner = started(10)
    before = learner.table.vectors.clone()
    step = learner.run.step
    assert learner.learn("shop", [example("item-1", offset=50, weight=math.inf)]) == 1
    assert (learner.run.skipped_steps, learner.run.step) == (1, step)
    assert torch.equal(learner.table.vectors, before)
    # It is not replayed either.
    learner.learn("shop", [example("item-1", offset=offset) for offset in range(51, 151)])
    assert (learner.run.skipped_steps, learner.run.step) == (1, step + 13)
    assert learner.table.vectors.isfinite().all()


def test_a_forgotten_user_is_in_no_replay_row() -> None:
    learner = started(40)
    rows = learner.forget_user("user-3")
    assert rows.replay > 0
    assert learner.forget_user("user-3") == (0, 0)
