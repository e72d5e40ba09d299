"""A copy of an item table that is taken while the table goes on changing: noted at one moment, then slice by slice.

What is copied may be torn: half of a row from before a change and half from after it, or one table from before and
another from after. That is harmless to whoever puts every change since the noted moment to the copy again: each one is
the whole state of an item and overwrites its row. Two things would stay wrong even so, and are kept out here. What is
known of neighbours is copied by row and not by slot, because a slot may pass from one item to another meanwhile. And a
row that was free at the noted moment is free in the copy, whatever came to lie there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from learner.items import ItemTable
from learner.popularity import UNKNOWN
from schemas.settings import Model

ROWS_AT_ONCE = 1 << 13

NEIGHBOURS = ("neighbours", "together", "forward")


@dataclass(frozen=True)
class NotedTable:
    """A table, and what it held at one moment.

    Attributes:
        names: the item of each row.
        paired: the rows that have neighbours; (n,), int64.
    """

    table: ItemTable
    names: list[str | None]
    paired: Tensor


@dataclass(frozen=True)
class Part:
    """One tensor of a copy; `slices` are read from the table when they are reached, in the order of the tensor."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    slices: Iterator[Tensor]


def note(table: ItemTable) -> NotedTable:
    """Note what the table holds now; it may change as soon as this has returned."""
    return NotedTable(table, table.names(), table.covisitation.paired())


def parts(noted: NotedTable) -> Iterator[Part]:
    """All that is to be copied, those of the longest numbers first."""
    table, rows = noted.table, len(noted.names)
    scenarios = len(table.scenarios)

    def by_row(name: str, read: Callable[[], Tensor]) -> Part:
        like = read()
        slices = (read()[part] for part in _ranges(rows))
        return Part(name, like.dtype, (rows, *like.shape[1:]), slices)

    def by_scenario(name: str, read: Callable[[], Tensor]) -> Part:
        like = read()
        slices = (read()[scenario, part] for scenario in range(scenarios) for part in _ranges(rows))
        return Part(name, like.dtype, (scenarios, rows, *like.shape[2:]), slices)

    # A table that grows is another tensor from then on, so each slice asks for it anew.
    yield by_scenario("keys", lambda: table.popularity.keys)
    yield by_row("touched", lambda: table.covisitation.touched)
    yield by_row("events", lambda: table.popularity.events)
    yield Part("paired", torch.int64, (len(noted.paired),), iter((noted.paired,)))
    yield by_row("vectors", lambda: table.vectors)
    yield by_scenario("bias", lambda: table.bias)
    yield by_row("count", lambda: table.covisitation.count)
    for number in range(len(NEIGHBOURS)):
        yield _neighbours(noted, number)
    yield by_scenario("eligible", lambda: table.eligible)


def _neighbours(noted: NotedTable, number: int) -> Part:
    """One of the three tables of neighbours, by slot; slot 0, which is no item's, goes first."""
    covisitation = noted.table.covisitation
    kind = covisitation.describe(noted.paired[:0])[number].dtype
    first = torch.zeros(1, covisitation.neighbours, dtype=kind)
    slices = (covisitation.describe(noted.paired[part])[number] for part in _ranges(len(noted.paired)))
    return Part(NEIGHBOURS[number], kind, (len(noted.paired) + 1, covisitation.neighbours), chain((first,), slices))


def restored(
    scenarios: Sequence[str],
    sizes: Model,
    device: torch.device,
    tensors: Mapping[str, Tensor],
    names: Sequence[str | None],
) -> ItemTable:
    """The table that a copy of `parts` and the noted names make.

    Raises:
        StateMismatch: the copy is of a table of other sizes.
    """
    table = ItemTable(scenarios, sizes, device)
    rows = len(names)
    slot = torch.zeros(rows, dtype=torch.int32)
    slot[tensors["paired"]] = torch.arange(1, len(tensors["paired"]) + 1, dtype=torch.int32)
    keys = tensors["keys"]
    used = torch.zeros(len(table.scenarios), rows, dtype=torch.int32)
    for scenario in range(len(table.scenarios)):
        found = (keys[scenario, :, 0] > -torch.inf).nonzero().flatten()
        used[scenario, : len(found)] = found
    free = [row for row, name in enumerate(names) if row and name is None]
    neighbours = table.with_room_for(tensors["neighbours"])
    state = {
        "vectors": tensors["vectors"],
        "bias": tensors["bias"],
        "eligible": tensors["eligible"],
        "free": torch.tensor(free, dtype=torch.long),
        "popularity.keys": keys,
        "popularity.events": tensors["events"],
        "popularity.used": used,
        "popularity.total": torch.full((len(table.scenarios),), UNKNOWN, dtype=torch.float64),
        "covisitation.slot": slot,
        "covisitation.count": tensors["count"],
        "covisitation.touched": tensors["touched"],
        "covisitation.neighbours": neighbours,
        "covisitation.together": tensors["together"],
        "covisitation.forward": tensors["forward"],
    }
    table.load(state, names)
    table.with_room_for(neighbours)  # again: what was loaded is as long as what was noted
    table.wipe(free)
    return table


def _ranges(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + ROWS_AT_ONCE, rows)) for start in range(0, rows, ROWS_AT_ONCE))
