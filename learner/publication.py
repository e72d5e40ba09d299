"""Publications: what of items and weights has become news since it was last published, and how that is put."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from learner.items import ItemTable
from learner.progress import Progress
from learner.ranking import Clocks, ScenarioModel
from schemas.records import ItemVector, Weights
from schemas.topics import Topics

TOLERANCE = 0.01
"""A vector or bias that moved by less than this share of its size orders items as before, and is no news."""


ROWS_AT_ONCE = 4096


class Describes(Protocol):
    """What knows items as they are to be served."""

    def describe_rows(self, rows: Sequence[int], *, fresh: bool) -> list[ItemVector]: ...


@dataclass(frozen=True)
class Described:
    """Records of some rows, made as they are read: to be read before anything more is learnt.

    A million of them at once would take several times the memory of the table that they describe.
    """

    table: Describes
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ItemVector]:
        for start in range(0, len(self.rows), ROWS_AT_ONCE):
            yield from self.table.describe_rows(self.rows[start : start + ROWS_AT_ONCE], fresh=False)


@dataclass(frozen=True)
class Publication:
    """One consistent whole: item vectors and the weights that belong to them."""

    vectors: Described
    weights: list[Weights]


@dataclass(frozen=True)
class Stand:
    """How far learning has come, over all scenarios; the attributes are as in `Weights`."""

    lineage: str
    step: int
    published_at: float


@dataclass(frozen=True)
class Served:
    """What ranks a scenario for its users: what is learnt, or the earlier version that is restored.

    Attributes:
        clocks: as of when the counts hold that it ranks by.
        through: for each partition of the events topic the last offset that it has learnt from.
    """

    model: ScenarioModel
    clocks: Clocks
    through: Mapping[int, int]
    restores: int | None = None


def weights_of(
    progress: Mapping[str, Progress], served: Sequence[Served], topics: Topics, stand: Stand
) -> list[Weights]:
    """What ranks each scenario, as it stands; where the vectors of the same publication end is not known yet.

    Args:
        progress: by scenario, in the order of `served`.
    """
    return [
        Weights(
            scenario=name,
            lineage=stand.lineage,
            version=each.version,
            step=stand.step,
            published_at=stand.published_at,
            clock=of.clocks.clock,
            scenario_clock=of.clocks.scenario_clock,
            vectors_through=0,
            published_with=list(progress),
            trained_through={
                f"{topics.events(name)}:{partition}": offset for partition, offset in sorted(of.through.items())
            },
            recall=each.recall,
            tested=each.tested,
            hits=each.hits,
            examples=each.examples,
            tensors=of.model.dump(),
            restores=of.restores,
        )
        for (name, each), of in zip(progress.items(), served, strict=True)
    ]


class News:
    """Remembers what was published of each item, and whether the weights were.

    Attributes:
        weights: whether weights or clocks have changed since.
    """

    def __init__(self, table: ItemTable) -> None:
        self._table = table
        self.weights = False
        self.begin()

    def begin(self) -> None:
        """Nothing was published of any item."""
        table = self._table
        self._vectors = torch.zeros_like(table.vectors)
        self._bias = torch.zeros_like(table.bias)
        self._told = torch.zeros(table.allocated, dtype=torch.bool, device=table.vectors.device)
        self._suspected = torch.ones_like(self._told)

    def suspect(self, rows: Tensor) -> None:
        """The vectors or biases of these items may have moved; (n,), int64."""
        self._follow_table()
        self._suspected[rows] = True

    def touch(self, rows: Tensor) -> None:
        """The counters or neighbours of these items have changed; (n,), int64."""
        self._follow_table()
        self._told[rows] = False

    def suspected(self) -> Tensor:
        """Rows of the items whose vectors or biases may have moved; (n,), int64."""
        self._follow_table()
        return self._suspected.nonzero().flatten()

    def changed(self) -> list[int]:
        """Rows of the items that are news."""
        self._follow_table()
        table, suspects = self._table, self._suspected.nonzero().flatten()
        vectors, bias = table.vectors[suspects], table.bias[:, suspects]
        size = vectors.norm(dim=1).clamp_min(1e-3)
        moved = (vectors - self._vectors[suspects]).norm(dim=1) > TOLERANCE * size
        moved |= ((bias - self._bias[:, suspects]).abs() > TOLERANCE * bias.abs().clamp_min(1.0)).any(0)
        self._told[suspects[moved]] = False
        self._suspected[suspects] = False
        rows: list[int] = (~self._told)[: len(table.id_of)].nonzero().flatten().tolist()
        return [row for row in rows if table.id_of[row] is not None]

    def tell(self, rows: list[int]) -> None:
        """These items are published as they are now."""
        self._follow_table()
        at = torch.tensor(rows, dtype=torch.long, device=self._told.device)
        self._vectors[at] = self._table.vectors[at]
        self._bias[:, at] = self._table.bias[:, at]
        self._told[at] = True

    def _follow_table(self) -> None:
        more = self._table.allocated - len(self._told)
        if more > 0:
            self._vectors = torch.cat([self._vectors, self._vectors.new_zeros(more, self._vectors.shape[1])])
            self._bias = torch.cat([self._bias, self._bias.new_zeros(len(self._bias), more)], dim=1)
            self._told = torch.cat([self._told, self._told.new_zeros(more)])
            self._suspected = torch.cat([self._suspected, self._suspected.new_ones(more)])
