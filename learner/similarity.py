"""Similar items: those whose vectors point the same way as a given item's, found through the scenario's index.

The index ranks by inner product plus bias, and what it ranks so is not what is alike: the bias is what the scenario
likes, and a long vector belongs to an item that was used often. So the item's own vector is asked for at a length at
which no bias counts, more are fetched than were asked for, and these are put in the order of the cosine.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from learner.items import ItemTable
from learner.ranking import Search

QUERY_LENGTH = 1e5
"""Of a query: inner products are then so large that a bias, a few units at most, changes no order."""

FETCHED_AT_LEAST = 200
FETCHED_TIMES = 4
"""So many times what is wanted is fetched: an item with a short vector may be more alike than the index says."""


@torch.no_grad()
def most_similar(
    table: ItemTable, items: Sequence[int], k: int, search: Search, excluded: Tensor, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The items of a scenario that are most similar to each of some items, which are not among them.

    Never fewer than min(k, what is neither excluded nor outside `allowed`). An item of which nothing is known, with a
    vector of length 0, is equally similar to all (cosine 0), and gets them in the order of the index.

    Args:
        items: rows; (batch,).
        search: the scenario's index.
        excluded: rows that must not be found, 0 pads; (batch, e), int64.
        allowed: rows that alone may be found; (n,), int64.

    Returns:
        Rows, best first, 0 pads, and their cosines, -inf at pads; (batch, at most k) each.
    """
    asked = torch.tensor(items, dtype=torch.long, device=table.vectors.device)  # (batch,)
    directions = functional.normalize(table.vectors.index_select(0, asked), dim=1)  # (batch, d)
    excluded = torch.cat((asked[:, None], excluded.to(asked.device)), 1)
    fetched = max(FETCHED_TIMES * k, FETCHED_AT_LEAST)
    rows, scores = search(QUERY_LENGTH * directions, fetched, excluded, allowed)  # (batch, f) each
    vectors = table.vectors.index_select(0, rows.flatten()).view(*rows.shape, table.vectors.shape[1])  # (batch, f, d)
    cosines = torch.bmm(functional.normalize(vectors, dim=2), directions[:, :, None])[..., 0]
    cosines = cosines.masked_fill(scores == -torch.inf, -torch.inf)
    cosines, place = cosines.sort(dim=1, descending=True, stable=True)
    return rows.gather(1, place)[:, :k], cosines[:, :k]
