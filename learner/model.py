"""The query tower: from a user's last items and a scenario to the vector that the index is searched with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.settings import Model

GAP_BUCKETS = 26
"""0 is the pad; 1 + floor(log2(1 + seconds)) up to a year or so, and everything older in the last."""

PROFILE_RECENCY = 5.0
"""Events over which a history item's part in the profile falls by e."""


def gap_buckets(seconds: Tensor) -> Tensor:
    """How long ago history items were used, on a log2 scale; same shape, int64, from 1."""
    longest = 2.0 ** (GAP_BUCKETS - 2)
    return seconds.nan_to_num(0.0).clamp(0.0, longest).add(1).log2().long() + 1


def profile(items: Tensor, present: Tensor) -> Tensor:
    """The recency-weighted mean of a history; zero where there is none.

    Args:
        items: vectors of the history, oldest first; (batch, length, dimension).
        present: False at pads; (batch, length), bool.

    Returns:
        (batch, dimension).
    """
    length = items.shape[1]
    back = torch.arange(length - 1, -1, -1, device=items.device, dtype=items.dtype)
    weights = present * torch.exp(-back / PROFILE_RECENCY)  # (batch, length)
    weights = weights / weights.sum(1, keepdim=True).clamp_min(1e-6)
    return torch.bmm(weights[:, None], items)[:, 0]


class Dropout:
    """Dropout that draws from a generator of ours, so that training can be repeated to the bit."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        self._share = share
        self._generator = generator

    def __call__(self, x: Tensor) -> Tensor:
        if self._share == 0.0:
            return x
        kept = torch.rand(x.shape, generator=self._generator, device=x.device) >= self._share
        return x * kept / (1.0 - self._share)


def no_dropout(x: Tensor) -> Tensor:
    """What stands in for `Dropout` while ranking."""
    return x


class Trunk(nn.Module):
    """Reads the last items of a user with their time gaps; shared by all scenarios.

    Its output is the layer-normed profile of the history plus what one transformer layer adds to it. That addition goes
    through a projection that starts at zero: before any learning, a user is the mean of what they used, and the
    ranking is similarity of text.
    """

    def __init__(self, sizes: Model, generator: torch.Generator) -> None:
        super().__init__()
        d, inner = sizes.dimension, sizes.dimension * sizes.feedforward
        self.heads = sizes.heads
        self.position = nn.Parameter(torch.randn(sizes.history, d, generator=generator) * 0.02)
        self.pad = nn.Parameter(torch.zeros(d))
        self.gap = nn.Parameter(torch.zeros(GAP_BUCKETS, d))
        self.norm_in = nn.LayerNorm(d)
        self.norm_attention = nn.LayerNorm(d)
        self.norm_inner = nn.LayerNorm(d)
        self.norm_out = nn.LayerNorm(d)
        self.ask = _linear(d, d, generator)
        self.remember = _linear(d, 2 * d, generator)
        self.attended = _linear(d, d, generator)
        self.widen = _linear(d, inner, generator)
        self.narrow = _linear(inner, d, generator)
        self.out = nn.Linear(d, d)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, items: Tensor, present: Tensor, gaps: Tensor, dropout: Dropout | None = None) -> Tensor:
        """Read a batch of histories.

        Args:
            items: item vectors, oldest first; (batch, length, dimension).
            present: False at the pads on the left; (batch, length), bool.
            gaps: buckets of `gap_buckets`, 0 at pads; (batch, length), int64.
            dropout: given while training.

        Returns:
            (batch, dimension).
        """
        drop = dropout or no_dropout
        batch, length, d = items.shape
        x = torch.where(present[..., None], items, self.pad) + self.position[-length:]
        x = x + functional.embedding(gaps, self.gap)
        x = drop(self.norm_in(x))
        # The newest place can always be looked at, so that an empty history has something to attend to.
        visible = torch.cat([present[:, :-1], torch.ones_like(present[:, :1])], dim=1)
        normed = self.norm_attention(x)
        key, value = self.remember(normed).split(d, dim=-1)
        attended = functional.scaled_dot_product_attention(
            self._by_head(self.ask(normed[:, -1:])),  # (batch, heads, 1, d / heads): only the newest place asks
            self._by_head(key),
            self._by_head(value),
            attn_mask=visible[:, None, None, :],
        )
        x = x[:, -1] + drop(self.attended(attended.transpose(1, 2).reshape(batch, d)))
        x = x + drop(self.narrow(functional.gelu(self.widen(self.norm_inner(x)))))
        mean: Tensor = functional.layer_norm(profile(items, present), (d,))
        added: Tensor = self.out(self.norm_out(x))
        return mean + added

    def _by_head(self, x: Tensor) -> Tensor:
        batch, length, d = x.shape
        return x.view(batch, length, self.heads, d // self.heads).transpose(1, 2)


class Heads(nn.Module):
    """What each scenario adds on the user's side: a vector and a low-rank adapter. They start without effect."""

    def __init__(self, scenarios: int, sizes: Model, generator: torch.Generator) -> None:
        super().__init__()
        d, rank = sizes.dimension, sizes.adapter_rank
        self.vector = nn.Parameter(torch.zeros(scenarios, d))
        self.down = nn.Parameter(torch.randn(scenarios, d, rank, generator=generator) * d**-0.5)
        self.up = nn.Parameter(torch.zeros(scenarios, rank, d))

    def only(self, scenario: int) -> Heads:
        """One scenario's head by itself; it shares memory with this one, and so sees it learn."""
        alone = Heads.__new__(Heads)
        nn.Module.__init__(alone)
        for name, tensor in self.named_parameters():
            alone.register_parameter(name, nn.Parameter(tensor.data[scenario : scenario + 1], requires_grad=False))
        return alone

    def forward(self, x: Tensor, scenario: Tensor) -> Tensor:
        """The trunk's reading as queries of a scenario.

        Args:
            x: (batch, dimension).
            scenario: (batch,), int64.

        Returns:
            (batch, dimension); their inner product with an item's vector, plus the item's bias, is the neural score.
        """
        x = x + functional.embedding(scenario, self.vector)
        down = functional.embedding(scenario, self.down.flatten(1)).view(len(x), *self.down.shape[1:])
        up = functional.embedding(scenario, self.up.flatten(1)).view(len(x), *self.up.shape[1:])
        adapted = torch.bmm(torch.bmm(x[:, None], down), up)[:, 0]
        queries: Tensor = (x + adapted) * x.shape[1] ** -0.5
        return queries


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer that starts from a generator of ours, with no bias at first."""
    layer = nn.Linear(inputs, outputs)
    with torch.no_grad():
        layer.weight.copy_((torch.rand(outputs, inputs, generator=generator) * 2 - 1) * inputs**-0.5)
        layer.bias.zero_()
    return layer
