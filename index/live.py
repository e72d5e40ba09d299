"""The live index: what every index of items can do, and what it refuses.

An index is safe for one writer and several readers. A search that starts after an upsert or a remove returned sees it
as a whole; a search that overlaps one sees each row old or new, never a mixture of both.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

LARGEST_ID = (1 << 26) - 1
"""Rows are dense, so indexes look ids up in a table; this bounds what one stray id can make it grow to."""

LARGEST_NUMBER = 1e16
"""With entries up to this size no inner product overflows: every score is finite, and -inf can mean hidden."""

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class IndexRefused(ValueError):
    """An argument that no index takes; the index is unchanged.

    Attributes:
        field: the argument, with the position of the value in it where there is one.
        value: what it is.
        allowed: what it may be.
        item: the item that the value belongs to, where there is one.
    """

    def __init__(self, field: str, value: str, allowed: str, item: int | None = None) -> None:
        whose = "" if item is None else f" (item {item})"
        super().__init__(f"{field}{whose} is {value}; allowed is {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed
        self.item = item


class Found(NamedTuple):
    """What a search returns, best first; where fewer are left than asked for, ids end in 0 and scores in -inf.

    Attributes:
        ids: (batch, k), int64.
        scores: inner product plus bias; (batch, k), float32.
    """

    ids: Tensor
    scores: Tensor


def nothing_found(batch: int, width: int) -> Found:
    """An answer of pads alone."""
    return Found(torch.zeros(batch, width, dtype=torch.int64), torch.full((batch, width), -torch.inf))


class Index(Protocol):
    """Items and their vectors, searched by inner product plus bias. Ids are int64 item rows, from 1."""

    @property
    def sequence(self) -> int:
        """How many changes (upserts and removes) the index has taken in."""
        ...

    def __len__(self) -> int:
        """How many items it holds, hidden ones among them."""
        ...

    def __contains__(self, item: int) -> bool: ...

    def upsert(self, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
        """Add items, or replace those that are there; of an id that is named twice the last one counts.

        Args:
            ids: (n,), int64.
            vectors: (n, dimension), float32.
            bias: added to the score; -inf hides the item from every search; (n,), float32.

        Raises:
            IndexRefused: nothing is changed then.
        """
        ...

    def remove(self, ids: Tensor) -> None:
        """Take items out; ids that are not there are ignored.

        Args:
            ids: (n,), int64.
        """
        ...

    def search(
        self, queries: Tensor, k: int, *, excluded: Tensor | None = None, allowed: Tensor | None = None
    ) -> Found:
        """The k best items for each query, exactly min(k, what is left) of them, on the device of the queries.

        Args:
            queries: (batch, dimension), float32.
            k: how many; the answer is min(k, len(self)) wide.
            excluded: ids that a query must not get, 0 where fewer; unknown ones are ignored; (batch, e), int64.
            allowed: ids that alone may be found, by any query; unknown ones are ignored; (n,), int64.

        Raises:
            IndexRefused: an argument is of a wrong shape, or a query is not finite.
        """
        ...


def check_items(dimension: int, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
    """Refuse what no index may hold.

    Raises:
        IndexRefused: an id is not an item row; a vector or bias has the wrong shape or holds NaN, an infinity or a
            number beyond `LARGEST_NUMBER` (a bias may be -inf).
    """
    check_ids("ids", ids, 1)
    n = len(ids)
    _check_shape("vectors", vectors, (n, dimension))
    _check_shape("bias", bias, (n,))
    if n == 0:
        return
    lowest, highest = (int(end) for end in torch.aminmax(ids))
    if lowest < 1 or highest > LARGEST_ID:
        row = int(((ids < 1) | (ids > LARGEST_ID)).nonzero()[0, 0])
        raise IndexRefused(f"ids[{row}]", str(int(ids[row])), f"an item row from 1 to {LARGEST_ID}")
    _check_numbers("vectors", vectors, ids)
    _check_numbers("bias", bias.masked_fill(bias == -torch.inf, 0.0)[:, None], ids)


def check_search(dimension: int, queries: Tensor, k: int, excluded: Tensor | None, allowed: Tensor | None) -> None:
    """Refuse what cannot be searched for.

    Raises:
        IndexRefused: k is below 1, a tensor is of a wrong shape or kind, or a query holds NaN, an infinity or a number
            beyond `LARGEST_NUMBER`.
    """
    if k < 1:
        raise IndexRefused("k", str(k), "1 or more")
    if queries.ndim != 2 or queries.shape[1] != dimension:
        raise IndexRefused("queries", f"of shape {tuple(queries.shape)}", f"(batch, {dimension})")
    _check_numbers("queries", queries, None)
    if excluded is not None:
        check_ids("excluded", excluded, 2)
        if len(excluded) != len(queries):
            raise IndexRefused("excluded", f"of shape {tuple(excluded.shape)}", f"({len(queries)}, e), a row per query")
    if allowed is not None:
        check_ids("allowed", allowed, 1)


def check_ids(field: str, ids: Tensor, dimensions: int) -> None:
    """Refuse a tensor that cannot hold ids.

    Raises:
        IndexRefused: its kind or its number of dimensions is wrong.
    """
    if ids.dtype not in INTEGERS:
        raise IndexRefused(field, f"of type {ids.dtype}", "torch.int64")
    if ids.ndim != dimensions:
        raise IndexRefused(field, f"of shape {tuple(ids.shape)}", f"a tensor of {dimensions} dimension(s)")


def _check_shape(field: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise IndexRefused(field, f"of shape {tuple(tensor.shape)}", str(shape))


def _check_numbers(field: str, rows: Tensor, ids: Tensor | None) -> None:
    # A NaN makes the maximum NaN, and no comparison with that holds: one pass finds every kind of bad number.
    if rows.numel() == 0 or bool(rows.abs().amax() <= LARGEST_NUMBER):
        return
    row, column = ((rows.abs() <= LARGEST_NUMBER).logical_not_().nonzero()[0]).tolist()
    raise IndexRefused(
        f"{field}[{row}]",
        str(float(rows[row, column])),
        f"finite numbers of at most {LARGEST_NUMBER:g} in size",
        None if ids is None else int(ids[row]),
    )
