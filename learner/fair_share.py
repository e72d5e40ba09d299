"""The fair share: how much of what is learnt in a scenario may come from one user, so that nobody teaches it alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from learner.hold_out import Placed
from learner.replay import user_hash
from learner.saved import taken_over

WINDOW = 1000
"""Newest examples of a scenario in which shares are counted."""
FEW = 20
"""Users in the window up to which each may have all of it: where few are active, one of them is no flood."""


class FairShare:
    """Passes over what is above a user's share of the newest examples that were taken.

    Its state holds a hash of the user of each of them, for erasure too.

    Args:
        share: of the window that a user may have where many are active; where n are, it is `FEW` / n if that is more.

    Attributes:
        refused: examples that were passed over since the process began.
    """

    def __init__(self, scenarios: int, share: float) -> None:
        self._share = share
        self._users = torch.zeros(scenarios, WINDOW, dtype=torch.int64)
        self._taken = torch.zeros(scenarios, dtype=torch.int64)
        self._counts = [Counter[int]() for _ in range(scenarios)]
        self.refused = 0

    def take(self, scenario: int, placed: Sequence[Placed]) -> list[Placed]:
        """Those of the examples that are within their users' shares, in their order."""
        counts, window, taken = self._counts[scenario], self._users[scenario].numpy(), int(self._taken[scenario])
        kept = []
        for each in placed:
            user = user_hash(each[0].user_id)
            active = len(counts) + (user not in counts)
            if counts.get(user, 0) >= WINDOW * max(self._share, FEW / active):
                self.refused += 1
                continue
            place = taken % WINDOW
            self._drop(counts, int(window[place]))
            window[place] = user
            counts[user] += 1
            taken += 1
            kept.append(each)
        self._taken[scenario] = taken
        return kept

    def forget_user(self, user: int) -> int:
        """Forget which examples were this user's; returns how many."""
        theirs = self._users == user
        self._users[theirs] = 0
        for counts in self._counts:
            counts.pop(user, None)
        return int(theirs.sum())

    # A part of the learner's state

    def state(self) -> dict[str, Tensor]:
        return {"user": self._users, "taken": self._taken}

    def by_scenario(self) -> dict[str, int]:
        return {"user": 0, "taken": 0}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what was saved."""
        saved = taken_over("fair share", state, self.state(), {})
        self._users, self._taken = saved["user"], saved["taken"]
        self._counts = []
        for row in self._users.numpy():
            users, numbers = np.unique(row[row != 0], return_counts=True)
            self._counts.append(Counter(dict(zip(users.tolist(), numbers.tolist(), strict=True))))

    @staticmethod
    def _drop(counts: Counter[int], user: int) -> None:
        if user == 0:
            return
        counts[user] -= 1
        if counts[user] <= 0:
            del counts[user]
