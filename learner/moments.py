"""The moments of torch's Adam family as named tensors, so that a checkpoint needs no pickle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

PREFIX = "moments."


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


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
