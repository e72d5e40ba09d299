"""Co-visitation: which items are used together, learnt from the stream in bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.compiled import compiled
from learner.covisited import CoVisited
from learner.directory import Floats, Integers, Places, directory_size, place_of
from learner.saved import taken_over

RECENCY = 5.0
"""Events over which a history item's say in the knn score falls by e."""

FORWARD_RECENCY = 1.5
FORWARD_REACH = 3
"""Only so many of the newest history items count as followed by the target."""

TARGET_POWER = 0.35
"""How strongly popular items are held back as candidates; as history items, and in the taste scores, by .5."""

FIRST_SLOTS = 1024

ROWS_AT_ONCE = 1 << 16
"""Slots that are swept at a time, so that a sweep needs little memory beside the table."""


class Neighbours(NamedTuple):
    """The neighbours of some items, as the table keeps them.

    Attributes:
        rows: 0 where there is none; (n, m), int32.
        together: weight of the pair; (n, m), float32.
        forward: weight of "after this item came that one"; (n, m), float32.
    """

    rows: Tensor
    together: Tensor
    forward: Tensor


class CoVisitation:
    """Which items are used together: bounded rows of neighbours per item, decaying with the stream.

    An event on a target adds, for each item h of the user's last `window`, q events back, exp(-q / distance) to the
    pair (h, target), in both rows; the row of h also notes it as `forward` if h is among the last three. A row that is
    full gives up its weakest neighbour to a newcomer that is as strong, and otherwise only weakens it (lossy counting).

    All of it halves every `half_life` events. Nothing is swept for that: a row holds as of the clock in `touched`, and
    is brought forward when it is read or written.

    Neighbours lie in slots, which an item gets with its first pair: most of a large catalogue never earns one. Slot 0
    stays empty and stands for none. The tables live in the host's memory, wherever the model runs, and are read and
    written by compiled loops.

    Attributes:
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
    ) -> None:
        """Make an empty table.

        Args:
            neighbours: of each item, at most.
            half_life: in events over all scenarios.
            window: newest history items that are read.
            distance: events over which the weight of a pair falls by e.
        """
        self.count = torch.zeros(rows)
        self.touched = torch.zeros(rows, dtype=torch.float64)
        self._slot = torch.zeros(rows, dtype=torch.int32)
        self._neighbours = torch.zeros(FIRST_SLOTS, neighbours, dtype=torch.int32)
        self._together = torch.zeros(FIRST_SLOTS, neighbours)
        self._forward = torch.zeros(FIRST_SLOTS, neighbours)
        self._end = 1
        self._free: list[int] = []
        self._half_life = half_life
        self._window = window
        self._distance = distance

    @property
    def neighbours(self) -> int:
        """How many of each item are kept at most."""
        return self._neighbours.shape[1]

    @torch.inference_mode(False)
    def grow(self, rows: int) -> None:
        """Make room for `rows` rows; all that is known stays."""
        more = rows - len(self.count)
        if more > 0:
            for name in ("count", "touched", "_slot"):
                table = getattr(self, name)
                setattr(self, name, torch.cat((table, table.new_zeros(more))))

    def update(self, history: Tensor, target: Tensor, clock: float) -> Tensor:
        """Count one micro-batch, all of it at `clock`.

        Args:
            history: rows, oldest first, 0 pads on the left; (batch, length), int64.
            target: rows; a 0 counts for none; (batch,), int64.
            clock: events seen over all scenarios.

        Returns:
            The rows that changed, each once, in ascending order; (n,), int64.
        """
        read = _newest(history, self._window) * (target > 0)[:, None]
        used = target * (read > 0).any(1)
        paired = torch.unique(torch.cat((read.flatten(), used)))
        self._allot(paired[paired > 0])
        rows: Tensor = torch.unique(torch.cat((paired, target)))
        weights = torch.exp(-torch.arange(read.shape[1]) / self._distance)
        _update(self._tables(), read.numpy(), target.numpy(), weights.numpy(), clock, self._half_life)
        return rows[rows > 0]

    def clear(self, rows: Tensor) -> None:
        """Forget the items of these rows, also as neighbours of others: whoever gets the row next inherits nothing.

        Args:
            rows: (n,), int64.
        """
        rows = torch.unique(rows)  # a row that is named twice has one slot to give back
        gone = torch.zeros(len(self.count), dtype=torch.bool)
        gone[rows] = True
        for start in range(1, self._end, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, self._end))
            named = gone[self._neighbours[part]]  # (part, m)
            for table in (self._neighbours, self._together, self._forward):
                table[part].masked_fill_(named, 0)
        slots = self._slot[rows]
        slots = slots[slots > 0].long()
        for table in (self._neighbours, self._together, self._forward):
            table[slots] = 0
        self._free.extend(slots.tolist())
        for table in (self.count, self.touched, self._slot):
            table[rows] = 0

    def score(self, history: Tensor, clock: float) -> CoVisited:
        """Score all items that were used together with those of the history.

        With q = 0 for the newest history item h_0, and n the decayed count of an item:

            knn      = sum_q  exp(-q / 5)    together[h_q, c] / (n[h_q] + 1)^.5   / (n[c] + 1)^.35
            forward  = sum_q  exp(-q / 1.5)  forward[h_q, c]  / (n[h_q] + 1)^.5   / (n[c] + 1)^.35
            taste    = sum_q                 together[h_q, c] / (n[h_q] + 1)^.5   / (n[c] + 1)^.5
            strongest = max_q                together[h_q, c] / (n[h_q] + 1)^.5   / (n[c] + 1)^.5

        The cost does not depend on the number of items.

        Args:
            history: rows, oldest first, 0 pads on the left; the last `window` are read; (batch, length), int64.
            clock: events seen over all scenarios.
        """
        read = _newest(history, self._window).numpy()
        batch, most = len(read), read.shape[1] * self.neighbours
        items = np.empty((batch, most), np.int64)
        scores = np.empty((batch, most, 4), np.float32)
        found = np.empty(batch, np.int64)
        places = np.zeros((batch, directory_size(most)), np.int32)
        _score(self._tables(), read, clock, self._half_life, items, scores, found, places)
        return CoVisited(items, scores, found, places)

    def speakers(self, past: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """For each shown item the item of the past that it is used with most.

        Args:
            past: rows, 0 pads; (batch, h), int64.
            shown: rows, 0 pads; (batch, n), int64.

        Returns:
            The place in `past`, and the weight that speaks from there, 0 if none does; (batch, n) each.
        """
        place = np.zeros(tuple(shown.shape), np.int64)
        weight = np.zeros(tuple(shown.shape), np.float32)
        _speakers(self._tables(), past.numpy(), shown.numpy(), place, weight)
        return torch.from_numpy(place), torch.from_numpy(weight)

    # What travels, and what is saved

    def paired(self) -> Tensor:
        """The rows of the items that have neighbours, in ascending order; (n,), int64."""
        return self._slot.nonzero().flatten()

    def naming(self, row: int) -> Tensor:
        """The rows of the items that have this one as a neighbour; (n,), int64."""
        named = torch.zeros(len(self._neighbours), dtype=torch.bool)
        for start in range(1, self._end, ROWS_AT_ONCE):
            part = slice(start, min(start + ROWS_AT_ONCE, self._end))
            named[part] = (self._neighbours[part] == row).any(1)
        return named[self._slot.long()].nonzero().flatten()

    def describe(self, rows: Tensor) -> Neighbours:
        """What is kept of these items' neighbours; (n,), int64."""
        slots = self._slot[rows].long()
        return Neighbours(self._neighbours[slots], self._together[slots], self._forward[slots])

    def place(self, rows: Tensor, neighbours: Neighbours) -> None:
        """Take over what `describe` gave for the same number of neighbours."""
        self._allot(rows[neighbours.rows.any(1)])
        slots = self._slot[rows].long()
        kept = slots > 0
        self._neighbours[slots[kept]] = neighbours.rows[kept]
        self._together[slots[kept]] = neighbours.together[kept]
        self._forward[slots[kept]] = neighbours.forward[kept]

    def state(self) -> dict[str, Tensor]:
        """The tables themselves, to be saved: copy what must outlive the next update."""
        return {
            **self._by_row(),
            "neighbours": self._neighbours[: self._end],
            "together": self._together[: self._end],
            "forward": self._forward[: self._end],
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, of whatever number of rows.

        Raises:
            StateMismatch: a table is missing, or was made for another number of neighbours.
        """
        by_row = taken_over("co-visitation", state, self._by_row(), dict.fromkeys(self._by_row(), 0))
        by_slot = {"neighbours": self._neighbours, "together": self._together, "forward": self._forward}
        by_slot = taken_over("co-visitation", state, by_slot, dict.fromkeys(by_slot, 0))
        self.count, self.touched, self._slot = by_row["count"], by_row["touched"], by_row["slot"]
        self._neighbours, self._together, self._forward = (
            by_slot["neighbours"],
            by_slot["together"],
            by_slot["forward"],
        )
        self._end = len(self._neighbours)
        taken = torch.zeros(self._end, dtype=torch.bool)
        taken[self._slot.long()] = True
        self._free = [slot for slot in (~taken).nonzero().flatten().tolist() if slot]

    def _by_row(self) -> dict[str, Tensor]:
        return {"slot": self._slot, "count": self.count, "touched": self.touched}

    @torch.inference_mode(False)
    def _allot(self, rows: Tensor) -> None:
        """Give slots to the items that have none."""
        without = rows[self._slot[rows] == 0]
        if len(without) == 0:
            return
        again = [self._free.pop() for _ in range(min(len(self._free), len(without)))]
        end = self._end + len(without) - len(again)
        if end > len(self._neighbours):
            for name in ("_neighbours", "_together", "_forward"):
                table = getattr(self, name)
                more = max(end, 2 * len(table)) - len(table)
                setattr(self, name, torch.cat((table, table.new_zeros(more, table.shape[1]))))
        self._slot[without] = torch.tensor([*again, *range(self._end, end)], dtype=torch.int32)
        self._end = end

    def _tables(self) -> _Tables:
        return _Tables(
            self._slot.numpy(),
            self._neighbours.numpy(),
            self._together.numpy(),
            self._forward.numpy(),
            self.count.numpy(),
            self.touched.numpy(),
        )


class _Tables(NamedTuple):
    """The tables as the compiled loops see them."""

    slot: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    together: Floats
    forward: Floats
    counts: Floats
    touched: NDArray[np.float64]


def _newest(history: Tensor, window: int) -> Tensor:
    return history[:, max(history.shape[1] - window, 0) :].contiguous()


@compiled
def _update(
    tables: _Tables, history: Integers, target: Integers, weights: Floats, clock: float, half_life: float
) -> None:
    length = history.shape[1]
    for event in range(len(target)):
        after = target[event]
        if after == 0:
            continue
        _bring_forward(tables, after, clock, half_life)
        tables.counts[after] += np.float32(1)
        for back in range(length - 1, -1, -1):  # of one event the strongest come last: they find the weakest to replace
            before = history[event, length - 1 - back]
            if before == 0:
                continue
            _bring_forward(tables, before, clock, half_life)
            weight = weights[back]
            _add(tables, before, after, weight, weight if back < FORWARD_REACH else np.float32(0))
            _add(tables, after, before, weight, np.float32(0))


@compiled
def _bring_forward(tables: _Tables, row: int, clock: float, half_life: float) -> None:
    if tables.touched[row] == clock:
        return
    fade = np.float32(2.0 ** ((tables.touched[row] - clock) / half_life))
    slot = tables.slot[row]
    if slot:
        for seat in range(tables.neighbours.shape[1]):
            tables.together[slot, seat] *= fade
            tables.forward[slot, seat] *= fade
    tables.counts[row] *= fade
    tables.touched[row] = clock


@compiled
def _add(tables: _Tables, row: int, item: int, together: np.float32, forward: np.float32) -> None:
    """Strengthen a pair in one direction; a full row takes a newcomer only for a neighbour that is no stronger."""
    slot, weakest, least = tables.slot[row], 0, np.float32(np.inf)
    for seat in range(tables.neighbours.shape[1]):
        neighbour = tables.neighbours[slot, seat]
        if neighbour == item:
            tables.together[slot, seat] += together
            tables.forward[slot, seat] += forward
            return
        strength = tables.together[slot, seat] if neighbour else np.float32(-1)  # an empty seat is the weakest
        if strength < least or (strength == least and neighbour):  # of equals the one that came last
            weakest, least = seat, strength
    if least <= together:
        tables.neighbours[slot, weakest] = item
        tables.together[slot, weakest] = together
        tables.forward[slot, weakest] = forward
    else:
        tables.together[slot, weakest] -= together / np.float32(2)


@compiled
def _score(
    tables: _Tables,
    history: Integers,
    clock: float,
    half_life: float,
    items: Integers,
    scores: Floats,
    found: Integers,
    places: Places,
) -> None:
    length = history.shape[1]
    for user in range(len(history)):
        n = 0
        for back in range(length):
            past = history[user, length - 1 - back]
            slot = tables.slot[past]
            if slot == 0:
                continue
            fade = 2.0 ** ((tables.touched[past] - clock) / half_life)
            source = np.float32(fade / np.sqrt(tables.counts[past] * fade + 1.0))
            near = np.float32(np.exp(-back / RECENCY))
            follows = np.float32(np.exp(-back / FORWARD_RECENCY))
            for seat in range(tables.neighbours.shape[1]):
                item = tables.neighbours[slot, seat]
                if item == 0:
                    continue
                at = place_of(places[user], items[user], item)
                place = places[user, at] - 1
                if place < 0:
                    place = n
                    n += 1
                    places[user, at] = n
                    items[user, place] = item
                    scores[user, place] = np.float32(0)
                together = tables.together[slot, seat] * source
                scores[user, place, 0] += together * near
                scores[user, place, 1] += tables.forward[slot, seat] * source * follows
                scores[user, place, 2] += together
                scores[user, place, 3] = max(scores[user, place, 3], together)
        for place in range(n):
            item = items[user, place]
            faded = tables.counts[item] * 2.0 ** ((tables.touched[item] - clock) / half_life)
            logarithm = np.log(faded + 1.0)
            target, broad = np.float32(np.exp(-TARGET_POWER * logarithm)), np.float32(np.exp(-0.5 * logarithm))
            scores[user, place, 0] *= target
            scores[user, place, 1] *= target
            scores[user, place, 2] *= broad
            scores[user, place, 3] *= broad
        found[user] = n


@compiled
def _speakers(tables: _Tables, past: Integers, shown: Integers, place: Integers, weight: Floats) -> None:
    for user in range(len(past)):
        for before in range(past.shape[1]):
            slot = tables.slot[past[user, before]]
            if slot == 0:
                continue
            source = np.float32(1.0 / np.sqrt(tables.counts[past[user, before]] + 1.0))
            for seat in range(tables.neighbours.shape[1]):
                item = tables.neighbours[slot, seat]
                if item == 0:
                    continue
                together = tables.together[slot, seat] * source
                for column in range(shown.shape[1]):
                    if shown[user, column] == item and together > weight[user, column]:
                        weight[user, column] = together
                        place[user, column] = before
