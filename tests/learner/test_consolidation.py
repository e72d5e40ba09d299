"""Consolidation: what is shared learns from replay alone, and texts learn from behaviour."""

from __future__ import annotations

from pathlib import Path

import torch

from learner.consolidation import EPOCHS
from learner.online import OnlineLearner
from learner.outcomes import COLD_USES
from tests.learner.builders import NAMES, put, random_texts, small_learner, started, stream


def consolidated(learner: OnlineLearner) -> OnlineLearner:
    under_way = learner.consolidate()
    while not learner.advance_consolidation(under_way, 3):
        pass
    return learner


def test_each_remembered_example_is_met_so_often_in_the_mean() -> None:
    learner = started(200)
    under_way = learner.consolidate()
    rows, size = len(learner._replay), 16
    assert (under_way.steps - 1) * size < EPOCHS * rows <= under_way.steps * size
    before = learner.run.step
    consolidated(learner)
    assert learner.run.step - before == under_way.steps
    assert learner.generation == 1


def test_heads_biases_and_counters_stand_still_and_the_trunk_moves() -> None:
    learner = started(200)
    before = learner.remember().tensors
    after = consolidated(learner).remember().tensors
    for name in before:
        if name.startswith(("trainer/tower.heads", "mixer/", "replay/", "table/bias", "table/popularity")):
            assert torch.equal(before[name], after[name]), name
    assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith("trainer/tower.trunk"))


def test_items_in_use_stay_where_behaviour_put_them_and_unused_ones_follow_the_texts() -> None:
    learner = started(300)
    put(learner, ["late", "later"], random_texts(2, seed=8))
    late, used = learner.table.rows(["late", "later"]), learner.table.popularity.events >= COLD_USES
    under_way = learner.consolidate()
    under_way.advance(under_way.steps)
    vectors, texts = learner.table.vectors.clone(), learner._texts.projected(torch.tensor(late))
    moved = under_way.finish()
    assert torch.equal(learner.table.vectors[used], vectors[used])
    assert set(late) <= set(moved.tolist())
    turned = texts @ learner._projection.turn.T
    assert torch.allclose(learner.table.vectors[late], vectors[late] + turned - texts, atol=1e-5)


def test_a_turn_that_behaviour_gave_all_texts_is_found_and_given_to_new_ones() -> None:
    """Items whose behaviour stretches one direction of their texts: a new item is placed where that leads."""
    learner = started(0)
    names = [f"n{number}" for number in range(3000)]
    put(learner, names, random_texts(3000, seed=1))
    stretch = torch.eye(8)
    stretch[0, 0] = 1.5
    rows = torch.tensor(learner.table.rows([*NAMES, *names]))
    learner.table.vectors[rows] = learner._texts.projected(rows) @ stretch.T
    learner.table.popularity.events[rows] = COLD_USES
    consolidated(learner)
    assert torch.allclose(learner._projection.turn, stretch, atol=0.05)
    put(learner, ["new"], random_texts(1, seed=2))
    (new,) = learner.table.rows(["new"])
    plain = started(0)
    put(plain, ["new"], random_texts(1, seed=2))
    (same,) = plain.table.rows(["new"])
    expected = plain.table.vectors[same] @ stretch.T
    assert torch.allclose(learner.table.vectors[new], expected, atol=0.3)


def test_nothing_remembered_gives_a_new_generation_all_the_same() -> None:
    learner = small_learner()
    put(learner, NAMES)
    vectors = learner.table.vectors.clone()
    assert consolidated(learner).generation == 1
    assert torch.equal(learner.table.vectors, vectors)


def test_a_rollback_to_before_a_consolidation_brings_the_vectors_of_then() -> None:
    learner = started(200)
    version = learner.versions.promote("shop")
    kept = learner.remember()
    consolidated(learner)
    learner.learn("shop", stream(NAMES, 40, seed=5, first=500))
    learner.versions.roll_back("shop", kept, version, learning=True)
    own = learner.table.own(0)
    assert torch.equal(learner.table.vectors[own], kept.tensors["table/vectors"][own])


def test_a_consolidated_learner_restores_to_the_bit(tmp_path: Path) -> None:
    learner = consolidated(started(100))
    sha256 = learner.save(tmp_path / "a", {})
    again = small_learner()
    again.restore(tmp_path / "a")
    assert again.generation == 1
    assert again.save(tmp_path / "b", {}) == sha256
