"""Scenarios that come and go while learning goes on."""

from __future__ import annotations

from pathlib import Path

import torch

from learner.facts import Facts
from learner.online import OnlineLearner
from learner.scenarios import carry_over
from tests.learner.builders import NAMES, everything, put, small_learner, small_settings, stream


def taught() -> OnlineLearner:
    """A learner of the shop and the news that has learnt from both."""
    learner = small_learner(small_settings(("shop", "news")))
    put(learner, NAMES)
    learner.learn("shop", stream(NAMES, 60))
    learner.learn("news", stream(NAMES, 30, seed=1))
    return learner


def resumed(folder: Path, *scenarios: str) -> tuple[OnlineLearner, Facts]:
    learner = small_learner(small_settings(scenarios))
    return learner, learner.restore(folder)


def own(learner: OnlineLearner, folder: Path, scenario: str) -> dict[str, torch.Tensor]:
    """All that the learner holds of one scenario alone."""
    number = learner.table.scenarios.index(scenario)
    tensors, divided = everything(learner, folder), learner._parts.by_scenario()
    return {name: tensors[name].select(dimension, number) for name, dimension in divided.items() if name in tensors}


def test_a_scenario_that_stays_keeps_all_that_was_learnt_of_it(tmp_path: Path) -> None:
    before = taught()
    expected = own(before, tmp_path / "1", "news")
    after, facts = resumed(tmp_path / "1", "travel", "news")
    assert facts.new(["travel", "news"]) == ["travel"]
    found = own(after, tmp_path / "2", "news")
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(tensor, found[name])] == []
    assert after.run.recall == {"travel": None, "news": before.run.recall["news"]}
    assert (after.run.examples, after.run.step, after.run.lineage) == (
        {"travel": 0, "news": 30},
        before.run.step,
        before.run.lineage,
    )


def test_a_new_scenario_begins_as_if_there_had_been_no_other(tmp_path: Path) -> None:
    taught().save(tmp_path / "1", {})
    after, _ = resumed(tmp_path / "1", "shop", "news", "travel")
    blank = own(small_learner(small_settings(("shop", "news", "travel"))), tmp_path / "blank", "travel")
    found = own(after, tmp_path / "2", "travel")
    for name, tensor in blank.items():
        same = found[name] if found[name].shape == tensor.shape else found[name][..., : tensor.shape[-1]]
        assert torch.equal(same, tensor), name
    assert not after.table.eligible[2].any()


def test_a_new_scenario_learns_beside_the_old_ones(tmp_path: Path) -> None:
    taught().save(tmp_path / "1", {})
    after, _ = resumed(tmp_path / "1", "travel", "shop", "news")
    put(after, NAMES)
    assert after.learn("travel", stream(NAMES, 40, seed=2)) == 40
    assert after.learn("shop", stream(NAMES, 20, seed=3, first=60)) == 20
    assert after.learn("shop", stream(NAMES, 60)) == 0  # learnt before the scenarios changed
    assert after._replay.filled(0) == 40
    assert all(publication.tensors for publication in after.versions.republish().weights)


def test_of_a_scenario_that_is_gone_nothing_stays(tmp_path: Path) -> None:
    taught().save(tmp_path / "1", {})
    resumed(tmp_path / "1", "news")[0].save(tmp_path / "2", {})
    again, facts = resumed(tmp_path / "2", "shop", "news")
    assert facts.new(["shop", "news"]) == ["shop"]
    assert (again.run.examples["shop"], again._replay.filled(0), len(again.table.popularity.used(0))) == (0, 0, 0)
    assert again.table.bias[0].abs().sum() == 0


def test_scenarios_in_another_order_learn_the_same(tmp_path: Path) -> None:
    taught().save(tmp_path / "1", {})
    turned, _ = resumed(tmp_path / "1", "news", "shop")
    turned.save(tmp_path / "2", {})
    back, _ = resumed(tmp_path / "2", "shop", "news")
    expected, found = everything(taught(), tmp_path / "straight"), everything(back, tmp_path / "back")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_what_has_no_part_for_a_scenario_is_shared_by_all() -> None:
    saved = {"trunk": torch.arange(3.0), "bias": torch.tensor([[1.0], [2.0]]), "late": torch.ones(2)}
    blank = {"trunk": torch.zeros(3), "bias": torch.full((3, 1), -1.0)}
    carried = carry_over(saved, blank, {"bias": 0, "late": 0, "absent": 0}, ["a", "b"], ["b", "c", "a"])
    assert carried["trunk"] is saved["trunk"]
    assert carried["bias"].tolist() == [[2.0], [-1.0], [1.0]]
    assert carried["late"].tolist() == [1.0, 0.0, 1.0]
