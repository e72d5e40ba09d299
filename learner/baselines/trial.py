"""The trial that every baseline stands: it ranks a micro-batch of events, and only then learns from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from learner.outcomes import DEPTH

__all__ = ["DEPTH", "Baseline", "Flags", "Floats", "Rows", "Table", "Trial", "best", "most_used_first", "with_room"]

Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]
Table = TypeVar("Table", bound=NDArray[Any])


@dataclass(frozen=True)
class Trial:
    """A micro-batch of events of one scenario, in the order in which they happened, as integers.

    Item rows count from 1; 0 is the pad.

    Attributes:
        scenario: its number, from 0.
        users: dense numbers; (batch,), int64.
        history: what each user had used just before the event, in all scenarios: item rows, oldest first, 0 pads on
            the left; (batch, length), int64.
        target: the item row acted on; (batch,), int64.
        weight: of the event; negative for dislikes; (batch,), float32.
        excluded: rows never to be recommended, 0 pads: what the user acted on already, unless the scenario repeats;
            (batch, e), int64.
        now: when it happened, in epoch seconds; (batch,), float64.
    """

    scenario: int
    users: Rows
    history: Rows
    target: Rows
    weight: NDArray[np.float32]
    excluded: Rows
    now: Floats

    def uses(self) -> Trial:
        """The same without the events that are no use: dislikes, and events on items that have no row."""
        return self.take(np.flatnonzero((self.weight >= 0) & (self.target > 0)))

    def take(self, at: NDArray[np.intp]) -> Trial:
        """The events at these places, in their order; (n,), int64."""
        return Trial(
            scenario=self.scenario,
            users=self.users[at],
            history=self.history[at],
            target=self.target[at],
            weight=self.weight[at],
            excluded=self.excluded[at],
            now=self.now[at],
        )


class Baseline(Protocol):
    """A rival of Headstream. The same trials and the same seed give the same lists."""

    def rank(self, trial: Trial, shelf: Flags) -> Rows:
        """What it would have recommended just before each event; changes nothing.

        Args:
            trial: only `scenario`, `users`, `history`, `excluded` and `now` are read.
            shelf: which rows the scenario may recommend now; (rows,), bool.

        Returns:
            Rows of the shelf, best first, none excluded, none twice, 0 pads on the right; (batch, depth), int64.
        """

    def learn(self, trial: Trial) -> None:
        """Learn from the uses among the events; dislikes leave no trace."""

    def grow(self, rows: int) -> None:
        """Make room for `rows` rows, the pad included; all that is known stays."""


def most_used_first(shelf: Flags, uses: NDArray[Any]) -> Rows:
    """The rows of a shelf, most used first; of equals the lower row comes first.

    Args:
        shelf: (rows,), bool.
        uses: anything that orders rows as their use does; (rows,).
    """
    rows = np.flatnonzero(shelf[1:]) + 1
    return rows[np.argsort(-uses[rows], kind="stable")]


def best(scores: Floats, rows: Rows, excluded: Rows, depth: int) -> Rows:
    """The rows with the highest scores.

    Args:
        scores: higher is better; (batch, n).
        rows: what was scored, each once; of equal scores the row that stands first here wins; (n,), int64.
        excluded: rows never to be listed, 0 pads; (batch, e), int64.

    Returns:
        Best first, 0 pads on the right; (batch, depth), int64.
    """
    place = np.full(max(rows.max(initial=0), excluded.max(initial=0)) + 1, len(rows))  # of a row in `rows`, or past it
    place[rows] = np.arange(len(rows))
    allowed = np.ones((len(scores), len(rows) + 1), np.bool_)
    np.put_along_axis(allowed, place[excluded], False, 1)
    listed = np.zeros((len(scores), depth), np.int64)
    for user, (score, own) in enumerate(zip(scores, allowed[:, :-1], strict=True)):
        candidates, score = rows[own], score[own]
        if len(candidates) > depth:
            near = score >= np.partition(score, -depth)[-depth]
            candidates, score = candidates[near], score[near]
        order = np.argsort(-score, kind="stable")[:depth]
        listed[user, : len(order)] = candidates[order]
    return listed


def with_room(table: Table, rows: int, fill: float = 0) -> Table:
    """The table with at least `rows` rows, new ones filled with `fill`; (rows, ...)."""
    more = max(0, rows - len(table))
    grown: Table = np.concatenate((table, np.full((more, *table.shape[1:]), fill, table.dtype)))  # type: ignore[assignment]
    return grown
