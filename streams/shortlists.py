"""Shortlists: LEARN's indexes of its large scenarios, which hold what was published, as SERVE's do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from index.compactor import Compactor
from index.policy import Policy
from index.segmented import SegmentedIndex
from learner.items import ItemTable
from learner.ranking import Search
from learner.shelf import search_shelf
from schemas.settings import Index
from streams.background import give_way


def policy_of(index: Index) -> Policy:
    """What the settings say of an index, in its own words."""
    return Policy(
        kind=index.kind,
        exact_items=index.exact_items,
        recall=index.recall,
        delta_items=index.delta_items,
        memory=index.memory_mib << 20 or None,
    )


class Shortlists:
    """Where LEARN looks for candidates: in the item table while a scenario is small, else in an index of it.

    An index holds vectors as they were published last, so LEARN tests with the candidates that serving has. Whatever is
    off the shelf by now is left out by the ranking.
    """

    def __init__(self, table: ItemTable, settings: Index) -> None:
        self._table = table
        self._policy = policy_of(settings)
        self._large = settings.exact_items
        self._indexes: dict[int, SegmentedIndex] = {}
        self._compactor: Compactor | None = None

    @property
    def indexes(self) -> list[SegmentedIndex]:
        """Those of the scenarios that are large by now."""
        return list(self._indexes.values())

    def search_of(self, scenario: int) -> Search:
        """A search over what the scenario may recommend."""
        index = self._indexes.get(scenario)
        if index is None:
            return search_shelf(self._table, scenario)

        def search(queries: Tensor, k: int, excluded: Tensor | None, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
            found = index.search(queries, k, excluded=excluded, allowed=allowed)
            return found.ids, found.scores

        return search

    def tell(self, rows: Sequence[int]) -> None:
        """These items were published as they are now."""
        told = torch.tensor(rows, dtype=torch.int64, device=self._table.vectors.device)
        for scenario, eligible in enumerate(self._table.eligible):
            if scenario in self._indexes:
                self._put(scenario, told[eligible[told]])
                self._indexes[scenario].remove(told[~eligible[told]])
            elif int(eligible.sum()) > self._large and eligible.device.type == "cpu":
                self._indexes[scenario] = SegmentedIndex(self._table.vectors.shape[1], policy=self._policy)
                self._put(scenario, eligible.nonzero().flatten())
                self._compactor = self._compactor or Compactor(lambda: self.indexes, give_way)

    def close(self) -> None:
        """Stop compacting."""
        if self._compactor is not None:
            self._compactor.close()

    def _put(self, scenario: int, rows: Tensor) -> None:
        vectors, bias = self._table.vectors.index_select(0, rows), self._table.bias[scenario].index_select(0, rows)
        self._indexes[scenario].upsert(rows, vectors, bias)
