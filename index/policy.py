"""What a live index is told, and what it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Policy:
    """When to use which kind of segment.

    Attributes:
        kind: "exact", "ivf", or "auto", which is exact up to `exact_items` and on a GPU.
        exact_items: up to so many items every one is looked at.
        recall: share of the truly best `recall_at` that an IVF segment must find of practice queries.
        delta_items: items in the slot table at which they move to the IVF segment; more in a large index, see `due`.
        delta_share: the same as a share of all items.
        full_items: items in the slot table at which a writer had better wait, `full`; more in a large index.
        full_share: the same as a share of all items.
        retrain_error: lists are learnt anew when items stand so many times as far from their centroids as at first, in
            the mean of squares.
        rows_per_list: items in a list, at least.
        memory: bytes that one index may take before it keeps numbers of half the length; None is any.
    """

    kind: Literal["auto", "exact", "ivf"] = "auto"
    exact_items: int = 50_000
    recall: float = 0.98
    recall_at: int = 100
    delta_items: int = 2048
    delta_share: float = 0.004
    full_items: int = 65_536
    full_share: float = 0.1
    retrain_error: float = 1.1
    rows_per_list: int = 39
    memory: int | None = None


DEFAULT = Policy()


@dataclass(frozen=True)
class Report:
    """How an index stands.

    Attributes:
        kind: "exact" or "ivf".
        why: the reason for that, in words.
        items: in all segments.
        delta: of these, in the slot table.
        gone: places of the IVF segment held by items that were taken out or changed since.
        lists: of the IVF segment.
        probes: of these, read by each search.
        recall: measured at the newest calibration; 1 where every item is looked at.
        full: whether a writer had better wait.
        compactions: since the start; `retrained` of them learnt new lists.
        build_seconds: of the newest compaction.
        longest_pause_ms: for which a compaction has kept writers waiting.
        nbytes: taken by all segments.
    """

    kind: str
    why: str
    device: str
    items: int
    delta: int
    gone: int
    lists: int
    probes: int
    recall: float
    full: bool
    generation: int
    compactions: int
    retrained: int
    build_seconds: float
    longest_pause_ms: float
    nbytes: int
