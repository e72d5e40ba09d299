"""Training of the tower: what examples cost, and one gradient step against that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.items import ItemTable
from learner.model import Dropout, Heads, Trunk
from learner.moments import RowAdam, adam_state, load_adam_state
from learner.replay import TrainingBatch
from learner.saved import StateMismatch
from schemas.failpoints import failpoint
from schemas.settings import Learn, Model

FULL_SOFTMAX_ITEMS = 2048
SAMPLED_ITEMS = 1024
"""Up to so many items a target competes with all that were ever used; above, with a sample of this size."""

COLD_QUANTILE = 0.1


@dataclass(frozen=True)
class Rivals:
    """The items that the targets of one scenario compete with.

    Attributes:
        rows: ascending, the targets among them; (n,), int64.
        log_inclusion: log of the chance that an item is among them; 0 where all are. (n,), float32.
    """

    rows: Tensor
    log_inclusion: Tensor


@dataclass(frozen=True)
class Leaves:
    """What of the item table a batch was computed from: the rows, and copies of them that gradients gather in.

    Attributes:
        rows: ascending, the pad among them; (n,), int64.
        vectors: (n, dimension).
        rivals: by scenario.
        bias: by scenario, beside its rivals; (rivals,).
    """

    rows: Tensor
    vectors: Tensor
    rivals: dict[int, Rivals] = field(default_factory=dict)
    bias: dict[int, Tensor] = field(default_factory=dict)

    def tensors(self) -> list[Tensor]:
        return [self.vectors, *self.bias.values()]


class Tower(nn.Module):
    """Trunk and heads over the item table: from examples to what each of them costs.

    What a batch costs depends on the items that it names and on those they compete with, of which there are at most
    `FULL_SOFTMAX_ITEMS` for each scenario, and on no other.

    Attributes:
        leaves: of the newest batch.
    """

    leaves: Leaves

    def __init__(self, table: ItemTable, sizes: Model, seed: int, device: torch.device) -> None:
        super().__init__()
        start = torch.Generator().manual_seed(seed)
        self._table = table
        self.trunk = Trunk(sizes, start).to(device)
        self.heads = Heads(len(table.scenarios), sizes, start).to(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self._dropout = Dropout(sizes.dropout, self.generator)

    def forward(self, batch: TrainingBatch) -> Tensor:
        """What each example costs: a liked target must win among its rivals, a disliked one must have a low score.

        Returns:
            (batch,).
        """
        rivals = {scenario: self._rivals(scenario, batch) for scenario in torch.unique(batch.scenario).tolist()}
        shelves = [each.rows for each in rivals.values()]
        rows = torch.unique(torch.cat([batch.history.flatten(), *shelves, batch.target.new_zeros(1)]))
        vectors = self._table.vectors.index_select(0, rows).requires_grad_()
        self.leaves = Leaves(rows, vectors, rivals)
        items = functional.embedding(torch.searchsorted(rows, batch.history), vectors)  # (batch, length, dimension)
        read = self.trunk(items, batch.history > 0, batch.gaps, self._dropout)
        queries = self.heads(read, batch.scenario)
        losses: Tensor = queries.new_zeros(len(batch))
        for scenario, rival in rivals.items():
            of = (batch.scenario == scenario).nonzero().flatten()
            bias = self.leaves.bias[scenario] = self._table.bias[scenario].index_select(0, rival.rows).requires_grad_()
            shelf = functional.embedding(torch.searchsorted(rows, rival.rows), vectors)
            scores = queries[of] @ shelf.T + bias  # (of, rivals)
            place = torch.searchsorted(rival.rows, batch.target[of])
            losses = losses.index_put((of,), _losses(scores, place, batch.weight[of], rival.log_inclusion))
        return losses

    def _rivals(self, scenario: int, batch: TrainingBatch) -> Rivals:
        """All items that were ever used here and may be recommended, or a sample of them, and the batch's targets.

        An item that nobody has used yet is no one's rival: it would only learn that it is not wanted.
        """
        used, popularity = self._table.popularity.used(scenario), self._table.popularity
        targets = batch.target[batch.scenario == scenario]
        if len(used) <= FULL_SOFTMAX_ITEMS:
            rows = torch.unique(torch.cat([self._eligible(scenario, used.long()), targets]))
            return Rivals(rows, torch.zeros(len(rows), device=rows.device))
        place = torch.randint(len(used), (SAMPLED_ITEMS,), generator=self.generator, device=used.device)
        rows = torch.unique(torch.cat([self._eligible(scenario, used[place].long()), targets]))
        share = popularity.log_share(scenario, rows).exp().clamp_max(0.999)
        missed = len(targets) * torch.log1p(-share) + SAMPLED_ITEMS * torch.log1p(torch.tensor(-1.0 / len(used)))
        return Rivals(rows, torch.log(-torch.expm1(missed)).clamp_min(-20.0))

    def _eligible(self, scenario: int, rows: Tensor) -> Tensor:
        return rows[self._table.eligible[scenario].index_select(0, rows)]


class Trainer:
    """The tower and what moves it.

    The item table's own tensors are what is trained: an item's vector moves by its gradient, and what lies between it
    and its projected text is what was learnt of it.

    What all scenarios share, trunk and item vectors, learns from new and from replayed examples. What only one scenario
    has, its head and its biases, moves while that scenario has something new and otherwise stands still: nobody else
    can harm it, and the few examples that are remembered of a silent scenario would only be learnt by heart.

    Attributes:
        optimizer: of the trunk.
    """

    def __init__(self, table: ItemTable, sizes: Model, learn: Learn, device: torch.device) -> None:
        self._table = table
        self.tower = Tower(table, sizes, learn.seed, device)
        self._replay_weight = learn.replay_weight
        self.optimizer = torch.optim.AdamW(
            self.tower.trunk.parameters(), learn.learning_rate, weight_decay=learn.weight_decay, fused=True
        )
        self._heads = {
            name: RowAdam(head.data, learn.learning_rate) for name, head in self.tower.heads.named_parameters()
        }
        self._vectors = RowAdam(table.vectors, learn.learning_rate)
        self._bias = [RowAdam(bias, learn.learning_rate) for bias in table.bias]

    def step(self, batch: TrainingBatch, new: int) -> bool:
        """Learn from examples, of any scenarios, the first `new` of them new and the others replayed.

        Returns:
            False if the loss or its gradient is not finite; nothing has changed then.
        """
        self.optimizer.zero_grad()
        loss = self.loss(self.tower(batch), batch.weight, new)
        torch.autograd.backward(loss)
        return self.update(loss, batch.scenario[:new])

    def loss(self, losses: Tensor, weight: Tensor, new: int) -> Tensor:
        """The mean over the new examples, and beside it that over the replayed ones, by size of weight."""
        loss = _mean(losses[:new], weight[:new])
        if len(losses) > new:
            loss = loss + self._replay_weight * _mean(losses[new:], weight[new:])
        return loss * torch.nan if failpoint("learn.loss") else loss

    def update(self, loss: Tensor, new: Tensor) -> bool:
        """Move what the gradients of this loss say; returns as `step` does.

        Args:
            new: scenarios of the new examples; (n,), int64.
        """
        leaves, awake = self.tower.leaves, torch.unique(new)
        heads = {name: _gradient(head) for name, head in self.tower.heads.named_parameters()}
        self.tower.heads.zero_grad()  # the optimizer's own are all that Avalanche's loop clears
        others = [each.grad for each in (*self.tower.trunk.parameters(), *leaves.tensors()) if each.grad is not None]
        gradients = [*heads.values(), *others]
        if not bool(torch.nn.utils.get_total_norm([loss.detach(), *gradients]).isfinite()):
            return False
        self.optimizer.step()
        self._vectors.step(self._table.vectors, leaves.rows, _gradient(leaves.vectors))
        for name, head in self.tower.heads.named_parameters():
            self._heads[name].step(head.data, awake, heads[name][awake])
        for scenario in awake.tolist():
            bias, rivals = leaves.bias[scenario], leaves.rivals[scenario].rows
            self._bias[scenario].step(self._table.bias[scenario], rivals, _gradient(bias))
            self._level(scenario, rivals)
        return True

    def forget_item(self, row: int) -> None:
        """The row is to be used for another item: no momentum may be left in it."""
        self._vectors.forget(self._table.vectors, row)
        for moments, table in zip(self._bias, self._table.bias, strict=True):
            moments.forget(table, row)

    def settle_items(self, rows: Tensor) -> None:
        """The vectors of these items were set: what moved them before has no say in where they go from there."""
        self._vectors.forget(self._table.vectors, rows)

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by name; the table's tensors are the table's to save."""
        tower = {f"tower.{name}": tensor for name, tensor in self.tower.state_dict().items()}
        heads = {
            f"heads.{head}.{name}": tensor
            for head, moments in self._heads.items()
            for name, tensor in moments.state().items()
        }
        vectors = {f"vectors.{name}": tensor for name, tensor in self._vectors.state().items()}
        for moments, table in zip(self._bias, self._table.bias, strict=True):
            moments.fit(table)
        states = [moments.state() for moments in self._bias]
        bias = {f"bias.{name}": torch.stack([state[name] for state in states]) for name in states[0]}
        generator = {"generator": self.tower.generator.get_state()}
        return {**tower, **adam_state(self.optimizer), **heads, **vectors, **bias, **generator}

    def by_scenario(self) -> dict[str, int]:
        """The tensors of `state` that have a part for each scenario, and the dimension that counts them."""
        heads = [f"tower.heads.{name}" for name in self._heads]
        moments = [f"heads.{name}.{moment}" for name in self._heads for moment in ("mean", "square")]
        bias = [f"bias.{name}" for name in self._bias[0].state()]
        return dict.fromkeys([*heads, *moments, *bias], 0)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from; the table has been loaded before.

        Raises:
            StateMismatch: another version gave it.
        """
        if missing := sorted(self.state().keys() - adam_state(self.optimizer).keys() - state.keys()):
            raise StateMismatch("trainer", missing[0], "missing", "there")
        self.tower.load_state_dict({name: state[f"tower.{name}"] for name in self.tower.state_dict()})
        load_adam_state(self.optimizer, state)
        for head, moments in self._heads.items():
            moments.load({name: state[f"heads.{head}.{name}"] for name in moments.state()})
        self._vectors.load({name: state[f"vectors.{name}"] for name in self._vectors.state()})
        for number, moments in enumerate(self._bias):
            moments.load({name: state[f"bias.{name}"][number] for name in moments.state()})
        self.tower.generator.set_state(state["generator"])

    def _level(self, scenario: int, rivals: Tensor) -> None:
        """Shift the biases of these items so that the lowest tenth of them ends at 0, where those of unused ones stand.

        A softmax does not feel the shift; a new item is placed by it among the less popular ones. Rivals that were
        drawn are shifted by themselves: in the long run all are.
        """
        rows = rivals[self._table.popularity.is_used(scenario, rivals)]
        if len(rows) == 0:
            return
        bias = self._table.bias[scenario].index_select(0, rows)
        level = bias.kthvalue(max(1, round(COLD_QUANTILE * len(rows)))).values
        self._table.bias[scenario].index_copy_(0, rows, bias - level)


def _losses(scores: Tensor, place: Tensor, weight: Tensor, log_inclusion: Tensor) -> Tensor:
    """What each example costs: a liked target must win among its rivals, a disliked one must have a low score.

    Args:
        scores: (n, rivals).
        place: of the target among the rivals; (n,).
    """
    own = scores.gather(1, place[:, None])  # (n, 1)
    # The target is there for certain, whatever the chance that others drew it.
    corrected = (scores - log_inclusion).scatter(1, place[:, None], own)
    return torch.where(
        weight < 0, functional.softplus(own[:, 0]), functional.cross_entropy(corrected, place, reduction="none")
    )


def _mean(losses: Tensor, weight: Tensor) -> Tensor:
    """The mean by size of weight; 0 if all weights are."""
    size = weight.abs()
    return (losses * size).sum() / size.sum().clamp_min(1e-6)


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
