"""Good versions: of each scenario the newest version that was found good, whole and ready to rank with.

They are what the gate compares with what is learnt, and what is served where a scenario was rolled back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from learner.items import ItemTable
from learner.outcomes import DEPTH
from learner.ranking import Batch, Clocks, Ranking, ScenarioModel, find, order
from learner.shelf import search_shelf
from schemas.records import ItemVector
from schemas.settings import Model

BIAS_BYTES = np.dtype(np.float32).itemsize
POPULARITY_BYTES = 2 * np.dtype(np.float64).itemsize


class GoodVersions:
    """The item side of all good versions lies in one table: of each scenario its biases and counts, and its own items.

    What scenarios share, the vectors of items that several of them recommend, is there as of the newest promotion of
    any of them.

    Attributes:
        held: numbers of the scenarios whose good version is served in place of what is learnt.
    """

    def __init__(self, table: ItemTable, sizes: Model) -> None:
        self._live = table
        self._sizes = sizes
        self._table: ItemTable | None = None
        self._models: dict[int, ScenarioModel] = {}
        self._clocks: dict[int, Clocks] = {}
        self.held: set[int] = set()

    def __contains__(self, scenario: int) -> bool:
        return scenario in self._models

    def take(self, scenario: int, model: ScenarioModel, clocks: Clocks) -> None:
        """Take what is learnt of a scenario now for its good version, as a copy."""
        live = self._live
        known = torch.tensor(sorted(live.row_of.values()), device=live.vectors.device)
        of_others = (live.eligible.sum(0) == 1) & ~live.eligible[scenario]
        self._copy().take_scenario(live, scenario, scenario, known, known[~of_others[known]])
        self._keep(scenario, model, clocks)

    def take_from(
        self, scenario: int, model: ScenarioModel, clocks: Clocks, table: ItemTable, there: int, known: Tensor
    ) -> None:
        """Take an earlier version of a scenario for its good one, as a copy.

        Args:
            table: that knows the scenario as that version does, as its number `there`.
            known: rows that are of the same items in it as now; (n,), int64.
        """
        own = self._live.own(scenario)
        self._copy().take_scenario(table, there, scenario, known, own[torch.isin(own, known)])
        self._keep(scenario, model, clocks)

    def forget(self, scenario: int) -> None:
        """This scenario has no good version any more."""
        self._models.pop(scenario, None)
        self._clocks.pop(scenario, None)
        self.held.discard(scenario)

    def model(self, scenario: int) -> ScenarioModel:
        return self._models[scenario]

    def clocks(self, scenario: int) -> Clocks:
        """As of when its counts hold."""
        return self._clocks[scenario]

    def rank(self, scenario: int, questions: Batch) -> Ranking:
        """What the good version would serve; changes nothing."""
        table, model = self._copy(), self._models[scenario]
        search = search_shelf(table, scenario)
        return order(model, find(model, table, scenario, self._clocks[scenario], questions, search, minimum=DEPTH))

    # Items come and go in both tables

    def shift(self, rows: Tensor, shifts: Tensor) -> None:
        """The texts of items have changed.

        Args:
            rows: each once; (n,), int64.
            shifts: what was added to their vectors by that; (n, dimension).
        """
        if self._table is not None:
            self._copy().vectors[rows] += shifts

    def admit(self, rows: Sequence[int]) -> None:
        """Who may recommend these items has changed."""
        if self._table is not None:
            self._copy().eligible[:, rows] = self._live.eligible[:, rows]

    def remove(self, row: int) -> None:
        if self._table is not None:
            self._copy().wipe([row])

    # What is served

    def serves(self, rows: Sequence[int]) -> list[bool]:
        """Whether it is the good vectors of these rows' items that are served."""
        if not self.held:
            return [False] * len(rows)
        held = torch.zeros(self._live.allocated, dtype=torch.bool, device=self._live.vectors.device)
        for scenario in self.held:
            held[self._live.own(scenario)] = True
        found: list[bool] = held[rows].tolist()
        return found

    def describe_rows(self, rows: Sequence[int], *, fresh: bool) -> list[ItemVector]:
        """Records of these items as they are served: as learnt, but for the scenarios that are held."""
        records = self._live.describe_rows(rows, fresh=fresh)
        if not self.held:
            return records
        good = self._copy().describe_rows(rows, fresh=fresh)
        return [
            then if whole else _with_columns(now, then, self.held)
            for now, then, whole in zip(records, good, self.serves(rows), strict=True)
        ]

    def _keep(self, scenario: int, model: ScenarioModel, clocks: Clocks) -> None:
        if scenario not in self._models:
            self._models[scenario] = ScenarioModel.blank(self._sizes).to(self._live.vectors.device)
        self._models[scenario].load_state_dict(model.state_dict())
        self._clocks[scenario] = clocks

    def _copy(self) -> ItemTable:
        """The table of the good versions, with room for all items that there are by now."""
        if self._table is None:
            self._table = self._live.twin()
            self._table.vectors.copy_(self._live.vectors)
            self._table.eligible.copy_(self._live.eligible)
        self._table.reserve(self._live.allocated)
        return self._table


def _with_columns(record: ItemVector, other: ItemVector, scenarios: Collection[int]) -> ItemVector:
    """The record with what another one says of these scenarios."""
    bias, popularity = bytearray(record.bias), bytearray(record.popularity)
    for number in scenarios:
        for target, source, size in (
            (bias, other.bias, BIAS_BYTES),
            (popularity, other.popularity, POPULARITY_BYTES),
        ):
            part = slice(number * size, (number + 1) * size)
            target[part] = source[part]
    record.bias, record.popularity = bytes(bias), bytes(popularity)
    return record


def model_in(tensors: Mapping[str, Tensor], sizes: Model, number: int) -> ScenarioModel:
    """What a checkpoint's tensors rank the scenario of this number with."""
    trunk = {
        name.removeprefix("trainer/tower."): tensor
        for name, tensor in tensors.items()
        if name.startswith("trainer/tower.trunk.")
    }
    model = ScenarioModel.blank(sizes)
    state: dict[str, Tensor] = dict(trunk)
    for name in model.head.state_dict():
        state[f"head.{name}"] = tensors[f"trainer/tower.heads.{name}"][number : number + 1]
    for name, blank in model.mixer.state_dict().items():
        saved = tensors[f"mixer/{name}"]
        state[f"mixer.{name}"] = saved if saved.shape == blank.shape else saved[number : number + 1]
    model.load_state_dict(state)
    return model
