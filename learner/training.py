"""Training of the tower: one gradient step on new and replayed examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.items import ItemTable
from learner.model import Dropout, Heads, Trunk
from learner.moments import adam_state, load_adam_state
from learner.replay import TrainingBatch
from schemas.settings import Learn, Model

FULL_SOFTMAX_ITEMS = 20_000
SAMPLED_ITEMS = 2048
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


class Trainer:
    """Trunk, heads, item vectors and biases, and the optimizer that moves them.

    The table's own tensors are what is trained: an item's vector moves by its gradient, and what lies between it and
    its projected text is what was learnt of it.
    """

    def __init__(self, table: ItemTable, sizes: Model, learn: Learn, device: torch.device) -> None:
        start = torch.Generator().manual_seed(learn.seed)
        self._table = table
        self.trunk = Trunk(sizes, start).to(device)
        self.heads = Heads(len(table.scenarios), sizes, start).to(device)
        self.generator = torch.Generator(device).manual_seed(learn.seed)
        self._dropout = Dropout(sizes.dropout, self.generator)
        self._replay_weight = learn.replay_weight
        self._vectors = nn.Parameter(table.vectors)
        self._bias = nn.Parameter(table.bias)
        self._weights = [*self.trunk.parameters(), *self.heads.parameters()]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": self._weights, "weight_decay": learn.weight_decay},
                {"params": [self._vectors, self._bias], "weight_decay": 0.0},
            ],
            learn.learning_rate,
            fused=True,
        )

    def step(self, new: TrainingBatch, replayed: TrainingBatch) -> bool:
        """Learn from new and replayed examples, of any scenarios.

        Returns:
            False if the loss or its gradient is not finite; nothing has changed then.
        """
        self._follow_table()
        both = TrainingBatch.joined([new, replayed])
        rivals = {scenario: self._rivals(scenario, both) for scenario in torch.unique(both.scenario).tolist()}
        shelves = [each.rows for each in rivals.values()]
        used = torch.unique(torch.cat([both.history.flatten(), *shelves, both.target.new_zeros(1)]))
        vectors = self._table.vectors[used].requires_grad_()
        items = functional.embedding(torch.searchsorted(used, both.history), vectors)  # (batch, length, dimension)
        read = self.trunk(items, both.history > 0, both.gaps, self._dropout)
        queries = self.heads(read, both.scenario)

        losses = queries.new_zeros(len(both))
        biases: dict[int, Tensor] = {}
        for scenario, rival in rivals.items():
            of = (both.scenario == scenario).nonzero().flatten()
            biases[scenario] = self._table.bias[scenario, rival.rows].requires_grad_()
            shelf = functional.embedding(torch.searchsorted(used, rival.rows), vectors)
            scores = queries[of] @ shelf.T + biases[scenario]  # (of, rivals)
            place = torch.searchsorted(rival.rows, both.target[of])
            losses = losses.index_put((of,), _losses(scores, place, both.weight[of], rival.log_inclusion))
        loss = _mean(losses[: len(new)], new.weight)
        if len(replayed):
            loss = loss + self._replay_weight * _mean(losses[len(new) :], replayed.weight)

        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        gradients = [w.grad for w in (*self._weights, vectors, *biases.values()) if w.grad is not None]
        if not bool(torch.nn.utils.get_total_norm([loss.detach(), *gradients]).isfinite()):
            return False
        self._vectors.grad = torch.zeros_like(self._vectors).index_copy_(0, used, _gradient(vectors))
        self._bias.grad = torch.zeros_like(self._bias)
        for scenario, bias in biases.items():
            self._bias.grad[scenario, rivals[scenario].rows] = _gradient(bias)
        self._optimizer.step()
        for scenario in rivals:
            self._level(scenario)
        return True

    def forget_item(self, row: int) -> None:
        """The row is to be used for another item: no momentum may be left in it."""
        self._follow_table()
        for name in ("exp_avg", "exp_avg_sq"):
            if self._vectors in self._optimizer.state:
                self._optimizer.state[self._vectors][name][row] = 0.0
                self._optimizer.state[self._bias][name][:, row] = 0.0

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by name; the table's tensors are the table's to save."""
        self._follow_table()
        trunk = {f"trunk.{name}": tensor for name, tensor in self.trunk.state_dict().items()}
        heads = {f"heads.{name}": tensor for name, tensor in self.heads.state_dict().items()}
        return {**trunk, **heads, **adam_state(self._optimizer), "generator": self.generator.get_state()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from; the table has been loaded before."""
        self.trunk.load_state_dict({name: state[f"trunk.{name}"] for name in self.trunk.state_dict()})
        self.heads.load_state_dict({name: state[f"heads.{name}"] for name in self.heads.state_dict()})
        load_adam_state(self._optimizer, state)
        self.generator.set_state(state["generator"])
        self._follow_table()

    def seen(self, scenario: int) -> Tensor:
        """Which items were ever used in the scenario; (rows,), bool."""
        return self._table.popularity.keys[scenario, :, 0] > -torch.inf

    def _rivals(self, scenario: int, batch: TrainingBatch) -> Rivals:
        """All items that were ever used here and may be recommended, or a sample of them, and the batch's targets.

        An item that nobody has used yet is no one's rival: it would only learn that it is not wanted.
        """
        shelf = (self.seen(scenario) & self._table.eligible[scenario]).nonzero().flatten()
        targets = batch.target[batch.scenario == scenario]
        if len(shelf) <= FULL_SOFTMAX_ITEMS:
            rows = torch.unique(torch.cat([shelf, targets]))
            return Rivals(rows, torch.zeros(len(rows), device=rows.device))
        drawn = torch.randint(len(shelf), (SAMPLED_ITEMS,), generator=self.generator, device=shelf.device)
        rows = torch.unique(torch.cat([shelf[drawn], targets]))
        keys = self._table.popularity.keys[scenario, :, 0]
        share = (keys[rows] - keys[shelf].logsumexp(0)).exp().float().clamp_max(0.999)
        missed = len(targets) * torch.log1p(-share) + SAMPLED_ITEMS * torch.log1p(torch.tensor(-1.0 / len(shelf)))
        return Rivals(rows, torch.log(-torch.expm1(missed)).clamp_min(-20.0))

    def _level(self, scenario: int) -> None:
        """Shift the biases of used items so that their lowest tenth ends at 0, where those of unused ones stand.

        A softmax does not feel the shift; a new item is placed by it among the less popular ones.
        """
        seen = self.seen(scenario).nonzero().flatten()
        if len(seen) == 0:
            return
        bias = self._table.bias[scenario, seen]
        level = bias.kthvalue(max(1, round(COLD_QUANTILE * len(seen)))).values
        self._table.bias[scenario, seen] = bias - level

    def _follow_table(self) -> None:
        """Train the tensors that the table has now: it makes larger ones when it grows."""
        for parameter, tensor in ((self._vectors, self._table.vectors), (self._bias, self._table.bias)):
            if parameter.data_ptr() == tensor.data_ptr():
                continue
            parameter.grad = None
            parameter.data = tensor
            moments = self._optimizer.state.get(parameter, {})
            for name in ("exp_avg", "exp_avg_sq"):
                if name in moments and moments[name].shape != tensor.shape:
                    grown = torch.zeros_like(tensor)
                    old = moments[name]
                    grown[tuple(slice(size) for size in old.shape)] = old
                    moments[name] = grown


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
