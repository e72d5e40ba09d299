"""The exact index: a preallocated table of slots, written in place and searched whole, on CPU and CUDA alike."""

from __future__ import annotations

import threading

import torch
from torch import Tensor
from torch.nn import functional

from index.blocks import top_k
from index.live import Found, IndexRefused, check_ids, check_items, check_search
from index.scan import GROUP, scan

SCORES_AT_ONCE = 1 << 26
"""Scores held at a time: more queries than that allows are searched in turns."""


LARGEST_HALF = 60_000.0
"""Of the numbers that float16 keeps."""

SCANNED_FROM = 1 << 15
"""Rows from which a table of float16 is scanned; a shorter one fits the cache with all its scores."""

SLOTS_AT_ONCE = 1 << 15
"""Slots read at a time by who reads all of them."""


class ExactIndex:
    """An index that finds exactly the best: every search scores every slot.

    Each item sits in a slot. Slot 0 is never taken and always hidden, so that 0 can say "in no slot" and be looked up
    like any other. A slot that was left is hidden by its bias and goes to a stack, from which new items take it first.

    On a GPU vectors are kept in float16 and a large table is searched by `index.scan`, in one pass over them. The first
    vector that float16 cannot hold turns the table into float32.

    One lock orders all searches and changes. A search holds it while it computes, so what it reads cannot move; torch
    spreads that computation over the cores, so searches that overlapped would gain little.
    """

    def __init__(self, dimension: int, *, capacity: int = 1024, device: torch.device | str = "cpu") -> None:
        """Make an empty index.

        Args:
            dimension: length of the vectors.
            capacity: items to reserve room for; more make it grow by doubling.

        Raises:
            IndexRefused: dimension or capacity is below 1.
        """
        if dimension < 1:
            raise IndexRefused("dimension", str(dimension), "1 or more")
        if capacity < 1:
            raise IndexRefused("capacity", str(capacity), "1 or more")
        self._dimension = dimension
        self._device = torch.device(device)
        self._lock = threading.Lock()
        self._sequence = 0
        rows = capacity + 1 + -(capacity + 1) % GROUP
        # By slot. Rows never written must be finite: NaN would come through a bias of -inf.
        kind = torch.float16 if self._device.type == "cuda" else torch.float32
        self._vectors = torch.zeros(rows, dimension, dtype=kind, device=self._device)
        self._bias = torch.full((rows,), -torch.inf, device=self._device)
        self._ids = torch.zeros(rows, dtype=torch.int64, device=self._device)
        # By id.
        self._slots = torch.zeros(capacity + 1, dtype=torch.int64, device=self._device)
        # Slots from `_end` on were never taken; the first `_left_count` of `_left` were taken and left again.
        self._end = 1
        self._left = torch.zeros(rows, dtype=torch.int64, device=self._device)
        self._left_count = 0

    @property
    def sequence(self) -> int:
        return self._sequence

    @property
    def capacity(self) -> int:
        """Items that it holds before it must grow."""
        return len(self._bias) - 1

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def nbytes(self) -> int:
        """Bytes that its tables take."""
        return sum(table.nbytes for table in (self._vectors, self._bias, self._ids, self._left, self._slots))

    def __len__(self) -> int:
        return self._end - 1 - self._left_count

    def __contains__(self, item: int) -> bool:
        with self._lock:
            return 0 < item < len(self._slots) and bool(self._slots[item] > 0)

    def contents(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, vectors and biases of all items, -inf for hidden ones; copies, in the host's memory.

        They are read part by part, so that nobody waits for long; what changes meanwhile is old or new.
        """
        parts = [self._part(start) for start in range(0, self._end, SLOTS_AT_ONCE)]
        ids, vectors, bias = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return ids, vectors, bias

    def _part(self, start: int) -> tuple[Tensor, Tensor, Tensor]:
        part = slice(start, start + SLOTS_AT_ONCE)
        with self._lock:
            ids, vectors, bias = (table[part].cpu() for table in (self._ids, self._vectors, self._bias))
            slots = ids.nonzero().flatten()
            return ids[slots], vectors[slots].float(), bias[slots]

    @torch.no_grad()
    def upsert(self, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
        check_items(self._dimension, ids, vectors, bias)
        ids, vectors, bias = _last_of_each(
            ids.to(self._device, torch.int64),
            vectors.to(self._device, torch.float32),
            bias.to(self._device, torch.float32),
        )
        largest = int(ids.max()) if len(ids) else 0
        with self._lock:
            if self._vectors.dtype == torch.float16 and not _fits_half(vectors):
                self._vectors = self._vectors.float()
            if largest >= len(self._slots):
                self._slots = _grown(self._slots, largest + 1, 0)
            slots = self._slots[ids]
            new = slots == 0
            slots[new] = self._take(int(new.sum()))
            self._vectors[slots] = vectors.to(self._vectors.dtype)
            self._bias[slots] = bias
            self._ids[slots] = ids
            self._slots[ids] = slots
            self._sequence += 1

    @torch.no_grad()
    def remove(self, ids: Tensor) -> None:
        check_ids("ids", ids, 1)
        with self._lock:
            slots = torch.unique(self._slots_of(ids))
            slots = slots[slots > 0]
            self._bias[slots] = -torch.inf
            self._slots[self._ids[slots]] = 0
            self._ids[slots] = 0
            self._left[self._left_count : self._left_count + len(slots)] = slots
            self._left_count += len(slots)
            self._sequence += 1

    @torch.no_grad()
    def search(
        self, queries: Tensor, k: int, *, excluded: Tensor | None = None, allowed: Tensor | None = None
    ) -> Found:
        check_search(self._dimension, queries, k, excluded, allowed)
        device = queries.device
        queries = queries.to(self._device, torch.float32)
        with self._lock:
            k = min(k, len(self))
            hidden = None if excluded is None else self._slots_of(excluded)  # (batch, e)
            end = self._end + -self._end % GROUP  # what was never taken is hidden
            vectors, bias, slots = self._vectors[:end], self._bias[:end], None
            if allowed is not None:
                # With slot 0 among them, which stands for what is excluded and not allowed anyway.
                slots = torch.unique(torch.cat((self._slots_of(allowed), self._ids.new_zeros(1))))
                vectors, bias = vectors.index_select(0, slots), bias[slots]
                hidden = None if hidden is None else _places(slots, hidden)
            ids = torch.zeros(len(queries), k, dtype=torch.int64, device=self._device)
            scores = torch.full((len(queries), k), -torch.inf, device=self._device)
            found = min(k, len(vectors))
            best, columns = _search(queries, vectors, bias, found, hidden)
            scores[:, :found] = best
            ids[:, :found] = self._ids[columns if slots is None else slots[columns]]
        ids.masked_fill_(scores == -torch.inf, 0)
        return Found(ids.to(device), scores.to(device))

    def _slots_of(self, ids: Tensor) -> Tensor:
        """The slot of each id, 0 for one that is not in the index."""
        ids = ids.to(self._device, torch.int64)
        return self._slots[ids.masked_fill((ids < 0) | (ids >= len(self._slots)), 0)]

    def _take(self, count: int) -> Tensor:
        """Slots for `count` new items: those that were left first, so that the table stays dense."""
        again = min(count, self._left_count)
        self._left_count -= again
        end = self._end + count - again
        if end > len(self._bias):
            self._vectors = _grown(self._vectors, end, 0.0)
            self._ids = _grown(self._ids, end, 0)
            self._left = _grown(self._left, end, 0)
            self._bias = _grown(self._bias, end, -torch.inf)
        taken = torch.arange(self._end, end, device=self._device)
        self._end = end
        return torch.cat((self._left[self._left_count : self._left_count + again], taken))


def _search(queries: Tensor, vectors: Tensor, bias: Tensor, k: int, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """The k best rows of a table for each query; scores, best first, and columns, (batch, k) each."""
    if vectors.dtype == torch.float16:
        if len(vectors) > SCANNED_FROM and _fits_half(queries):
            more = -len(vectors) % GROUP
            if more:  # of a filter's choice; the table itself is cut to measure
                vectors, bias = (
                    functional.pad(vectors, (0, 0, 0, more)),
                    functional.pad(bias, (0, more), value=-torch.inf),
                )
            return scan(queries, vectors, bias, k, hidden)
        vectors = vectors.float()
    scores = queries.new_full((len(queries), k), -torch.inf)
    columns = torch.zeros_like(scores, dtype=torch.int64)
    at_once = max(1, SCORES_AT_ONCE // len(vectors))
    for start in range(0, len(queries) if k else 0, at_once):
        part = slice(start, start + at_once)
        table = torch.addmm(bias, queries[part], vectors.T)  # (part, rows)
        if hidden is not None:
            table.scatter_(1, hidden[part], -torch.inf)
        scores[part], columns[part] = top_k(table, k)
    return scores, columns


def _fits_half(numbers: Tensor) -> bool:
    return numbers.numel() == 0 or bool(numbers.abs().amax() <= LARGEST_HALF)


def _places(slots: Tensor, hidden: Tensor) -> Tensor:
    """Where the hidden slots stand among some slots, the first of which is 0; 0 for those that do not."""
    place = torch.searchsorted(slots, hidden).clamp_max_(len(slots) - 1)
    return place.masked_fill_(slots[place] != hidden, 0)


def _last_of_each(ids: Tensor, vectors: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Leave of every id its last row: a write in place that names a slot twice would leave either."""
    unique, inverse = torch.unique(ids, return_inverse=True)
    if len(unique) == len(ids):
        return ids, vectors, bias
    positions = torch.arange(len(ids), device=ids.device)
    last = torch.zeros_like(unique).scatter_reduce_(0, inverse, positions, "amax")
    return unique, vectors[last], bias[last]


def _grown(table: Tensor, rows: int, fill: float) -> Tensor:
    """A copy of the table with room for `rows`, at least twice as long."""
    # Without this a table that grew inside somebody's inference mode could never be written outside of it.
    with torch.inference_mode(False):
        rows = max(rows + -rows % GROUP, 2 * len(table))
        grown = table.new_full((rows, *table.shape[1:]), fill)
        grown[: len(table)] = table
    return grown
