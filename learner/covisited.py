"""Co-visited items: the scores of a batch of users, their best, and those of given items."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from learner.compiled import compiled
from learner.directory import Floats, Integers, Places, place_of


class CoVisited:
    """Scores of a batch of users, kept only for the items that co-occur with each user's history."""

    def __init__(self, items: Integers, scores: Floats, found: Integers, places: Places) -> None:
        """Hold scores.

        Args:
            items: rows, each once; (batch, n), the first `found` of each user count.
            scores: knn, forward, taste, strongest; (batch, n, 4).
            found: how many items each user has; (batch,).
            places: a directory of each user's items; (batch, size).
        """
        self._items = items
        self._scores = scores
        self._found = found
        self._places = places

    def top(self, k: int) -> Tensor:
        """The items with the highest knn scores, best first, 0 pads on the right; (batch, k), int64."""
        best = np.zeros((len(self._items), k), np.int64)
        _top(self._items, self._scores, self._found, best)
        return torch.from_numpy(best)

    def at(self, candidates: Tensor) -> Tensor:
        """The scores of given items, 0 where an item does not co-occur.

        Args:
            candidates: rows; (batch, c), int64.

        Returns:
            knn, forward, taste, strongest; (batch, c, 4), float32.
        """
        signals = np.zeros((*candidates.shape, 4), np.float32)
        _look_up(self._items, self._scores, self._places, candidates.numpy(), signals)
        return torch.from_numpy(signals)


@compiled
def _look_up(items: Integers, scores: Floats, places: Places, candidates: Integers, signals: Floats) -> None:
    for user in range(len(candidates)):
        for column in range(candidates.shape[1]):
            item = candidates[user, column]
            place = places[user, place_of(places[user], items[user], item)] - 1
            if item and place >= 0:
                signals[user, column] = scores[user, place]


@compiled
def _top(items: Integers, scores: Floats, found: Integers, best: Integers) -> None:
    """The best of each user, through a heap whose root is the worst of those kept; of equals the lower row wins."""
    k = best.shape[1]
    heap = np.empty(k, np.int64)
    for user in range(len(items)):
        size = 0
        for place in range(found[user]):
            if scores[user, place, 0] <= 0:
                continue
            if size < k:
                at, size = size, size + 1
                while at and _worse(items[user], scores[user], place, heap[(at - 1) // 2]):
                    heap[at] = heap[(at - 1) // 2]
                    at = (at - 1) // 2
                heap[at] = place
            elif k and _worse(items[user], scores[user], heap[0], place):
                _sink(items[user], scores[user], heap, size, place)
        while size:
            size -= 1
            best[user, size] = items[user, heap[0]]
            if size:
                _sink(items[user], scores[user], heap, size, heap[size])


@compiled
def _sink(items: Integers, scores: Floats, heap: Integers, size: int, place: int) -> None:
    """Put a place at the root of the heap and let it down to where it belongs."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(items, scores, heap[child + 1], heap[child]):
            child += 1
        if _worse(items, scores, place, heap[child]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = place


@compiled
def _worse(items: Integers, scores: Floats, one: int, other: int) -> bool:
    if scores[one, 0] == scores[other, 0]:
        return bool(items[one] > items[other])
    return bool(scores[one, 0] < scores[other, 0])
