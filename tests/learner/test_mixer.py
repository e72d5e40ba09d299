"""The mixer: a sensible order at the start, and one that follows what is clicked."""

from __future__ import annotations

import torch

from learner.mixer import FEATURES, Mixer, MixerTrainer


def trainer(scenarios: int = 2) -> MixerTrainer:
    return MixerTrainer(Mixer(scenarios, 4, torch.Generator().manual_seed(0)), 0.05)


def features(**named: list[float]) -> torch.Tensor:
    """One list of candidates with these features and all others 0; (1, candidates, features)."""
    size = len(next(iter(named.values())))
    table = torch.zeros(1, size, len(FEATURES))
    for name, values in named.items():
        table[0, :, FEATURES.index(name)] = torch.tensor(values)
    return table


def best(mixer: Mixer, table: torch.Tensor, scenario: int = 0) -> int:
    return int(mixer(table, scenario)[0].argmax())


def test_untrained_it_prefers_what_is_similar_used_together_or_popular() -> None:
    mixer = trainer().mixer
    for name in ("neural", "knn", "similarity", "popular", "popular_lately"):
        assert best(mixer, features(**{name: [0.0, 1.0, -1.0]})) == 1


def test_it_learns_which_signal_to_trust_in_each_scenario() -> None:
    learner = trainer()
    rows = torch.tensor([[1, 2, 3]])
    signals = features(neural=[2.0, 0.0, 0.0], popular_lately=[0.0, 0.0, 2.0])
    for _ in range(150):
        learner.step(signals, rows, torch.tensor([3]), 0)
        learner.step(signals, rows, torch.tensor([1]), 1)
    assert (best(learner.mixer, signals, 0), best(learner.mixer, signals, 1)) == (2, 0)


def test_examples_whose_item_was_no_candidate_teach_nothing() -> None:
    learner = trainer()
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    assert learner.step(features(knn=[1.0, 2.0]), torch.tensor([[1, 2]]), torch.tensor([9]), 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state().items())


def test_pads_are_no_candidates() -> None:
    learner = trainer(1)
    for _ in range(20):
        assert learner.step(features(knn=[1.0, 2.0, 0.0]), torch.tensor([[1, 2, 0]]), torch.tensor([1]), 0)
    assert all(tensor.isfinite().all() for tensor in learner.state().values())


def test_a_loss_that_is_not_finite_changes_nothing() -> None:
    learner = trainer()
    before = {name: tensor.clone() for name, tensor in learner.state().items()}
    assert not learner.step(features(knn=[torch.nan, 2.0]), torch.tensor([[1, 2]]), torch.tensor([1]), 0)
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state().items())


def test_a_saved_mixer_goes_on_to_the_bit() -> None:
    signals, rows = features(knn=[1.0, 0.0], count=[0.0, 1.0]), torch.tensor([[1, 2]])
    straight, first = trainer(), trainer()
    for _ in range(6):
        straight.step(signals, rows, torch.tensor([2]), 1)
    for _ in range(3):
        first.step(signals, rows, torch.tensor([2]), 1)
    second = trainer()
    second.load({name: tensor.clone() for name, tensor in first.state().items()})
    for _ in range(3):
        second.step(signals, rows, torch.tensor([2]), 1)
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in straight.state().items())
