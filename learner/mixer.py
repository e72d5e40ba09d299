"""The mixer: puts the signals that speak for a candidate together into the score that orders the list."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from learner.moments import adam_state, load_adam_state, moments_of

FEATURES = (
    "neural",
    "knn",
    "forward",
    "taste",
    "strongest",
    "popular",
    "popular_lately",
    "count",
    "in_row",
    "history",
    "similarity",
    "gap",
    "newest",
    "own",
    "own_gap",
)
"""What `learner.ranking` measures of each candidate, in this order; each is scaled to a few units around zero."""

START = {"neural": 0.5, "knn": 0.5, "similarity": 0.5, "popular": 0.3, "popular_lately": 0.1}
"""Weights before any training: similar in meaning, used together, and used often."""

BY_SCENARIO = ("linear", "scenario")
"""The weights that have a row for each scenario."""


class Mixer(nn.Module):
    """score = linear weights of the scenario on the features + one small network that all scenarios share.

    The network starts without effect; it sees the scenario through a vector of its own.
    """

    def __init__(self, scenarios: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.tensor([START.get(name, 0.0) for name in FEATURES])
        self.linear = nn.Parameter(start.repeat(scenarios, 1))
        spread = len(FEATURES) ** -0.5
        self.inward = nn.Parameter((torch.rand(len(FEATURES), units, generator=generator) * 2 - 1) * spread)
        self.scenario = nn.Parameter((torch.rand(scenarios, units, generator=generator) * 2 - 1) * spread)
        self.outward = nn.Parameter(torch.zeros(units))

    def only(self, scenario: int) -> Mixer:
        """A mixer of one scenario, the number 0; it shares memory with this one, and so sees it learn."""
        alone = Mixer.__new__(Mixer)
        nn.Module.__init__(alone)
        for name, tensor in self.named_parameters():
            part = tensor.data[scenario : scenario + 1] if name in BY_SCENARIO else tensor.data
            alone.register_parameter(name, nn.Parameter(part, requires_grad=False))
        return alone

    def forward(self, features: Tensor, scenario: int) -> Tensor:
        """Score candidates; higher is better.

        Args:
            features: (batch, candidates, len(FEATURES)), float32.
            scenario: whose candidates they are.

        Returns:
            (batch, candidates), float32.
        """
        hidden = functional.gelu(features @ self.inward + self.scenario[scenario])
        return features @ self.linear[scenario] + hidden @ self.outward


class MixerTrainer:
    """Trains the mixer on events, after each was ranked."""

    def __init__(self, mixer: Mixer, learning_rate: float) -> None:
        self.mixer = mixer
        self._optimizer = torch.optim.Adam(mixer.parameters(), learning_rate, fused=True)

    def step(self, features: Tensor, rows: Tensor, target: Tensor, scenario: int) -> bool:
        """One step of cross entropy over the candidates.

        Args:
            features: (batch, candidates, len(FEATURES)).
            rows: of the candidates, 0 pads; (batch, candidates), int64.
            target: the row that the user acted on; examples without it among their candidates teach nothing. (batch,).
            scenario: whose candidates they are.

        Returns:
            False if the loss is not finite; nothing has changed then.
        """
        match = rows == target[:, None]
        held = match.any(1)
        if not bool(held.any()):
            return True
        scores = self.mixer(features[held], scenario).masked_fill(rows[held] == 0, -torch.inf)
        loss = functional.cross_entropy(scores, match[held].int().argmax(1))
        if not bool(loss.isfinite()):
            return False
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        return True

    def state(self) -> dict[str, Tensor]:
        """Weights and moments, by name."""
        return {**self.mixer.state_dict(), **adam_state(self._optimizer)}

    def by_scenario(self) -> dict[str, int]:
        """The tensors of `state` that have a part for each scenario, and the dimension that counts them."""
        return dict.fromkeys([*BY_SCENARIO, *moments_of(self._optimizer, self.mixer, BY_SCENARIO)], 0)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from."""
        self.mixer.load_state_dict({name: state[name] for name in self.mixer.state_dict()})
        load_adam_state(self._optimizer, state)
