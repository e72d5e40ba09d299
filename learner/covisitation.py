"""Co-visitation: which items are used together, learnt from the stream in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

RECENCY = 5.0
"""Events over which a history item's say in the knn score falls by e."""

FORWARD_RECENCY = 1.5
FORWARD_REACH = 3
"""Only so many of the newest history items count as followed by the target."""

SOURCE_POWER = 0.5
TARGET_POWER = 0.35
TASTE_POWER = 0.5
"""How strongly popular items are held back: as history items, as candidates, and as candidates in the taste scores."""

ROWS_AT_ONCE = 1 << 16
"""Rows that are swept at a time, so that a sweep needs little memory beside the table."""


class StateMismatch(ValueError):
    """A saved table that does not fit.

    Attributes:
        table, field: what was to be loaded.
        value: what it is.
        allowed: what it must be.
    """

    def __init__(self, table: str, field: str, value: str, allowed: str) -> None:
        super().__init__(f"saved {table}: {field} is {value}; it must be {allowed}")
        self.table = table
        self.field = field
        self.value = value
        self.allowed = allowed


class CoVisitation:
    """Which items are used together: bounded rows of neighbours per item, decaying with the stream.

    An event on a target adds, for each item h of the user's last `window`, q events back, exp(-q / distance) to the
    pair (h, target), in both rows; the row of h also notes it as `forward` if h is among the last three. A row that is
    full gives up its weakest neighbour to a newcomer that is as strong, and otherwise only weakens it (lossy counting).

    All of it halves every `half_life` events. Nothing is swept for that: a row holds as of the clock in `touched`, and
    is brought forward when it is read or written.

    Attributes:
        neighbours: rows, 0 where empty; (rows, m), int32.
        together: weight of the pair; (rows, m), float32.
        forward: weight of "after this item came that one"; (rows, m), float32.
        count: decayed number of events; (rows,), float32.
        touched: clock as of which the row holds; (rows,), float64.
    """

    def __init__(
        self,
        rows: int,
        neighbours: int,
        *,
        half_life: float = 20_000.0,
        window: int = 20,
        distance: float = 30.0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an empty table.

        Args:
            neighbours: of each item, at most.
            half_life: in events over all scenarios.
            window: newest history items that are read.
            distance: events over which the weight of a pair falls by e.
        """
        self.neighbours = torch.zeros(rows, neighbours, dtype=torch.int32, device=device)
        self.together = torch.zeros(rows, neighbours, device=device)
        self.forward = torch.zeros(rows, neighbours, device=device)
        self.count = torch.zeros(rows, device=device)
        self.touched = torch.zeros(rows, dtype=torch.float64, device=device)
        self._half_life = half_life
        self._window = window
        self._distance = distance

    @torch.inference_mode(False)
    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; all that is known stays."""
        more = rows - len(self.count)
        if more <= 0:
            return
        for name, table in self.state().items():
            setattr(self, name, torch.cat((table, table.new_zeros(more, *table.shape[1:]))))

    def update(self, history: Tensor, target: Tensor, clock: float) -> Tensor:
        """Count one micro-batch, all of it at `clock`.

        Args:
            history: rows, oldest first, 0 pads on the left; (batch, length), int64.
            target: rows; a 0 counts for none; (batch,), int64.
            clock: events seen over all scenarios.

        Returns:
            The rows that changed, each once, in ascending order; (n,), int64.
        """
        pairs = self._pairs(history, target)
        used = target[target > 0]
        rows: Tensor = torch.unique(torch.cat((pairs.row, used)))
        self._bring_forward(rows, clock)
        self.count.index_add_(0, used, self.count.new_ones(len(used)))
        self._add(pairs)
        return rows

    def clear(self, rows: Tensor) -> None:
        """Forget the items of these rows, also as neighbours of others: whoever gets the row next inherits nothing.

        Args:
            rows: (n,), int64.
        """
        gone = torch.zeros(len(self.count), dtype=torch.bool, device=self.count.device)
        gone[rows] = True
        for start in range(0, len(gone), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            named = gone[self.neighbours[part]]  # (part, m)
            for table in (self.neighbours, self.together, self.forward):
                table[part].masked_fill_(named, 0)
        for table in self.state().values():
            table[rows] = 0

    def score(self, history: Tensor, clock: float) -> CoVisited:
        """Score all items that were used together with those of the history.

        With q = 0 for the newest history item h_0, and n the decayed count of an item:

            knn      = sum_q  exp(-q / 5)    together[h_q, c] / (n[h_q] + 1)^.5   / (n[c] + 1)^.35
            forward  = sum_q  exp(-q / 1.5)  forward[h_q, c]  / (n[h_q] + 1)^.5   / (n[c] + 1)^.35
            taste    = sum_q                 together[h_q, c] / (n[h_q] + 1)^.5   / (n[c] + 1)^.5
            strongest = max_q                together[h_q, c] / (n[h_q] + 1)^.5   / (n[c] + 1)^.5

        The cost does not depend on the number of items: the neighbours of a user's history are gathered, and those that
        name the same item are brought side by side by one sort.

        Args:
            history: rows, oldest first, 0 pads on the left; the last `window` are read; (batch, length), int64.
            clock: events seen over all scenarios.
        """
        batch, length = history.shape[0], min(history.shape[1], self._window)
        rows, m = self.neighbours.shape
        read = history[:, history.shape[1] - length :].flatten()  # (batch * length,)
        age = torch.arange(length - 1, -1, -1, dtype=torch.float32, device=read.device).repeat(batch)
        fade = self._fade(read, clock)
        source = fade / (self.count[read] * fade + 1) ** SOURCE_POWER
        follows = source * torch.exp(-age / FORWARD_RECENCY)
        near = torch.exp(-age / RECENCY)

        user = torch.arange(batch, device=read.device).repeat_interleave(length)
        keys = (user * rows)[:, None] + self.neighbours.index_select(0, read)  # (batch * length, m)
        keys, order = keys.flatten().sort()
        keys, place = torch.unique_consecutive(keys, return_inverse=True)
        taste = (self.together.index_select(0, read) * source[:, None]).flatten().index_select(0, order)
        ahead = (self.forward.index_select(0, read) * follows[:, None]).flatten().index_select(0, order)
        recent = taste * near.index_select(0, order // m)

        def summed(terms: Tensor) -> Tensor:
            return terms.new_zeros(len(keys)).index_add_(0, place, terms)

        items = keys % rows
        popularity = self.count.index_select(0, items) * self._fade(items, clock) + 1
        target, broad = popularity**-TARGET_POWER, popularity**-TASTE_POWER
        strongest = taste.new_zeros(len(keys)).scatter_reduce_(0, place, taste, "amax")
        scores = (summed(recent) * target, summed(ahead) * target, summed(taste) * broad, strongest * broad)
        return CoVisited(keys, torch.stack(scores, 1), batch, rows)

    def state(self) -> dict[str, Tensor]:
        """The tables themselves, to be saved: copy what must outlive the next update."""
        return {
            "neighbours": self.neighbours,
            "together": self.together,
            "forward": self.forward,
            "count": self.count,
            "touched": self.touched,
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, of whatever number of rows.

        Raises:
            StateMismatch: a table is missing, or was made for another number of neighbours.
        """
        for name, table in taken_over("co-visitation", state, self.state(), dict.fromkeys(self.state(), 0)).items():
            setattr(self, name, table)

    def _fade(self, rows: Tensor, clock: float) -> Tensor:
        """What is left at `clock` of each unit that a row holds; (n,), float32."""
        return torch.exp2((self.touched.index_select(0, rows) - clock) / self._half_life).float()

    def _bring_forward(self, rows: Tensor, clock: float) -> None:
        fade = self._fade(rows, clock)
        for table in (self.together, self.forward):
            table.index_copy_(0, rows, table.index_select(0, rows).mul_(fade[:, None]))
        self.count[rows] *= fade
        self.touched[rows] = clock

    def _pairs(self, history: Tensor, target: Tensor) -> _Pairs:
        """What a micro-batch adds to each pair, in both directions; pairs that occur more than once are summed."""
        batch, length = history.shape[0], min(history.shape[1], self._window)
        read = history[:, history.shape[1] - length :].flatten()  # (batch * length,)
        asked = target.repeat_interleave(length)
        known = ((read > 0) & (asked > 0)).nonzero().flatten()  # (pairs,)
        before, after = read[known], asked[known]
        age = torch.arange(length - 1, -1, -1, device=read.device).repeat(batch)[known]
        weight = torch.exp(-age / self._distance)
        rows = len(self.count)
        keys = torch.cat((before * rows + after, after * rows + before))
        keys, place = torch.unique(keys, return_inverse=True)
        together = weight.new_zeros(len(keys)).index_add_(0, place, weight.repeat(2))
        forward = weight.new_zeros(len(keys)).index_add_(0, place[: len(age)], weight * (age < FORWARD_REACH))
        return _Pairs(keys // rows, keys % rows, together, forward)

    def _add(self, pairs: _Pairs) -> None:
        match = self.neighbours.index_select(0, pairs.row) == pairs.item.int()[:, None]  # (pairs, m)
        place, column = match.nonzero(as_tuple=True)
        known = pairs.at(place)
        self.together[known.row, column] += known.together
        self.forward[known.row, column] += known.forward
        new = torch.ones_like(pairs.row, dtype=torch.bool).index_fill_(0, place, False)
        self._admit(pairs.at(new.nonzero().flatten()))

    def _admit(self, newcomers: _Pairs) -> None:
        """Seat new neighbours: a row's strongest newcomer against its weakest neighbour, the next against the next."""
        if len(newcomers.row) == 0:
            return
        order = newcomers.together.argsort(descending=True, stable=True)
        newcomers = newcomers.at(order[newcomers.row[order].argsort(stable=True)])
        rows, place, counts = torch.unique_consecutive(newcomers.row, return_inverse=True, return_counts=True)
        rank = torch.arange(len(place), device=place.device) - (counts.cumsum(0) - counts)[place]
        seats = min(int(counts.max()), self.neighbours.shape[1])
        empty = self.neighbours.index_select(0, rows) == 0
        strength = self.together.index_select(0, rows).masked_fill_(empty, -1.0)  # an empty seat is the weakest
        weakest, columns = strength.topk(seats, largest=False)  # (rows, seats)
        if int(counts.max()) > seats:
            seated = (rank < seats).nonzero().flatten()
            newcomers, place, rank = newcomers.at(seated), place[seated], rank[seated]
        seat = place * seats + rank
        column, holder = columns.flatten()[seat], weakest.flatten()[seat]
        wins = (holder <= newcomers.together).nonzero().flatten()
        winners, taken = newcomers.at(wins), column[wins]
        self.neighbours[winners.row, taken] = winners.item.int()
        self.together[winners.row, taken] = winners.together
        self.forward[winners.row, taken] = winners.forward
        fails = (holder > newcomers.together).nonzero().flatten()
        losers, kept = newcomers.at(fails), column[fails]
        self.together[losers.row, kept] -= losers.together / 2


class _Pairs(NamedTuple):
    """Weights to add to cells of the table; (pairs,) each, in ascending order of (row, item)."""

    row: Tensor
    item: Tensor
    together: Tensor
    forward: Tensor

    def at(self, positions: Tensor) -> _Pairs:
        """Those at some positions, in the order given."""
        return _Pairs(*(field.index_select(0, positions) for field in self))


class CoVisited:
    """Scores of a batch of users, kept only for the items that co-occur with each user's history."""

    def __init__(self, keys: Tensor, scores: Tensor, batch: int, rows: int) -> None:
        """Hold scores.

        Args:
            keys: user * rows + item, ascending, each once; (n,), int64.
            scores: knn, forward, taste, strongest; (n, 4), float32.
        """
        self._keys = keys
        self._scores = scores
        self._batch = batch
        self._rows = rows

    def top(self, k: int) -> Tensor:
        """The items with the highest knn scores, best first, 0 pads on the right; (batch, k), int64."""
        found = self._keys.new_zeros(self._batch, k)
        if len(self._keys) == 0:
            return found
        user = self._keys // self._rows
        counts = torch.bincount(user, minlength=self._batch)
        start = counts.cumsum(0) - counts
        place = torch.arange(len(user), device=user.device) - start[user]
        table = self._scores.new_zeros(self._batch, int(counts.max()))
        table[user, place] = self._scores[:, 0]
        best, columns = table.topk(min(k, table.shape[1]))  # (batch, at most k)
        items = self._keys[(start[:, None] + columns).clamp_(max=len(self._keys) - 1)] % self._rows
        found[:, : items.shape[1]] = items.masked_fill_(best <= 0, 0)
        return found

    def at(self, candidates: Tensor) -> Tensor:
        """The scores of given items, 0 where an item does not co-occur.

        Args:
            candidates: rows; (batch, c), int64.

        Returns:
            knn, forward, taste, strongest; (batch, c, 4), float32.
        """
        if len(self._keys) == 0:
            return self._scores.new_zeros(*candidates.shape, 4)
        users = torch.arange(self._batch, device=candidates.device)
        wanted = users[:, None] * self._rows + candidates
        place = torch.searchsorted(self._keys, wanted).clamp_(max=len(self._keys) - 1)
        scores = self._scores.index_select(0, place.flatten()).view(*candidates.shape, 4)
        return scores * (self._keys[place] == wanted)[..., None]


def taken_over(
    table: str, state: Mapping[str, Tensor], present: Mapping[str, Tensor], rows: Mapping[str, int]
) -> dict[str, Tensor]:
    """Copies of saved tensors, on the device of those that stand there now.

    Args:
        table: its name, for the message.
        present: what stands there now; the saved ones must be of the same type and shape, but for the number of rows.
        rows: for each tensor the dimension that counts rows.

    Raises:
        StateMismatch: a tensor is missing or has another shape or type, or they disagree on the number of rows.
    """
    taken: dict[str, Tensor] = {}
    count: int | None = None
    for field, old in present.items():
        new = state.get(field)
        if new is None:
            raise StateMismatch(table, field, "missing", f"{old.dtype} of shape {tuple(old.shape)}")
        shape = list(old.shape)
        shape[rows[field]] = new.shape[rows[field]] if count is None and new.ndim == old.ndim else count or 0
        if new.dtype != old.dtype or list(new.shape) != shape:
            raise StateMismatch(
                table, field, f"{new.dtype} of shape {tuple(new.shape)}", f"{old.dtype} of shape {tuple(shape)}"
            )
        count = shape[rows[field]]
        taken[field] = new.to(old.device, copy=True)
    return taken
