"""Decayed popularity: how often each item was used of late in each scenario, with nothing to sweep as time goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from learner.saved import taken_over

LEADERS = 1024
"""Rows that stay in sight of `Popularity.top`, of each scenario and half-life; up to twice as many between two cuts."""

UNKNOWN = math.inf
"""A total that is to be summed up again before it is used."""


class Popularity:
    """Decayed popularity of every item in every scenario, at two half-lives.

    An event counts 1 and halves with every half-life; the clock is the number of events of the scenario. What is stored
    is a key that no passing of time changes: log(count at clock c) + c * ln 2 / half_life. So the log of the count at a
    clock is key - clock * ln 2 / half_life, an event adds by logaddexp, and keys compare like the counts do.

    No method but `grow`, `load` and a `top` whose shelf is almost bare looks at every row: counting and asking cost the
    same in a catalogue of a million items.

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
        # By scenario, the rows that were ever used, in the order of their first use; 0 behind the last.
        self._used = torch.zeros(scenarios, rows, dtype=torch.int32, device=device)
        self._used_count = [0] * scenarios
        self._total = torch.full((scenarios,), -torch.inf, dtype=torch.float64, device=device)  # slow keys, summed up
        self._leaders = [(_Leaders(device), _Leaders(device)) for _ in range(scenarios)]

    @torch.inference_mode(False)
    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; all that is known stays."""
        more = rows - len(self.events)
        if more <= 0:
            return
        self.keys = torch.cat((self.keys, self.keys.new_full((len(self.keys), more, 2), -torch.inf)), 1)
        self.events = torch.cat((self.events, self.events.new_zeros(more)))
        self._used = torch.cat((self._used, self._used.new_zeros(len(self._used), more)), 1)

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
        self.events.index_add_(0, target[known], torch.ones_like(place))
        self._write(scenario, rows, peak + total.log_())
        self._total[scenario] = torch.cat([self._total[scenario, None], added[:, 0]]).logsumexp(0)

    def place(self, rows: Tensor, scenarios: Mapping[int, Tensor], events: Tensor) -> None:
        """Take over what another table counted.

        Args:
            rows: each once; (n,), int64.
            scenarios: keys by the scenario's number; (n, 2) each.
            events: (n,).
        """
        self.events[rows] = events
        for scenario, keys in scenarios.items():
            self._write(scenario, rows, keys)
            self._total[scenario] = UNKNOWN

    def used(self, scenario: int) -> Tensor:
        """The rows of the items that were ever used in the scenario, in the order of their first use.

        Returns:
            A view of the table, not to be changed; (n,), int32.
        """
        return self._used[scenario, : self._used_count[scenario]]

    def is_used(self, scenario: int, rows: Tensor) -> Tensor:
        """Which of these rows are among `used`; (n,) → (n,), bool."""
        return self._slow(scenario, rows) > -torch.inf

    def log_share(self, scenario: int, rows: Tensor) -> Tensor:
        """Natural log of each row's share of the scenario's events, by the slow count; -inf where never used.

        Args:
            rows: (n,), int64.

        Returns:
            (n,), float32.
        """
        if self._total[scenario] == UNKNOWN:
            self._total[scenario] = self.keys[scenario, self.used(scenario), 0].logsumexp(0)
        share: Tensor = self._slow(scenario, rows) - self._total[scenario]
        return share.float()

    def log_popularity(self, scenario: int, rows: Tensor, scenario_clock: float) -> Tensor:
        """Natural log of the decayed counts, slow and fast; -inf where never used.

        Args:
            rows: (...,), int64.

        Returns:
            (..., 2), float32.
        """
        keys = self.keys[scenario].index_select(0, rows.flatten()).view(*rows.shape, 2)
        return (keys - scenario_clock * self._slope).float()

    def share_of_late(self, scenario: int, rows: Tensor, scenario_clock: float) -> Tensor:
        """Each row's share of the scenario's events of late, which is what `top` orders by; 0 where never used.

        Args:
            rows: (n,), int64.

        Returns:
            (n,), float32.
        """
        return self._mean_share(self.keys[scenario].index_select(0, rows), scenario_clock).exp().float() / 2

    def top(self, scenario: int, eligible: Tensor, k: int, scenario_clock: float) -> Tensor:
        """The most popular of the eligible rows, best first; those never used come last.

        Both counts estimate the item's share of the events, count * ln 2 / half_life: the slow one with less noise, the
        fast one with less delay. The order is that of their mean.

        The leaders are looked at first. No other row is better than both bounds together, so where k of the leaders are
        at least as good as that they are the answer, and else all rows are looked at (the threshold algorithm of Fagin,
        Lotem and Naor 2003, https://doi.org/10.1016/S0022-0000(03)00026-6).

        Args:
            eligible: (rows,), bool.

        Returns:
            (at most k,), int64.
        """
        slow, fast = self._leaders[scenario]
        leading: Tensor = torch.unique(torch.cat((slow.rows, fast.rows)))
        leading = leading[eligible[leading]]
        if 0 < k <= len(leading):
            means, order = torch.topk(self._mean_share(self.keys[scenario, leading], scenario_clock), k)
            bound = self._mean_share(means.new_tensor([[slow.bound, fast.bound]]), scenario_clock)
            if bool(means[-1] >= bound[0]):
                return leading[order]
        rows = eligible.nonzero().flatten()
        rows = rows[rows > 0]
        return rows[torch.topk(self._mean_share(self.keys[scenario, rows], scenario_clock), min(k, len(rows))).indices]

    def above(self, scenario: int, rows: Tensor, eligible: Tensor) -> Tensor:
        """How many of the eligible rows were more popular of late than each of these, by the fast count.

        Only the leaders are looked at: the answer is exact of a row among them, and of another it is all of them.

        Args:
            rows: (…), int64.
            eligible: (rows,), bool.

        Returns:
            (…), int64.
        """
        leading = self._leaders[scenario][1].rows
        keys = self.keys[scenario, leading[eligible[leading]], 1].sort().values
        return len(keys) - torch.searchsorted(keys, self.keys[scenario, :, 1][rows], right=True)

    def take_scenario(self, source: Popularity, there: int, here: int, rows: Tensor) -> None:
        """Count in a scenario what another table counts in it, at these rows, each once, and nothing at all others."""
        keys = torch.full_like(self.keys[here], -torch.inf)
        keys[rows] = source.keys[there, rows]
        self.keys[here] = keys
        # In the order of their first use, as far as both have them.
        used = source.used(there)
        used = used[keys[used.long(), 0] > -torch.inf] if len(used) else used
        self._used[here] = 0
        self._used[here, : len(used)] = used
        self._used_count[here] = len(used)
        self._total[here] = UNKNOWN
        self._lead(here)

    def clear(self, rows: Tensor) -> None:
        """Forget the items of these rows; (n,), int64."""
        for scenario in range(len(self.keys)):
            if bool((self.keys[scenario, rows, 0] > -torch.inf).any()):
                self._write(scenario, rows, self.keys.new_full((len(rows), 2), -torch.inf))
                self._total[scenario] = UNKNOWN
        self.events[rows] = 0

    def state(self) -> dict[str, Tensor]:
        """The tables themselves, to be saved: copy what must outlive the next update."""
        return {"keys": self.keys, "events": self.events, "used": self._used, "total": self._total}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, of whatever number of rows.

        Raises:
            StateMismatch: a table is missing, or was made for other scenarios.
        """
        tables = taken_over("popularity", state, self.state(), rows={"keys": 1, "events": 0, "used": 1})
        self.keys, self.events = tables["keys"], tables["events"]
        self._used, self._total = tables["used"], tables["total"]
        self._used_count = (self._used > 0).sum(1).tolist()
        for scenario in range(len(self._leaders)):
            self._lead(scenario)

    def _lead(self, scenario: int) -> None:
        """Find the leaders anew."""
        for column, leaders in enumerate(self._leaders[scenario]):
            leaders.clear()
            leaders.rise(self.used(scenario).long(), self.keys[scenario, :, column])

    def _write(self, scenario: int, rows: Tensor, keys: Tensor) -> None:
        """Set keys, none of them of the row 0 and each row once, and keep the used ones and the leaders in step."""
        before, after = self.keys[scenario, rows, 0] > -torch.inf, keys[:, 0] > -torch.inf
        self.keys[scenario, rows] = keys
        gone, new = rows[before & ~after], rows[after & ~before]
        if len(gone):
            used = self.used(scenario)
            staying = used[~torch.isin(used, gone)]
            used.zero_()[: len(staying)] = staying
            self._used_count[scenario] = len(staying)
        count = self._used_count[scenario]
        self._used[scenario, count : count + len(new)] = new.int()
        self._used_count[scenario] += len(new)
        for column, leaders in enumerate(self._leaders[scenario]):
            leaders.drop(gone)
            leaders.rise(rows, self.keys[scenario, :, column])

    def _slow(self, scenario: int, rows: Tensor) -> Tensor:
        return self.keys[scenario].index_select(0, rows)[:, 0]

    def _mean_share(self, keys: Tensor, scenario_clock: float) -> Tensor:
        """Log of twice the mean of both estimates; (n, 2) → (n,)."""
        shares = keys - scenario_clock * self._slope + self._slope.log()
        return torch.logaddexp(shares[:, 0], shares[:, 1])


class _Leaders:
    """The rows with the greatest keys, kept without ever looking at the others.

    Attributes:
        rows: at least `LEADERS` of them, if so many were ever used; (n,), int64.
        bound: no row outside has a greater key.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.rows = torch.zeros(0, dtype=torch.int64, device=device)
        self.bound = -math.inf

    def rise(self, rows: Tensor, keys: Tensor) -> None:
        """The keys of these rows were written.

        Args:
            rows: each once; (n,), int64.
            keys: of all rows; (rows,).
        """
        above = rows[(keys[rows] > self.bound) & ~torch.isin(rows, self.rows)]
        if len(above) == 0:
            return
        self.rows = torch.cat((self.rows, above))
        if len(self.rows) > 2 * LEADERS:
            best, order = keys[self.rows].topk(LEADERS + 1)
            self.rows = self.rows[order[:LEADERS]]
            self.bound = float(best[-1])

    def drop(self, rows: Tensor) -> None:
        """These rows hold nothing any more."""
        if len(rows):
            self.rows = self.rows[~torch.isin(self.rows, rows)]

    def clear(self) -> None:
        self.rows = self.rows[:0]
        self.bound = -math.inf
