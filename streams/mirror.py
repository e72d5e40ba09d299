"""SERVE's mirror: what LEARN publishes and what the items topic says, ready to be ranked with.

Everything here is called on the worker thread, between batches, so no ranking ever meets half a change.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError
from torch import Tensor

from index.segmented import SegmentedIndex
from learner.items import ItemTable, TableFull
from learner.ranking import Clocks, ScenarioModel, Search
from learner.table_copy import NotedTable, note
from schemas.decoding import Invalid
from schemas.items import Item, decode_item, decode_item_key
from schemas.records import ItemVector, OtherVersion, Weights, decode_item_vector, decode_weights, is_whole
from schemas.settings import Settings
from streams import metrics
from streams.device import choose_device
from streams.shortlists import policy_of

log = logging.getLogger(__name__)

NEWEST_ITEMS = 1000
"""New items of a scenario that are remembered as such, at most."""

PLACED_AT_ONCE = 1 << 14
"""Of a catalogue that is read up, so many items are placed at a time: their records are copied for it."""

INDEXED_AT_ONCE = 1 << 17
"""Of a restored catalogue, so many items go to an index at a time: their vectors are copied for it."""

NO_WEIGHTS = Weights(
    scenario="", lineage="", version=0, step=0, published_at=0.0, clock=0.0, scenario_clock=0.0, vectors_through=0,
    published_with=[], trained_through={}, recall=None, tested=0, hits=0, examples=0, tensors=b"",
)  # fmt: skip


@dataclass(frozen=True)
class Noted:
    """What the mirror held at one moment, by which a copy of it can be taken while it goes on changing.

    Attributes:
        sequence: as `Mirror.sequence`.
        lineage: of LEARN, that the rows belong to; None before its first weights.
        item_ids: the items that were known.
        items: all that are known now.
        new: for each scenario the items that are new there, oldest first, and when each was received.
        impressions: scenario, item, and how often it was shown in the slot for new ones.
    """

    sequence: int
    lineage: str | None
    table: NotedTable
    item_ids: list[str]
    items: Mapping[str, Item]
    new: dict[str, list[tuple[str, float]]]
    impressions: list[tuple[str, str, int]]


class Head:
    """The weights that rank a scenario now."""

    def __init__(self, model: ScenarioModel) -> None:
        self.weights = NO_WEIGHTS
        self._model = model
        self._loaded = self.weights

    def take(self, weights: Weights) -> None:
        self.weights = weights

    @property
    def model(self) -> ScenarioModel:
        """What the weights make, which is loaded when it is asked for: most publications are never ranked with.

        Raises:
            OtherVersion: they are those of a model of another make.
        """
        if self._loaded is not self.weights:
            try:
                self._model.load(self.weights.tensors)
            except (RuntimeError, SafetensorError) as error:
                reason = " ".join(str(error).split())
                raise OtherVersion(f"the published weights of {self.weights.scenario!r}", reason) from None
            self._loaded = self.weights
        return self._model


class Mirror:
    """Items, their vectors and the weights of all scenarios, as of the newest complete publication.

    Attributes:
        sequence: position in the vectors topic up to which records have been put to use.
    """

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._settings = settings
        self._device = device
        self.scenarios = tuple(settings.scenarios)
        self._numbers = {name: number for number, name in enumerate(self.scenarios)}
        self.table = ItemTable(self.scenarios, settings.model, device)
        self.indexes = self._empty_indexes()
        self._heads = {name: Head(ScenarioModel.blank(settings.model)) for name in self.scenarios}
        self.items: dict[str, Item] = {}
        self.sequence = 0
        self._lineage: str | None = None
        self._staged_vectors: dict[str, ItemVector | None] = {}
        self._staged_heads: dict[str, Weights] = {}
        self._read_through = 0
        self._new: dict[str, OrderedDict[str, float]] = {name: OrderedDict() for name in self.scenarios}
        self._impressions: Counter[tuple[str, str]] = Counter()
        self._by_category: dict[str, set[str]] = {}
        self._held = False

    def _empty_indexes(self) -> dict[str, SegmentedIndex]:
        policy, device = policy_of(self._settings.index), choose_device(self._settings.index.device)
        dimension = self._settings.model.dimension
        return {name: SegmentedIndex(dimension, policy=policy, device=device) for name in self.scenarios}

    # What the topics bring

    def take_items(self, records: Sequence[Any]) -> None:
        """Records of the items topic: visible, hidden or gone, from the next ranking on."""
        changed: dict[str, None] = {}
        for record in records:
            received = record.timestamp / 1000
            if record.value is None:
                item_id = decode_item_key(record.key)
                if not isinstance(item_id, Invalid):
                    self._forget_item(item_id)
                    changed[item_id] = None
                continue
            item = decode_item(record.value, received, Counter())
            if isinstance(item, Invalid):
                continue  # LEARN puts it among the dead letters
            if item.item_id not in self.items:
                self._note_new(item, received)
            self._forget_categories(item.item_id)
            self._know(msgspec.structs.replace(item, title="", text=""))  # a vector says here what they said
            changed[item.item_id] = None
        self._show(changed)

    def take_vectors(self, records: Sequence[Any], read_through: int) -> None:
        """Records of the vectors topic: fresh ones are put to use at once, others wait for their weights."""
        fresh: dict[str, ItemVector] = {}
        # What is here of a snapshot may be of an earlier lineage, and would go with all that was put beside it.
        may_go = self._held and self._lineage is not None
        for record in records:
            item_id = record.key.decode()
            vector = None if record.value is None else decode_item_vector(record.value)
            if vector is not None and vector.fresh and not may_go and item_id not in self._staged_vectors:
                fresh[item_id] = vector
            else:
                self._staged_vectors.pop(item_id, None)  # the newest record stands last, and last wins a row
                self._staged_vectors[item_id] = vector
        self._read_through = read_through
        self._place(list(fresh.values()))
        self._show(fresh)
        if not self._staged_vectors:
            self.sequence = read_through
        self._switch()

    def take_weights(self, records: Sequence[Any]) -> None:
        """Records of the weights topic: put to use once the whole publication is here, less what is damaged."""
        for record in records:
            if record.value is not None and not is_whole(record.value, record.headers):
                metrics.damaged_weights.inc()
                log.error(
                    "the weights at offset %d, of %r, are damaged and passed over; LEARN publishes new ones",
                    record.offset, record.key,
                )  # fmt: skip
            elif record.value is not None:
                weights = decode_weights(record.value)
                if weights.scenario in self._numbers:
                    self._staged_heads[weights.scenario] = weights
        self._switch()

    def hold(self) -> None:
        """Until `settle`, put no publication to use: what topics hold from of old may be of another lineage."""
        self._held = True

    def settle(self) -> None:
        """Put to use whatever is here: after reading up a compacted topic, older publications are no longer whole."""
        self._held = False
        newest = max(self._staged_heads.values(), key=lambda head: head.published_at, default=NO_WEIGHTS)
        # The rows that the weights of an earlier lineage speak of are those of other items by now.
        self._staged_heads = {name: head for name, head in self._staged_heads.items() if head.lineage == newest.lineage}
        self._switch(whole=False)

    def _switch(self, whole: bool = True) -> None:
        """Take over staged heads and vectors together, if they are complete."""
        staged = self._staged_heads
        if whole and (self._held or not staged):
            return
        for head in staged.values():
            companions = set(head.published_with) & self._numbers.keys()
            missing = any(
                name not in staged or staged[name].vectors_through < head.vectors_through for name in companions
            )
            if whole and (missing or head.vectors_through > self._read_through):
                return
        for head in staged.values():
            if self._lineage != head.lineage:
                self._begin_lineage(head.lineage)
            self._heads[head.scenario].take(head)
        for item_id, vector in self._staged_vectors.items():
            if vector is None:
                self._unplace(item_id)
        self._place([vector for vector in self._staged_vectors.values() if vector is not None])
        self._show(self._staged_vectors)
        self._staged_vectors.clear()
        self._staged_heads.clear()
        self.sequence = self._read_through

    def _begin_lineage(self, lineage: str) -> None:
        if self._lineage is not None:
            log.warning("LEARN has begun anew (lineage %s): its vectors replace all earlier ones", lineage)
            self.table = ItemTable(self.scenarios, self._settings.model, self._device)
            self.indexes = self._empty_indexes()
        self._lineage = lineage

    def _place(self, vectors: Sequence[ItemVector]) -> None:
        """Make room first, then place: a record may name neighbours that come with it, in rows that others had."""
        newest = list({vector.row: vector for vector in vectors}.values())
        for vector in newest:
            sitting = self.table.id_of[vector.row] if vector.row < len(self.table.id_of) else None
            if sitting is not None and sitting != vector.item_id:
                self._unplace(sitting)
            if self.table.row_of.get(vector.item_id, vector.row) != vector.row:
                self._unplace(vector.item_id)
        for start in range(0, len(newest), PLACED_AT_ONCE):
            try:
                self.table.place_all(newest[start : start + PLACED_AT_ONCE])
            except TableFull as full:
                log.error("%s", full)
            except (RuntimeError, ValueError, LookupError) as error:
                raise OtherVersion("an item's vector", " ".join(str(error).split())) from None

    def _unplace(self, item_id: str) -> None:
        row = self.table.remove(item_id)
        if row:
            for index in self.indexes.values():
                index.remove(torch.tensor([row], device=self._device))

    def _show(self, item_ids: Iterable[str]) -> None:
        """Make the indexes say what the items topic and the table say of these items."""
        known = [(item_id, row) for item_id in item_ids if (row := self.table.row_of.get(item_id, 0))]
        if not known:
            return
        rows = torch.tensor([row for _, row in known], device=self._device)
        eligible = torch.tensor([self._shown_where(item_id) for item_id, _ in known], device=self._device).T
        self.table.eligible[:, rows] = eligible
        vectors = self.table.vectors[rows]
        for number, name in enumerate(self.scenarios):
            shown = eligible[number]
            self.indexes[name].remove(rows[~shown])
            self.indexes[name].upsert(rows[shown], vectors[shown], self.table.bias[number, rows[shown]])

    def _shown_where(self, item_id: str) -> list[bool]:
        """Which scenarios may recommend the item, in their order."""
        item = self.items.get(item_id)
        if item is None or item.hidden:
            return [False] * len(self.scenarios)
        return [item.scenarios is None or name in item.scenarios for name in self.scenarios]

    # New items

    def _note_new(self, item: Item, received: float) -> None:
        for name in self.scenarios if item.scenarios is None else item.scenarios:
            if name in self._new:
                self._new[name][item.item_id] = received
                if len(self._new[name]) > NEWEST_ITEMS:
                    oldest, _ = self._new[name].popitem(last=False)
                    del self._impressions[name, oldest]

    def newest(self, scenario: str, now: float, unwanted: frozenset[str], categories: frozenset[str]) -> str | None:
        """The newest visible item that has not had its first impressions yet, if any."""
        new, serve = self._new[scenario], self._settings.serve
        number = self._numbers[scenario]
        for item_id in reversed(new):
            if now - new[item_id] > serve.fresh_seconds:
                return None
            row = self.table.row_of.get(item_id, 0)
            if not row or item_id in unwanted or not bool(self.table.eligible[number, row]):
                continue
            if categories and categories.isdisjoint(self.items[item_id].categories):
                continue
            return item_id
        return None

    def count_impression(self, scenario: str, item_id: str) -> None:
        """An item was shown in the slot for new ones; after enough of them it must earn its place."""
        self._impressions[scenario, item_id] += 1
        if self._impressions[scenario, item_id] >= self._settings.serve.fresh_impressions:
            self._new[scenario].pop(item_id, None)
            del self._impressions[scenario, item_id]

    # Reading

    @property
    def crowded(self) -> bool:
        """Whether an index had better get no more changes until it has been compacted."""
        return any(index.full for index in self.indexes.values())

    def number(self, scenario: str) -> int:
        return self._numbers[scenario]

    def head(self, scenario: str) -> Head:
        """The scenario's weights; blank ones, which rank by text and popularity, before LEARN has published any."""
        return self._heads[scenario]

    def clocks(self, scenario: str) -> Clocks:
        weights = self.head(scenario).weights
        return Clocks(clock=weights.clock, scenario_clock=weights.scenario_clock)

    def search(self, scenario: str) -> Search:
        """The scenario's index, as rankings ask it."""
        index = self.indexes[scenario]

        def search(queries: Tensor, k: int, excluded: Tensor | None, allowed: Tensor | None) -> tuple[Tensor, Tensor]:
            found = index.search(queries, k, excluded=excluded, allowed=allowed)
            return found.ids, found.scores

        return search

    def rows_in(self, categories: Iterable[str]) -> list[int]:
        """Rows of the items that are in one of these categories."""
        names: set[str] = set()
        for category in categories:
            names |= self._by_category.get(category, set())
        return [row for row in self.table.rows(sorted(names)) if row]

    # What a snapshot keeps

    def note(self) -> Noted:
        """Note what is here now; called on the worker thread as everything else, and soon done."""
        return Noted(
            sequence=self.sequence,
            lineage=self._lineage,
            table=note(self.table),
            item_ids=list(self.items),
            items=self.items,
            new={name: list(new.items()) for name, new in self._new.items()},
            impressions=[(*key, count) for key, count in self._impressions.items()],
        )

    def restore(self, saved: Noted) -> None:
        """Become, from an empty mirror, what a copy says; the table in it becomes the mirror's own.

        Raises:
            KeyError: it is of other scenarios.
        """
        self.table = saved.table.table
        self._lineage = saved.lineage
        self.sequence = self._read_through = saved.sequence
        for item in saved.items.values():
            self._know(item)
        for name, new in saved.new.items():
            self._new[name].update(new)
        self._impressions.update({(name, item_id): count for name, item_id, count in saved.impressions})
        for number, name in enumerate(self.scenarios):
            for rows in torch.split(self.table.eligible[number].nonzero().flatten(), INDEXED_AT_ONCE):
                self.indexes[name].upsert(rows, self.table.vectors[rows], self.table.bias[number, rows])

    def _know(self, item: Item) -> None:
        self.items[item.item_id] = item
        for category in item.categories:
            self._by_category.setdefault(category, set()).add(item.item_id)

    def _forget_item(self, item_id: str) -> None:
        self._forget_categories(item_id)
        self.items.pop(item_id, None)
        for name, new in self._new.items():
            new.pop(item_id, None)
            self._impressions.pop((name, item_id), None)

    def _forget_categories(self, item_id: str) -> None:
        known = self.items.get(item_id)
        for category in known.categories if known else ():
            members = self._by_category[category]
            members.discard(item_id)
            if not members:
                del self._by_category[category]
