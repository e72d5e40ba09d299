"""Strategies: whichever takes the steps, what is learnt is the same to the bit."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from learner.online import OnlineLearner
from learner.replay import Replay
from learner.strategy import MakeStrategy, PlainStrategy
from learner.training import Trainer
from tests.learner.builders import CPU, put, small_learner, small_settings, stream
from tests.learner.test_online import NAMES, everything

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # other people's, while Avalanche and what it brings are imported
    from learner.avalanche import AvalancheStrategy, Exemplars

STRATEGIES: list[MakeStrategy] = [PlainStrategy, AvalancheStrategy]


def taught(make: MakeStrategy, examples: int = 60, **learn: float) -> OnlineLearner:
    learner = small_learner(small_settings(**learn))
    learner.adopt(make)
    put(learner, NAMES)
    for start in range(0, examples, 20):
        learner.learn("shop", stream(NAMES, 20, seed=start, first=start))
        learner.learn("news", stream(NAMES, 10, seed=start + 1, first=start))
    return learner


@pytest.mark.parametrize("replay_batch", [0, 8])
def test_avalanche_learns_what_the_plain_strategy_learns(tmp_path: Path, replay_batch: int) -> None:
    plain, avalanche = (
        everything(taught(make, replay_batch=replay_batch), tmp_path / str(number))
        for number, make in enumerate(STRATEGIES)
    )
    assert plain.keys() == avalanche.keys()
    assert [name for name, tensor in plain.items() if not torch.equal(tensor, avalanche[name])] == []


def test_one_may_take_over_from_the_other_at_any_step(tmp_path: Path) -> None:
    straight, changing = taught(PlainStrategy), taught(PlainStrategy, examples=0)
    for start in range(0, 60, 20):
        changing.adopt(STRATEGIES[start // 20 % 2])
        changing.learn("shop", stream(NAMES, 20, seed=start, first=start))
        changing.learn("news", stream(NAMES, 10, seed=start + 1, first=start))
    expected, found = everything(straight, tmp_path / "straight"), everything(changing, tmp_path / "changing")
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("make", STRATEGIES)
def test_every_example_that_was_learnt_is_remembered(make: MakeStrategy) -> None:
    learner = taught(make, replay_rows=100)
    assert (learner._replay.filled(0), learner._replay.filled(1)) == (60, 30)


@pytest.mark.parametrize("make", STRATEGIES)
def test_what_could_not_be_learnt_is_not_remembered(make: MakeStrategy) -> None:
    learner = taught(make, replay_rows=100)
    learner.table.vectors[1:] = torch.nan
    step = learner.run.step
    learner.learn("shop", stream(NAMES, 20, first=60))
    assert (learner.run.step, learner._replay.filled(0)) == (step, 60)
    assert learner.run.skipped_steps > 0


def test_the_replay_memory_is_no_ones_to_resize() -> None:
    replay = Replay(2, 7, 5)
    exemplars = Exemplars(replay, torch.Generator())
    assert exemplars.max_size == 14
    with pytest.raises(ValueError, match=r"learn\.replay_rows decides that, not 3"):
        exemplars.resize(None, 3)


def test_avalanche_resets_no_moment_between_experiences() -> None:
    learner = taught(AvalancheStrategy)
    trainer: Trainer = learner._trainer
    steps = {int(state["step"]) for state in trainer.optimizer.state.values()}
    assert steps == {learner.run.step}
    assert next(trainer.tower.parameters()).device == CPU
