"""The item table: which row each item has, and all that is known of it there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from learner.covisitation import CoVisitation, Neighbours
from learner.popularity import Popularity
from schemas.records import ItemVector
from schemas.settings import Model

FIRST_CAPACITY = 1024

COVISITATION_HALF_LIFE = 20_000.0
"""Events over all scenarios after which a use together counts half."""


class TableFull(Exception):
    """There is no row left for an item.

    Attributes:
        item_id: the item that was refused.
        capacity: how many items the table may hold.
    """

    def __init__(self, item_id: str, capacity: int) -> None:
        self.item_id = item_id
        self.capacity = capacity
        super().__init__(f'item "{item_id[:80]}" gets no row: model.items allows {capacity} items, and all are taken')


class ItemTable:
    """All items: which row each has, and what is known of it. Preallocated, doubling, capped.

    Row 0 is the pad: it stands for "no item", and everything about it stays zero.

    Attributes:
        row_of: item id → row, from 1.
        id_of: row → item id, None where the row is free.
        vectors: (rows, dimension) float32.
        bias: (scenarios, rows) float32; what the scenario adds to an item's inner product.
        eligible: (scenarios, rows) bool; whether the scenario may recommend the item.
    """

    def __init__(self, scenarios: Sequence[str], sizes: Model, device: torch.device | str = "cpu") -> None:
        self.scenarios = tuple(scenarios)
        self.capacity = sizes.items
        self._sizes = sizes
        rows = min(FIRST_CAPACITY, self.capacity + 1)
        self.row_of: dict[str, int] = {}
        self.id_of: list[str | None] = [None]
        self._free: list[int] = []
        self.vectors = torch.zeros(rows, sizes.dimension, device=device)
        self.bias = torch.zeros(len(self.scenarios), rows, device=device)
        self.eligible = torch.zeros(len(self.scenarios), rows, dtype=torch.bool, device=device)
        self.covisitation = CoVisitation(rows, sizes.neighbours, half_life=COVISITATION_HALF_LIFE)
        self.popularity = Popularity(len(self.scenarios), rows, device=device)

    def __len__(self) -> int:
        return len(self.row_of)

    @property
    def allocated(self) -> int:
        """Rows that the tensors have, the pad included."""
        return len(self.vectors)

    def rows(self, ids: Sequence[str]) -> list[int]:
        """The row of each item; 0 where it is unknown."""
        row_of = self.row_of
        return [row_of.get(item_id, 0) for item_id in ids]

    def add(self, item_id: str) -> int:
        """The item's row; a new item gets a free one, with nothing known of it.

        Raises:
            TableFull: if the item is new and no row is left.
        """
        row = self.row_of.get(item_id, 0)
        if row:
            return row
        # A record may have been placed at a row since it was free.
        while self._free and self.id_of[self._free[-1]] is not None:
            self._free.pop()
        row = self._free.pop() if self._free else len(self.id_of)
        self._make_room(row, item_id)
        self.id_of[row] = item_id
        self.row_of[item_id] = row
        return row

    def set_eligible(self, item_id: str, scenarios: Sequence[str]) -> None:
        """Let exactly these scenarios recommend the item; names that are not configured are passed over."""
        row = self.row_of[item_id]
        named = frozenset(scenarios)
        self.eligible[:, row] = torch.tensor([name in named for name in self.scenarios], device=self.eligible.device)

    def count(self, rows: Tensor, clock: float) -> Tensor:
        """How many events each item had, decayed to the clock; shaped as `rows`, float32."""
        at = rows.cpu().flatten()
        faded = torch.exp2((self.covisitation.touched.index_select(0, at) - clock) / COVISITATION_HALF_LIFE)
        return (self.covisitation.count.index_select(0, at) * faded.float()).view(rows.shape).to(rows.device)

    def remove(self, item_id: str) -> int:
        """Forget the item; its row is free again.

        Returns:
            The row it had, 0 if it was unknown.
        """
        row = self.row_of.pop(item_id, 0)
        if row:
            self.id_of[row] = None
            self._free.append(row)
            self.wipe([row])
        return row

    # What is known of one scenario, as another table has it

    def twin(self) -> ItemTable:
        """A table of the same items, which knows nothing of them yet; an item has one row in both, now and later."""
        other = ItemTable(self.scenarios, self._sizes, self.vectors.device)
        other.row_of, other.id_of, other._free = self.row_of, self.id_of, self._free
        other.reserve(self.allocated)
        return other

    def own(self, scenario: int) -> Tensor:
        """The rows of the items that this scenario alone may recommend; (n,), int64."""
        return (self.eligible[scenario] & (self.eligible.sum(0) == 1)).nonzero().flatten()

    def take_scenario(self, source: ItemTable, there: int, here: int, known: Tensor, own: Tensor) -> None:
        """Know a scenario as another table does: its biases and counts, and of its own items all that is known.

        Args:
            source: whose rows are of the same items, as far as they are named.
            there, here: the scenario's number in either table.
            known: rows that `source` knows; the scenario has no bias and no count at any other. (n,), int64.
            own: of these, those of the items that are the scenario's alone. (m,), int64.
        """
        self.reserve(source.allocated)
        self.bias[here] = 0.0
        self.bias[here, known] = source.bias[there, known]
        self.popularity.take_scenario(source.popularity, there, here, known)
        self.popularity.events[own] = source.popularity.events[own]
        self.vectors[own] = source.vectors[own]
        rows = own.cpu()
        neighbours = source.covisitation.describe(rows)
        here_too = torch.zeros(max(self.allocated, source.allocated), dtype=torch.bool)
        here_too[known.cpu()] = True
        gone = ~here_too[neighbours.rows.long()]
        self.covisitation.place(rows, Neighbours(*(each.masked_fill(gone, 0) for each in neighbours)))
        self.covisitation.count[rows] = source.covisitation.count[rows]
        self.covisitation.touched[rows] = source.covisitation.touched[rows]

    # What travels from LEARN to SERVE

    def describe(self, item_id: str, *, fresh: bool) -> ItemVector:
        """All that is known of the item, as `place` takes it."""
        return self.describe_rows([self.row_of[item_id]], fresh=fresh)[0]

    def describe_rows(self, rows: Sequence[int], *, fresh: bool) -> list[ItemVector]:
        """All that is known of the items in these rows, read from the tensors in one go."""
        if not rows:
            return []
        at = torch.tensor(rows, device=self.vectors.device)
        covisitation, popularity = self.covisitation, self.popularity
        vectors = self._bytes(self.vectors[at], np.float32)
        bias = self._bytes(self.bias[:, at].T, np.float32)
        keys = self._bytes(popularity.keys[:, at].transpose(0, 1), np.float64)
        neighbours = covisitation.describe(at.cpu())
        used_with = self._bytes(neighbours.rows, np.int32)
        together = self._bytes(neighbours.together, np.float32)
        forward = self._bytes(neighbours.forward, np.float32)
        count: list[float] = covisitation.count[at.cpu()].tolist()
        touched: list[float] = covisitation.touched[at.cpu()].tolist()
        events: list[int] = popularity.events[at].tolist()
        names = list(self.scenarios)
        return [
            ItemVector(
                item_id=str(self.id_of[row]),
                row=row,
                fresh=fresh,
                vector=vectors[number],
                scenarios=names,
                bias=bias[number],
                popularity=keys[number],
                neighbours=used_with[number],
                together=together[number],
                forward=forward[number],
                count=count[number],
                touched=touched[number],
                events=events[number],
            )
            for number, row in enumerate(rows)
        ]

    def place(self, record: ItemVector) -> int:
        """Take over one record; see `place_all`."""
        return self.place_all([record])[0]

    def place_all(self, records: Sequence[ItemVector]) -> list[int]:
        """Take over what LEARN says of these items, at the rows that it gave them.

        LEARN's row wins: a different item that sat there is dropped, and so is the row that this item had before.
        Who may see an item is not part of a record: a new row is eligible nowhere, a known one stays as it was.

        Raises:
            TableFull: if a row lies beyond the table's capacity; nothing is taken over then.
        """
        newest = {record.row: record for record in records}
        for row in sorted(newest, reverse=True):
            self._make_room(row, newest[row].item_id)
        self.wipe([stale for row, record in newest.items() for stale in self._seat(record.item_id, row)])
        # An item that moved within these records counts at its last row only.
        taken = [record for row, record in newest.items() if self.row_of.get(record.item_id) == row]
        if not taken:
            return []
        at = torch.tensor([record.row for record in taken], device=self.vectors.device)
        covisitation, popularity = self.covisitation, self.popularity
        self.vectors[at] = self._stacked([r.vector for r in taken], np.float32)
        bias = self._stacked([r.bias for r in taken], np.float32)
        keys = self._stacked([r.popularity for r in taken], np.float64).view(len(taken), -1, 2)
        counted: dict[int, Tensor] = {}
        for number, name in enumerate(self.scenarios):
            if name in taken[0].scenarios:
                column = taken[0].scenarios.index(name)
                self.bias[number, at] = bias[:, column]
                counted[number] = keys[:, column]
        on_host = at.cpu()
        covisitation.place(
            on_host,
            Neighbours(
                self.with_room_for(self._stacked([r.neighbours for r in taken], np.int32).cpu()),
                self._stacked([r.together for r in taken], np.float32).cpu(),
                self._stacked([r.forward for r in taken], np.float32).cpu(),
            ),
        )
        covisitation.count[on_host] = self._column([r.count for r in taken], covisitation.count)
        covisitation.touched[on_host] = self._column([r.touched for r in taken], covisitation.touched)
        popularity.place(at, counted, self._column([r.events for r in taken], popularity.events))
        return [record.row for record in records]

    # What a checkpoint keeps

    def state(self) -> dict[str, Tensor]:
        """All tensors by name; `names` goes beside it."""
        parts = {"covisitation": self.covisitation.state(), "popularity": self.popularity.state()}
        nested = {f"{part}.{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
        free = torch.tensor(self._free, dtype=torch.long)
        return {"vectors": self.vectors, "bias": self.bias, "eligible": self.eligible, "free": free, **nested}

    def by_scenario(self) -> dict[str, int]:
        """The tensors of `state` that have a part for each scenario, and the dimension that counts them."""
        return dict.fromkeys(("bias", "eligible", *(f"popularity.{name}" for name in ("keys", "used", "total"))), 0)

    def reserve(self, rows: int) -> None:
        """Have so many rows at least, the pad included."""
        if rows > self.allocated:
            self._grow(rows)

    def with_room_for(self, neighbours: Tensor) -> Tensor:
        """Neighbours that loops may look up: they are named by row, and may be named before they are here themselves.

        Args:
            neighbours: rows, 0 where there is none, of any shape; those beyond the table's capacity become 0.
        """
        highest = int(neighbours.max()) if neighbours.numel() else 0
        if highest > self.capacity:
            neighbours = neighbours.masked_fill(neighbours > self.capacity, 0)
        self._reach(min(highest, self.capacity))
        return neighbours

    def names(self) -> list[str | None]:
        """The item id of each row."""
        return list(self.id_of)

    def load(self, state: Mapping[str, Tensor], names: Sequence[str | None]) -> None:
        """Become the table that `state` and `names` came from."""
        device = self.vectors.device
        self.id_of = list(names)
        self.row_of = {item_id: row for row, item_id in enumerate(names) if item_id is not None}
        self._free = state["free"].tolist()
        self.vectors = state["vectors"].to(device, copy=True)
        self.bias = state["bias"].to(device, copy=True)
        self.eligible = state["eligible"].to(device, copy=True)
        for part in (self.covisitation, self.popularity):
            part.grow(len(self.vectors))
        self.covisitation.load(_within(state, "covisitation."))
        self.popularity.load(_within(state, "popularity."))

    def _seat(self, item_id: str, row: int) -> list[int]:
        """Give the row to the item; returns the rows whose contents are stale by that."""
        sitting = self.id_of[row]
        if sitting == item_id:
            return []
        stale = []
        before = self.row_of.pop(item_id, 0)
        if before:
            self.id_of[before] = None
            stale.append(before)
        if sitting is not None:
            del self.row_of[sitting]
            stale.append(row)
        self.id_of[row] = item_id
        self.row_of[item_id] = row
        return stale

    def _make_room(self, row: int, item_id: str) -> None:
        if row > self.capacity:
            raise TableFull(item_id, self.capacity)
        missing = range(len(self.id_of), row + 1)
        self.id_of.extend([None] * len(missing))
        self._free.extend(missing[:-1])
        self._reach(row)

    def _reach(self, row: int) -> None:
        if row >= self.allocated:
            self._grow(min(max(2 * self.allocated, row + 1), self.capacity + 1))

    def _grow(self, rows: int) -> None:
        more = rows - self.allocated
        self.vectors = torch.cat([self.vectors, self.vectors.new_zeros(more, self.vectors.shape[1])])
        self.bias = torch.cat([self.bias, self.bias.new_zeros(len(self.scenarios), more)], dim=1)
        self.eligible = torch.cat([self.eligible, self.eligible.new_zeros(len(self.scenarios), more)], dim=1)
        self.covisitation.grow(rows)
        self.popularity.grow(rows)

    def wipe(self, rows: Sequence[int]) -> None:
        """Leave nothing in these rows of what was known there."""
        if not rows:
            return
        at = torch.tensor(rows, device=self.vectors.device)
        self.vectors[at] = 0.0
        self.bias[:, at] = 0.0
        self.eligible[:, at] = False
        self.covisitation.clear(at.cpu())
        self.popularity.clear(at)

    def _stacked(self, arrays: Sequence[bytes], kind: type[np.generic]) -> Tensor:
        """Little-endian arrays of one length, one below the other; (n, length)."""
        flat = np.frombuffer(b"".join(arrays), dtype=np.dtype(kind).newbyteorder("<")).astype(kind)
        return torch.from_numpy(flat).view(len(arrays), -1).to(self.vectors.device)

    def _column(self, values: Sequence[float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device)

    @staticmethod
    def _bytes(tensor: Tensor, kind: type[np.generic]) -> list[bytes]:
        """Each row of the tensor as a little-endian array."""
        array = np.ascontiguousarray(tensor.cpu().numpy(), dtype=np.dtype(kind).newbyteorder("<"))
        return [row.tobytes() for row in array]


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
