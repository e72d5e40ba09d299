"""Item-kNN, tuned: bounded rows that forget, and a say that fades with distance and recency; the rival to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learner.baselines.trial import DEPTH, Flags, Floats, Rows, Trial, best, most_used_first, with_room
from learner.compiled import compiled

SOURCE_POWER = 0.5
TARGET_POWER = 0.35
"""How strongly much-used items are held back: as history items, and as candidates."""

LARGEST_UNIT = 1e6
"""What one use may weigh before all is scaled down again: far from where float32 loses the old uses."""


class RowUnknown(IndexError):
    """A trial names a row that the tables have no room for.

    Attributes:
        row: the highest of the trial.
        rows: how many there are.
    """

    def __init__(self, row: int, rows: int) -> None:
        super().__init__(f"row {row} is not one of the {rows} rows there is room for; grow({row + 1}) makes room")
        self.row = row
        self.rows = rows


class TunedItemKNN:
    """Incremental item-based nearest neighbours with bounded, decaying rows.

    A use of item c adds exp(-q / distance) to w(h_q, c), in the rows of both, for each of the `window` newest items of
    the history: h_0 is the newest. All weights w and uses n halve every `half_life` uses. A row keeps its strongest
    `neighbours` by lossy counting (Manku and Motwani 2002, https://www.vldb.org/conf/2002/S10P03.pdf).

        score(c) = sum over q < window of  exp(-q / recency)  w(h_q, c) / (n(h_q) + 1)^.5 / (n(c) + 1)^.35

    Of equal scores the more used item comes first, then the lower row.
    """

    def __init__(
        self,
        rows: int,
        *,
        neighbours: int = 256,
        window: int = 20,
        distance: float = 30.0,
        recency: float = 5.0,
        half_life: float = 20_000.0,
        depth: int = DEPTH,
    ) -> None:
        """Make empty tables.

        Args:
            neighbours: of each item, at most.
            window: newest history items that are read.
            distance: uses over which the weight of a pair falls by e.
            recency: uses over which a history item's say falls by e.
            half_life: in uses over all scenarios.
        """
        self._partners = np.zeros((rows, neighbours), np.int32)
        self._together = np.zeros((rows, neighbours), np.float32)
        self._uses = np.zeros(rows)
        # Nothing decays: what a use weighs grows instead, and every weight is read as so many units.
        self._unit = 1.0
        self._growth = 2.0 ** (1.0 / half_life)
        self._near = np.exp(-np.arange(window) / distance)  # (window,), newest first
        self._recent = np.exp(-np.arange(window) / recency)  # (window,), newest first
        self._depth = depth

    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        self._check(trial.history)
        rows = most_used_first(shelf, self._uses)
        place = np.full(len(self._uses), -1)
        place[rows] = np.arange(len(rows))
        scores = np.zeros((len(trial.users), len(rows)))
        _score(trial.history, self._recent, self._partners, self._together, self._uses, self._unit, place, scores)
        scores /= (self._uses[rows] / self._unit + 1) ** TARGET_POWER
        return best(scores, rows, trial.excluded, self._depth)

    def learn(self, trial: Trial) -> None:
        self._check(trial.history)
        self._check(trial.target)
        uses = trial.uses()
        self._unit = _learn(
            uses.history,
            uses.target,
            self._near,
            self._growth,
            self._partners,
            self._together,
            self._uses,
            self._unit,
        )

    def grow(self, rows: int) -> None:
        self._partners = with_room(self._partners, rows)
        self._together = with_room(self._together, rows)
        self._uses = with_room(self._uses, rows)

    def _check(self, rows: Rows) -> None:
        """Refuse rows beyond the tables: compiled loops would write there all the same."""
        if (highest := int(rows.max(initial=0))) >= len(self._uses):
            raise RowUnknown(highest, len(self._uses))


@compiled
def _learn(
    history: Rows,
    target: Rows,
    near: Floats,
    growth: float,
    partners: NDArray[np.int32],
    together: NDArray[np.float32],
    uses: Floats,
    unit: float,
) -> float:
    """Count uses in their order; returns what the last of them weighs."""
    length = history.shape[1]
    for event in range(len(target)):
        unit *= growth
        if unit > LARGEST_UNIT:
            together /= np.float32(unit)
            uses /= unit
            unit = 1.0
        used = target[event]
        uses[used] += unit
        for back in range(min(len(near), length)):
            before = history[event, length - 1 - back]
            if before == 0:
                continue
            weight = np.float32(near[back] * unit)
            _strengthen(partners[before], together[before], used, weight)
            if before != used:
                _strengthen(partners[used], together[used], before, weight)
    return unit


@compiled
def _strengthen(partners: NDArray[np.int32], together: NDArray[np.float32], partner: int, weight: np.float32) -> None:
    """Add to a pair of one row; a full row yields its weakest seat to a newcomer as strong, or else weakens it."""
    weakest = 0
    for seat in range(len(partners)):
        if partners[seat] == partner:
            together[seat] += weight
            return
        if partners[seat] == 0:
            partners[seat] = partner
            together[seat] = weight
            return
        if together[seat] < together[weakest]:
            weakest = seat
    if together[weakest] <= weight:
        partners[weakest] = partner
        together[weakest] = weight
    else:
        together[weakest] -= weight / np.float32(2)


@compiled
def _score(
    history: Rows,
    recent: Floats,
    partners: NDArray[np.int32],
    together: NDArray[np.float32],
    uses: Floats,
    unit: float,
    place: Rows,
    scores: Floats,
) -> None:
    """Add up the scores of the rows that have a place, not yet held back for their own uses; (batch, n)."""
    length = history.shape[1]
    for user in range(len(history)):
        for back in range(min(len(recent), length)):
            before = history[user, length - 1 - back]
            if before == 0:
                continue
            say = recent[back] / (uses[before] / unit + 1) ** SOURCE_POWER / unit
            for seat in range(partners.shape[1]):
                partner = partners[before, seat]
                if partner == 0:
                    break
                if place[partner] >= 0:
                    scores[user, place[partner]] += say * together[before, seat]
