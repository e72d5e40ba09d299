"""Decayed popularity: how often each item was used of late in each scenario, with nothing to sweep as time goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from learner.saved import taken_over


class Popularity:
    """Decayed popularity of every item in every scenario, at two half-lives.

    An event counts 1 and halves with every half-life; the clock is the number of events of the scenario. What is stored
    is a key that no passing of time changes: log(count at clock c) + c * ln 2 / half_life. So the log of the count at a
    clock is key - clock * ln 2 / half_life, an event adds by logaddexp, and keys compare like the counts do.

    Attributes:
        keys: slow and fast, -inf where never used; (scenarios, rows, 2), float64.
        events: how many events an item ever had, over all scenarios; (rows,), int64.
    """

    def __init__(
        self,
        scenarios: int,
        rows: int,
        *,
        half_lives: tuple[float, float] = (3000.0, 300.0),
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an empty table.

        Args:
            half_lives: the slow and the fast one, in events of the scenario.
        """
        self.keys = torch.full((scenarios, rows, 2), -torch.inf, dtype=torch.float64, device=device)
        self.events = torch.zeros(rows, dtype=torch.int64, device=device)
        self._slope = torch.tensor(half_lives, dtype=torch.float64, device=device).reciprocal_() * math.log(2.0)

    @torch.inference_mode(False)
    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; all that is known stays."""
        more = rows - len(self.events)
        if more <= 0:
            return
        self.keys = torch.cat((self.keys, self.keys.new_full((len(self.keys), more, 2), -torch.inf)), 1)
        self.events = torch.cat((self.events, self.events.new_zeros(more)))

    def update(self, scenario: int, target: Tensor, scenario_clock: float) -> None:
        """Count one micro-batch.

        Args:
            target: rows, in the order of the events; a 0 advances the clock and counts for none; (batch,), int64.
            scenario_clock: before the batch; each event advances it by one.
        """
        clocks = torch.arange(1, len(target) + 1, dtype=torch.float64, device=target.device) + scenario_clock
        known = target > 0
        rows, place = torch.unique(target[known], return_inverse=True)
        added = clocks[known][:, None] * self._slope  # (events, 2)
        old = self.keys[scenario, rows]  # (rows, 2)
        peak = old.scatter_reduce(0, place[:, None].expand_as(added), added, "amax")
        total = (old - peak).exp_().index_add_(0, place, (added - peak[place]).exp_())
        self.keys[scenario, rows] = peak + total.log_()
        self.events.index_add_(0, target[known], torch.ones_like(place))

    def log_popularity(self, scenario: int, rows: Tensor, scenario_clock: float) -> Tensor:
        """Natural log of the decayed counts, slow and fast; -inf where never used.

        Args:
            rows: (...,), int64.

        Returns:
            (..., 2), float32.
        """
        keys = self.keys[scenario].index_select(0, rows.flatten()).view(*rows.shape, 2)
        return (keys - scenario_clock * self._slope).float()

    def top(self, scenario: int, eligible: Tensor, k: int, scenario_clock: float) -> Tensor:
        """The most popular of the eligible rows, best first; those never used come last.

        Both counts estimate the item's share of the events, count * ln 2 / half_life: the slow one with less noise, the
        fast one with less delay. The order is that of their mean.

        Args:
            eligible: (rows,), bool.

        Returns:
            (at most k,), int64.
        """
        rows = eligible.nonzero().flatten()
        rows = rows[rows > 0]
        shares = self.keys[scenario, rows] - scenario_clock * self._slope + self._slope.log()
        mean = torch.logaddexp(shares[:, 0], shares[:, 1])
        return rows[torch.topk(mean, min(k, len(rows))).indices]

    def clear(self, rows: Tensor) -> None:
        """Forget the items of these rows; (n,), int64."""
        self.keys[:, rows] = -torch.inf
        self.events[rows] = 0

    def state(self) -> dict[str, Tensor]:
        """The tables themselves, to be saved: copy what must outlive the next update."""
        return {"keys": self.keys, "events": self.events}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, of whatever number of rows.

        Raises:
            StateMismatch: a table is missing, or was made for other scenarios.
        """
        tables = taken_over("popularity", state, self.state(), rows={"keys": 1, "events": 0})
        self.keys, self.events = tables["keys"], tables["events"]
