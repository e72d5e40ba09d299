"""The catalogue: records of the items topic are put on record in SQL, and become vectors that are published at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sqlalchemy.engine import Connection

from learner.encoder import TextEncoder
from learner.online import OnlineLearner
from schemas.decoding import Invalid
from schemas.items import Item, decode_item, decode_item_key
from schemas.topics import Topics
from streams import metrics
from streams.outbox import Outbox
from streams.publishing import Publisher
from streams.store import Partition, Position, Progress, Store


@dataclass
class ItemNews:
    """What some records of the items topic say, decoded."""

    changed: dict[str, Item]
    deleted: list[str]


class Catalogue:
    """Takes in items for one LEARN.

    Records are read and texts encoded beside learning, on a thread of their own; `put` and `remove` change what is
    learnt, and are called on the worker thread.
    """

    def __init__(
        self,
        topics: Topics,
        store: Store,
        learner: OnlineLearner,
        encoder: TextEncoder,
        publisher: Publisher,
        dead_letters: Outbox,
    ) -> None:
        self._topics = topics
        self._store = store
        self._learner = learner
        self._encoder = encoder
        self._publisher = publisher
        self._dead_letters = dead_letters
        self._counted: dict[Partition, Position] = {}

    # Beside learning

    def read(self, records: Sequence[Any], after: Mapping[Partition, int]) -> ItemNews:
        """Decode records of the items topic; bad ones go to the dead letters, all are put on record in SQL."""
        if not self._counted:
            self._claim(after.keys())
        news, topic, tallies = ItemNews({}, []), self._topics.items, Counter[tuple[int, str]]()
        for record in records:
            counts: Counter[str] = Counter()
            item: Item | str | Invalid = (
                decode_item_key(record.key)
                if record.value is None
                else decode_item(record.value, record.timestamp / 1000, counts)
            )
            counted = record.offset < (self._counted[topic, record.partition].next or 0)
            if isinstance(item, Item):
                news.changed[item.item_id] = item
            elif isinstance(item, str):
                news.changed.pop(item, None)
                news.deleted.append(item)
            elif not counted:
                self._dead_letters.put_aside(self._topics.dead_letters, record, topic, item)
                counts[f"dead:{item.code}"] += 1
            if not counted:
                tallies.update({(record.partition, code): count for code, count in counts.items()})
        self._dead_letters.flush()
        self._record(news, tallies, after)
        return news

    def encode(self, items: Sequence[Item]) -> torch.Tensor:
        """Text vectors; (items, encoder dimension)."""
        return self._encoder.encode([item.prose for item in items])

    def _claim(self, partitions: Collection[Partition]) -> None:
        """Records that were counted before this process began are not counted again."""
        self._counted = self._store.claim(partitions)

    def _record(self, news: ItemNews, tallies: Mapping[tuple[int, str], int], after: Mapping[Partition, int]) -> None:
        progress = [
            Progress(*key, position.next or 0, after[key], position.claim)
            for key, position in self._counted.items()
            if after[key] > (position.next or 0)
        ]
        if not progress:
            return  # read again after a restart: all of it is on record

        def effect(connection: Connection) -> None:
            self._store.add_tallies(connection, self._topics.items, tallies)
            self._store.save_items(connection, list(news.changed.values()), news.deleted)

        self._store.commit(progress, effect)
        metrics.count_batch({}, {self._topics.items: tallies})
        for key, position in self._counted.items():
            self._counted[key] = Position(max(after[key], position.next or 0), position.claim)

    # On the thread that learns

    def put(self, items: Sequence[Item], texts: torch.Tensor) -> None:
        """Give items their vectors and publish those at once, so that the next recommendation may hold them."""
        self._publisher.put(self._learner.put_items(items, texts))

    def remove(self, item_ids: Sequence[str]) -> None:
        """Forget items; those that were known are gone for all readers too."""
        self._publisher.remove([item_id for item_id in item_ids if self._learner.remove_item(item_id)])
