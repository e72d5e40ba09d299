"""The forgetting matrix as a table: a row for each probe set, a column for each time that all were tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from schemas.tables import ProbeRecall

MOST_COLUMNS = 18
SHADES = 8
LOST_SHARE = 0.15
"""A probe set is marked as forgotten whose recall lies by this share under the best that it ever had."""


@dataclass(frozen=True)
class Cell:
    """Recall on a probe set at one time, and how dark it is shown, from 0 to `SHADES` - 1."""

    recall: float
    shade: int
    lost: bool = False


@dataclass(frozen=True)
class Row:
    """A probe set; a None where it was not tested.

    Attributes:
        best: the highest recall that it ever had, and `last`: the newest.
    """

    window: int
    began_at: float
    ended_at: float
    size: int
    cells: list[Cell | None]
    best: float
    last: float

    @property
    def forgotten(self) -> float:
        """How far recall lies under its best, in points of recall."""
        return self.best - self.last


@dataclass(frozen=True)
class Matrix:
    """Probe sets by age, the oldest first, over times of testing."""

    times: list[float]
    rows: list[Row]

    @property
    def forgetting(self) -> float | None:
        """Mean over all probe sets but the newest, which had no time to be forgotten; None where there is only one."""
        return fmean(row.forgotten for row in self.rows[:-1]) if len(self.rows) > 1 else None

    @property
    def most_forgotten(self) -> Row | None:
        lost = [row for row in self.rows[:-1] if row.cells and row.cells[-1] and row.cells[-1].lost]
        return max(lost, key=lambda row: row.forgotten, default=None)


def matrix_of(cells: Sequence[ProbeRecall]) -> Matrix:
    """Of many times evenly spread ones are shown, the newest always; best and last are over all of them."""
    times = sorted({each.at for each in cells})
    shown = times
    if len(times) > MOST_COLUMNS:
        shown = [times[round(place * (len(times) - 1) / (MOST_COLUMNS - 1))] for place in range(MOST_COLUMNS)]
    highest = max((each.recall for each in cells), default=0.0)
    by_window: dict[int, list[ProbeRecall]] = {}
    for each in sorted(cells, key=lambda each: (each.window, each.at)):
        by_window.setdefault(each.window, []).append(each)
    return Matrix([float(at) for at in shown], [_row(of_one, shown, highest) for of_one in by_window.values()])


def _row(cells: Sequence[ProbeRecall], times: Sequence[int], highest: float) -> Row:
    best, last, found = max(each.recall for each in cells), cells[-1], {each.at: each.recall for each in cells}
    row: list[Cell | None] = []
    for at in times:
        recall = found.get(at)
        shade = min(SHADES - 1, int(recall / highest * SHADES)) if recall is not None and highest > 0 else 0
        lost = at == last.at and last.recall < best * (1 - LOST_SHARE)
        row.append(None if recall is None else Cell(recall, shade, lost))
    return Row(last.window, last.began_at, last.ended_at, last.size, row, best, last.recall)
