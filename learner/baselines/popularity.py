"""Popularity: every user gets what was used most in the scenario, ever or of late."""

from __future__ import annotations

import math

import numpy as np

from learner.baselines.trial import DEPTH, Flags, Rows, Trial, best, most_used_first, with_room


class Popularity:
    """The items with the most uses in the scenario since the beginning; of equals the lower row comes first."""

    def __init__(self, rows: int, scenarios: int, *, depth: int = DEPTH) -> None:
        self._uses = np.zeros((rows, scenarios), np.int64)
        self._depth = depth

    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        uses = self._uses[:, trial.scenario]
        rows = most_used_first(shelf, uses)
        scores = np.broadcast_to(uses[rows].astype(np.float64), (len(trial.users), len(rows)))
        return best(scores, rows, trial.excluded, self._depth)

    def learn(self, trial: Trial) -> None:
        np.add.at(self._uses[:, trial.scenario], trial.uses().target, 1)

    def grow(self, rows: int) -> None:
        self._uses = with_room(self._uses, rows)


class DecayedPopularity:
    """The items with the most uses of late in the scenario; of equals the lower row comes first.

    A use counts 1 and halves with every half-life. Kept is the logarithm of that count at clock 0, to which a use at
    clock t adds 2 ** (t / half_life): so no passing of time changes it, and items compare by it at any time.
    """

    def __init__(self, rows: int, scenarios: int, *, half_life: float = 500.0, depth: int = DEPTH) -> None:
        """Make an empty table.

        Args:
            half_life: in uses of the scenario.
        """
        self._log_counts = np.full((rows, scenarios), -np.inf)
        self._clocks = np.zeros(scenarios, np.int64)
        self._growth = math.log(2.0) / half_life
        self._depth = depth

    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        log_counts = self._log_counts[:, trial.scenario]
        rows = most_used_first(shelf, log_counts)
        scores = np.broadcast_to(log_counts[rows], (len(trial.users), len(rows)))
        return best(scores, rows, trial.excluded, self._depth)

    def learn(self, trial: Trial) -> None:
        used = trial.uses().target
        clocks = self._clocks[trial.scenario] + np.arange(len(used))
        np.logaddexp.at(self._log_counts[:, trial.scenario], used, clocks * self._growth)
        self._clocks[trial.scenario] += len(used)

    def grow(self, rows: int) -> None:
        self._log_counts = with_room(self._log_counts, rows, -np.inf)
