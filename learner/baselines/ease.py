"""EASE: a linear model of which items go together, solved in closed form anew every so many events."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from learner.baselines.trial import DEPTH, Flags, Floats, Rows, Trial, best, most_used_first, with_room


class Ease:
    """EASE, refit on all users every `refit` uses.

    X is the binary matrix of users and the items they used. The item-item weights B minimise
    |X - X B|^2 + regularisation |B|^2 with a zero diagonal; with P = (X'X + regularisation I)^-1 they are

        B[h, c] = -P[h, c] / P[c, c],    score(c) = sum over all items h that the user ever used of B[h, c]

    Solving takes time with the cube of the items and memory (about 32 bytes each) with their square, so that only the
    most used take part. Any other item, and one unknown at the last fit, scores 0. Of equal scores the more used item
    comes first, then the lower row.
    Steck 2019, Embarrassingly shallow autoencoders for sparse data, https://arxiv.org/abs/1905.03375.
    """

    def __init__(
        self, rows: int, *, refit: int = 5000, regularisation: float = 250.0, limit: int = 3000, depth: int = DEPTH
    ) -> None:
        """Make a model that knows nothing yet.

        Args:
            refit: uses after which the weights are solved anew.
            regularisation: the paper's lambda, in users: co-uses that are few beside it count for little.
            limit: items that take part, at most.
        """
        self._uses = np.zeros(rows, np.int64)
        self._past: defaultdict[int, set[int]] = defaultdict(set)
        self._known = np.zeros(0, np.int64)
        self._weights = np.zeros((0, 0), np.float32)
        self._unfit = 0
        self._refit = refit
        self._regularisation = regularisation
        self._limit = limit
        self._depth = depth

    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        rows = most_used_first(shelf, self._uses)
        column = self._columns()
        used = np.zeros((len(trial.users), len(self._known) + 1), np.float32)
        for user, (number, history) in enumerate(zip(trial.users.tolist(), trial.history, strict=True)):
            past = self._past.get(number, set())
            used[user, column[[*past, *history]]] = 1
        scores = np.zeros_like(used)  # (batch, 1 + items known at the last fit): column 0 is of all others
        scores[:, 1:] = used[:, 1:] @ self._weights
        return best(scores[:, column[rows]].astype(np.float64), rows, trial.excluded, self._depth)

    def learn(self, trial: Trial) -> None:
        """Note the uses, and fit anew if it is time."""
        uses = trial.uses()
        np.add.at(self._uses, uses.target, 1)
        for user, target in zip(uses.users.tolist(), uses.target.tolist(), strict=True):
            self._past[user].add(target)
        self._unfit += len(uses.target)
        if self._unfit >= self._refit:
            self._unfit = 0
            self._fit()

    def grow(self, rows: int) -> None:
        self._uses = with_room(self._uses, rows)

    def _fit(self) -> None:
        most_used = np.argsort(-self._uses, kind="stable")[: self._limit]
        self._known = np.sort(most_used[self._uses[most_used] > 0])
        column = self._columns()
        gram = np.zeros((len(self._known), len(self._known)))
        for past in self._past.values():
            columns = column[list(past)] - 1
            columns = columns[columns >= 0]
            gram[np.ix_(columns, columns)] += 1
        self._weights = solve(gram, self._regularisation).astype(np.float32)

    def _columns(self) -> Rows:
        """Where each row stands among those known at the last fit, from 1; 0 for all others; (rows,)."""
        column = np.zeros(len(self._uses), np.int64)
        column[self._known] = np.arange(len(self._known)) + 1
        return column


def solve(gram: Floats, regularisation: float) -> Floats:
    """EASE's weights.

    Args:
        gram: X'X, how many users used both; (items, items).

    Returns:
        B, from history items (rows) to candidates (columns), zero on the diagonal; (items, items).
    """
    inverse = np.linalg.inv(gram + regularisation * np.eye(len(gram)))
    weights: Floats = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return weights
