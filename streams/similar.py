"""Answers to "what is similar to this item": item to items, out of the scenario's index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from learner.ranking import padded
from learner.similarity import most_similar
from schemas.recommendations import RecommendedItem, Request, Trigger
from streams.mirror import Mirror


@dataclass(frozen=True)
class AskedForSimilar:
    """Items similar to one item: to which, where, and in answer to which request."""

    trigger: Trigger
    item_id: str
    scenario: str
    k: int
    request: Request
    user_id: None = None


def similar_items(mirror: Mirror, shelf: str, asked: Sequence[AskedForSimilar]) -> list[list[RecommendedItem]]:
    """The most similar items of a shelf for each request; all of them name the same categories.

    What is similar to an item that nobody has published, or whose vector has not come yet, is nothing. A hidden item
    is in no answer, but it can be asked about: a page of something sold out wants to show what is like it.
    """
    table = mirror.table
    rows = [table.row_of.get(each.item_id, 0) if each.item_id in mirror.items else 0 for each in asked]
    excluded = [[row for row in table.rows(each.request.exclude) if row] for each in asked]
    categories = frozenset(asked[0].request.categories)
    allowed = torch.tensor(mirror.rows_in(categories), dtype=torch.long) if categories else None
    most = max(each.k for each in asked)
    found, cosines = most_similar(
        table, rows, most, mirror.search(shelf), padded(excluded, table.vectors.device), allowed
    )
    return [
        [
            RecommendedItem(str(table.id_of[other]), cosine, "similar")
            for other, cosine in zip(others[: each.k] if row else [], similarities, strict=False)
            if other
        ]
        for each, row, others, similarities in zip(asked, rows, found.tolist(), cosines.tolist(), strict=True)
    ]
