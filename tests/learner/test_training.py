"""One gradient step: what it moves, in which direction, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from learner import training
from learner.items import ItemTable
from learner.replay import TrainingBatch
from learner.saved import StateMismatch
from learner.training import Trainer
from schemas.settings import Learn
from tests.learner.builders import CPU, random_texts, small_model

SHOP, NEWS = 0, 1
SIZES = small_model()


def filled(items: int = 20, used: int = 10) -> ItemTable:
    """Items that the shop and the news may show; the first `used` have been used in both."""
    table = ItemTable(("shop", "news"), SIZES)
    for number in range(items):
        row = table.add(f"item-{number}")
        table.set_eligible(f"item-{number}", ("shop", "news"))
        table.vectors[row] = 2 * random_texts(1, seed=number)[0, : SIZES.dimension]
    for scenario in (SHOP, NEWS):
        table.popularity.update(scenario, torch.arange(1, used + 1), 0.0)
    return table


def trainer(table: ItemTable, **learn: float) -> Trainer:
    return Trainer(table, SIZES, Learn(**{"learning_rate": 0.01, **learn}), CPU)  # type: ignore[arg-type]


def lessons(
    targets: Sequence[int], scenario: int = SHOP, weight: float = 1.0, history: Sequence[int] = (1, 2)
) -> TrainingBatch:
    rows = torch.tensor([[0] * (SIZES.history - len(history)) + list(history)] * len(targets), dtype=torch.long)
    rows = rows.view(len(targets), SIZES.history)
    target = torch.tensor(targets, dtype=torch.long)
    return TrainingBatch(
        scenario=torch.full_like(target, scenario),
        history=rows,
        gaps=(rows > 0) * 3,
        target=target,
        weight=torch.full(target.shape, weight),
    )


NOTHING = lessons([])


def learn(it: Trainer, new: TrainingBatch, replayed: TrainingBatch = NOTHING) -> bool:
    return it.step(TrainingBatch.joined([new, replayed]), len(new))


def score(it: Trainer, table: ItemTable, row: int, scenario: int = SHOP) -> float:
    """The neural score of an item for the history of `lessons`."""
    batch = lessons([row], scenario)
    with torch.no_grad():
        read = it.tower.trunk(table.vectors[batch.history], batch.history > 0, batch.gaps)
        query = it.tower.heads(read, batch.scenario)[0]
    return float(table.vectors[row] @ query + table.bias[scenario, row])


def test_a_liked_item_rises_above_its_rivals() -> None:
    table = filled()
    it = trainer(table)
    before = score(it, table, 5) - score(it, table, 6)
    for _ in range(20):
        assert learn(it, lessons([5, 5]))
    assert score(it, table, 5) - score(it, table, 6) > before + 0.5


def test_a_disliked_item_falls() -> None:
    table = filled()
    it = trainer(table)
    before = score(it, table, 5)
    for _ in range(20):
        assert learn(it, lessons([5, 5], weight=-1.0))
    assert score(it, table, 5) < before - 0.5


def test_a_heavier_example_pulls_more() -> None:
    table = filled()
    it = trainer(table, learning_rate=0.03)
    two = TrainingBatch(*(torch.cat(pair) for pair in zip(*map(_fields, (lessons([5]), lessons([6]))), strict=True)))
    two.weight[1] = 5.0
    for _ in range(60):
        learn(it, two)
    assert score(it, table, 6) > score(it, table, 5) + 1.0


def _fields(batch: TrainingBatch) -> tuple[torch.Tensor, ...]:
    return batch.scenario, batch.history, batch.gaps, batch.target, batch.weight


def test_an_item_that_nobody_has_used_stays_as_its_text_made_it() -> None:
    table = filled(items=20, used=10)
    it, before = trainer(table), table.vectors.clone()
    for _ in range(10):
        learn(it, lessons([3, 4, 5]), lessons([6], NEWS))
    assert torch.equal(table.vectors[11:], before[11:])
    assert table.bias[:, 11:].abs().sum() == 0
    assert not torch.equal(table.vectors[7], before[7])  # a rival
    assert table.vectors[0].abs().sum() == 0


def test_the_least_liked_tenth_of_used_items_stands_where_new_ones_do() -> None:
    table = filled(items=40, used=30)
    it = trainer(table)
    for _ in range(30):
        learn(it, lessons([1, 2, 3, 4, 5]))
    bias = table.bias[SHOP, 1:31].sort().values
    assert bias[2] == 0
    assert bias[0] < 0 < bias[-1]


def test_what_is_replayed_of_a_silent_scenario_leaves_its_head_and_biases_alone() -> None:
    table = filled()
    it = trainer(table, weight_decay=0.1)
    learn(it, lessons([8, 9], NEWS))
    heads = dict(it.tower.heads.named_parameters())
    head = {name: tensor[NEWS].clone() for name, tensor in heads.items()}
    bias, trunk = table.bias[NEWS].clone(), it.tower.trunk.out.weight.clone()
    for _ in range(3):
        learn(it, lessons([3, 4]), lessons([7, 8], NEWS))
    assert all(torch.equal(tensor[NEWS], head[name]) for name, tensor in heads.items())
    assert torch.equal(table.bias[NEWS], bias)
    assert not torch.equal(it.tower.trunk.out.weight, trunk)
    learn(it, lessons([7]), lessons([3]))
    learn(it, lessons([7], NEWS), lessons([3]))
    assert not torch.equal(heads["vector"][NEWS], head["vector"])


def test_one_scenarios_lessons_leave_anothers_head_and_biases_alone() -> None:
    table = filled()
    it = trainer(table)
    head = {name: tensor[NEWS].clone() for name, tensor in it.tower.heads.named_parameters() if name != "down"}
    learn(it, lessons([3, 4]))
    assert all(
        torch.equal(tensor, dict(it.tower.heads.named_parameters())[name][NEWS]) for name, tensor in head.items()
    )
    assert table.bias[NEWS].abs().sum() == 0
    assert table.bias[SHOP].abs().sum() > 0


def test_replayed_examples_are_learnt_from_too() -> None:
    table = filled()
    it = trainer(table, replay_weight=1.0)
    before = score(it, table, 8, NEWS) - score(it, table, 9, NEWS)
    for _ in range(20):
        learn(it, lessons([3]), lessons([8, 8], NEWS))
    assert score(it, table, 8, NEWS) - score(it, table, 9, NEWS) > before + 0.3


@pytest.mark.parametrize("broken", [torch.inf, torch.nan])
def test_a_loss_that_is_not_finite_changes_nothing(broken: float) -> None:
    table = filled()
    it = trainer(table)
    learn(it, lessons([3]), lessons([4]))
    before = {name: tensor.clone() for name, tensor in {**it.state(), **table.state()}.items() if name != "generator"}
    assert not learn(it, lessons([3], weight=broken), lessons([4]))
    after = {**it.state(), **table.state()}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert learn(it, lessons([3]), lessons([4]))
    assert table.vectors.isfinite().all()


def test_examples_without_weight_teach_nothing() -> None:
    table = filled()
    it, before = trainer(table, weight_decay=0.0), table.vectors.clone()
    assert learn(it, lessons([3], weight=0.0))
    assert torch.equal(table.vectors, before)


def test_a_target_that_no_scenario_may_show_is_learnt_all_the_same() -> None:
    table = filled()
    stranger = table.add("stranger")
    it = trainer(table)
    for _ in range(5):
        assert learn(it, lessons([stranger]))
    assert table.vectors[stranger].norm() > 0


def test_training_goes_on_in_a_table_that_has_grown() -> None:
    table = filled()
    it = trainer(table)
    learn(it, lessons([3]))
    for number in range(1500):
        table.add(f"more-{number}")
    before = table.vectors.clone()
    assert learn(it, lessons([3]))
    assert not torch.equal(table.vectors, before)
    assert len(it.state()["vectors.mean"]) == table.allocated


def test_a_reused_row_inherits_no_momentum() -> None:
    table = filled()
    it = trainer(table)
    for _ in range(5):
        learn(it, lessons([3]))
    table.remove("item-2")
    it.forget_item(3)
    assert table.add("heir") == 3
    learn(it, lessons([5]))
    assert table.vectors[3].abs().sum() == 0
    assert table.bias[:, 3].abs().sum() == 0


def test_what_another_version_saved_is_named() -> None:
    it = trainer(filled())
    state = {name: tensor for name, tensor in it.state().items() if name != "heads.up.mean"}
    with pytest.raises(StateMismatch, match=r"trainer: heads\.up\.mean is missing"):
        it.load(state)


def test_a_large_shelf_is_sampled_and_learnt_in_the_same_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    gains = []
    for full in (20_000, 20):
        monkeypatch.setattr(training, "FULL_SOFTMAX_ITEMS", full)
        monkeypatch.setattr(training, "SAMPLED_ITEMS", 60)
        table = filled(items=220, used=200)
        it = trainer(table)
        before = score(it, table, 5) - score(it, table, 6)
        for _ in range(25):
            assert learn(it, lessons([5, 5, 7, 9]), lessons([8, 8], NEWS))
        gains.append(score(it, table, 5) - score(it, table, 6) - before)
    full_gain, sampled_gain = gains
    assert sampled_gain == pytest.approx(full_gain, rel=0.35)


def test_sampling_is_corrected_by_the_chance_of_being_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Averaged over many draws, the corrected sum over rivals is the sum over all items."""
    monkeypatch.setattr(training, "FULL_SOFTMAX_ITEMS", 20)
    monkeypatch.setattr(training, "SAMPLED_ITEMS", 40)
    table = filled(items=120, used=100)
    it = trainer(table)
    values = torch.rand(table.allocated, generator=torch.Generator().manual_seed(1)) + 0.5
    estimates = []
    for draw in range(400):
        # A batch's targets are drawn by popularity, which is uniform here.
        target = int(torch.randint(1, 101, (), generator=torch.Generator().manual_seed(draw)))
        rivals = it.tower._rivals(SHOP, lessons([target]))
        estimates.append(float((values[rivals.rows] * torch.exp(-rivals.log_inclusion)).sum()))
    assert sum(estimates) / 400 == pytest.approx(float(values[1:101].sum()), rel=0.03)
