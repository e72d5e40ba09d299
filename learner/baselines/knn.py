"""Item-kNN, plain: what was used together with the user's last items, counted exactly and for ever."""

from __future__ import annotations

from array import array
from collections import defaultdict

import numpy as np

from learner.baselines.trial import DEPTH, Flags, Floats, Rows, Trial, best, most_used_first, with_room

UNCOUNTED = 64
"""Co-uses that a short row may leave uncounted."""


class ItemKNN:
    """Incremental item-based nearest neighbours with cosine similarity and unbounded rows.

    With n(i) the uses of an item, and n(h, c) how often one of the two was used while the other was among the `window`
    newest items of the history:

        score(c) = sum over the `recent` newest items h of the history of  n(h, c) / sqrt((n(h) + 1) (n(c) + 1))

    Of equal scores the more used item comes first, then the lower row. Sarwar et al. 2001, Item-based collaborative
    filtering recommendation algorithms, https://doi.org/10.1145/371920.372071; incremental as in Papagelis et al. 2005,
    Incremental collaborative filtering for highly-scalable recommendation algorithms.
    """

    def __init__(self, rows: int, *, window: int = 50, recent: int = 20, depth: int = DEPTH) -> None:
        """Make an empty table.

        Args:
            window: newest history items that a use is counted with.
            recent: newest history items that are asked for their neighbours.
        """
        self._uses = np.zeros(rows, np.int64)
        self._partners: defaultdict[int, _Partners] = defaultdict(_Partners)
        self._window = window
        self._recent = recent
        self._depth = depth

    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        rows = most_used_first(shelf, self._uses)
        scores = np.zeros((len(trial.users), len(rows)))
        for user, history in enumerate(trial.history[:, -self._recent :]):
            scores[user] = self._score(history)[rows]
        return best(scores / np.sqrt(self._uses[rows] + 1), rows, trial.excluded, self._depth)

    def learn(self, trial: Trial) -> None:
        uses = trial.uses()
        np.add.at(self._uses, uses.target, 1)
        for history, target in zip(uses.history[:, -self._window :].tolist(), uses.target.tolist(), strict=True):
            for before in filter(None, history):
                self._partners[before].add(target)
                if before != target:
                    self._partners[target].add(before)

    def grow(self, rows: int) -> None:
        self._uses = with_room(self._uses, rows)

    def _score(self, history: Rows) -> Floats:
        """The scores of all rows, not yet held back for their own uses; (rows,)."""
        scores = np.zeros(len(self._uses))
        for before in filter(None, history.tolist()):
            if before in self._partners:
                self._partners[before].add_to(scores, (self._uses[before] + 1) ** -0.5)
        return scores


class _Partners:
    """How often one item was used together with each other one.

    New co-uses wait uncounted until they are a fair share of the row: one more then costs the same, however long the
    row has become.
    """

    def __init__(self) -> None:
        self._rows = np.zeros(0, np.int64)
        self._times = np.zeros(0)
        self._uncounted = array("q")

    def add(self, partner: int) -> None:
        self._uncounted.append(partner)
        if len(self._uncounted) > UNCOUNTED + len(self._rows) // 4:
            self._count()

    def add_to(self, scores: Floats, weight: float) -> None:
        """Add to the score of each partner `weight` times the number of co-uses; (rows,)."""
        scores[self._rows] += weight * self._times
        np.add.at(scores, np.frombuffer(self._uncounted, np.int64), weight)

    def _count(self) -> None:
        rows = np.concatenate((self._rows, np.frombuffer(self._uncounted, np.int64)))
        times = np.concatenate((self._times, np.ones(len(self._uncounted))))
        self._rows, place = np.unique(rows, return_inverse=True)
        self._times = np.zeros(len(self._rows))
        np.add.at(self._times, place, times)
        self._uncounted = array("q")
