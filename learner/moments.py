"""Adam's moments: as named tensors, and for tables of which a step moves a few rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

PREFIX = "moments."

BETAS, EPSILON = (0.9, 0.999), 1e-8


def adam_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Steps and moments of all parameters, by the parameter's number; nothing before the first step."""
    return {
        f"{PREFIX}{number}.{name}": tensor
        for number, parameter in enumerate(_parameters(optimizer))
        for name, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_adam_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Take over what `adam_state` gave; other names in `state` are passed over."""
    optimizer.state.clear()
    for number, parameter in enumerate(_parameters(optimizer)):
        prefix = f"{PREFIX}{number}."
        moments = {
            name.removeprefix(prefix): tensor.to(parameter.device, copy=True)
            for name, tensor in state.items()
            if name.startswith(prefix)
        }
        if moments:
            optimizer.state[parameter] = moments


def moments_of(optimizer: torch.optim.Optimizer, module: nn.Module, names: Iterable[str]) -> list[str]:
    """What `adam_state` calls the moments of these parameters of the module; steps are not among them."""
    numbers = {id(parameter): number for number, parameter in enumerate(_parameters(optimizer))}
    of = dict(module.named_parameters())
    return [f"{PREFIX}{numbers[id(of[name])]}.{moment}" for name in names for moment in ("exp_avg", "exp_avg_sq")]


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


class RowAdam:
    """Adam for a table of which each step moves a few rows: the cost of a step does not grow with the table.

    Rows that a step does not name keep their moments as they are, as in torch.optim.SparseAdam; the correction of the
    moments' bias counts the steps of the whole table. Kingma and Ba 2015, https://arxiv.org/abs/1412.6980.
    """

    def __init__(self, table: Tensor, learning_rate: float) -> None:
        """Make moments for a table of this shape; nothing has moved yet."""
        self._learning_rate = learning_rate
        self._mean = torch.zeros_like(table)
        self._square = torch.zeros_like(table)
        self._steps = 0

    def step(self, table: Tensor, rows: Tensor, gradient: Tensor) -> None:
        """Move rows against their gradients.

        Args:
            table: as it was made for, or grown since; (rows, ...).
            rows: each once; (n,), int64.
            gradient: (n, ...).
        """
        self.fit(table)
        self._steps += 1
        unbiased = [1.0 - beta**self._steps for beta in BETAS]
        mean = self._mean.index_select(0, rows).lerp_(gradient, 1.0 - BETAS[0])
        square = self._square.index_select(0, rows).mul_(BETAS[1]).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        self._mean.index_copy_(0, rows, mean)
        self._square.index_copy_(0, rows, square)
        size = square.div_(unbiased[1]).sqrt_().add_(EPSILON)
        table.index_add_(0, rows, mean.div_(size), alpha=-self._learning_rate / unbiased[0])

    def forget(self, table: Tensor, rows: int | Tensor) -> None:
        """What is in these rows is no longer what was moved there: no momentum may be left in them."""
        self.fit(table)
        self._mean[rows] = 0.0
        self._square[rows] = 0.0

    def state(self) -> dict[str, Tensor]:
        return {"mean": self._mean, "square": self._square, "steps": torch.tensor(self._steps)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self._mean = state["mean"].to(self._mean.device, copy=True)
        self._square = state["square"].to(self._square.device, copy=True)
        self._steps = int(state["steps"])

    def fit(self, table: Tensor) -> None:
        """Make room for as many rows as the table has."""
        more = len(table) - len(self._mean)
        if more:
            self._mean, self._square = (
                torch.cat([moments, moments.new_zeros(more, *moments.shape[1:])])
                for moments in (self._mean, self._square)
            )
