"""A directory: which place each of a few items has, for compiled loops that must not depend on the catalogue's size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from learner.compiled import compiled

Integers = NDArray[np.int64]
Floats = NDArray[np.float32]
Places = NDArray[np.int32]
"""By hash: 1 + the place of an item, 0 where there is none."""


@compiled
def directory_size(items: int) -> int:
    """How long a directory for so many items must be: a power of two, of which at least half stays free."""
    size = 2
    while size < 2 * items:
        size *= 2
    return size


@compiled
def place_of(places: Places, items: Integers, item: int) -> int:
    """Where the item stands in the directory, or would stand (Knuth, TAOCP 3, 6.4: open addressing).

    Args:
        places: of `directory_size`.
        items: by place.
    """
    mask = len(places) - 1
    at = ((item * 2654435769) >> 12) & mask
    while places[at] and items[places[at] - 1] != item:
        at = (at + 1) & mask
    return at
