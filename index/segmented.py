"""The segmented index: an exact slot table that takes every change, in front of an IVF segment for what has settled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from index.exact import ExactIndex
from index.ivf import Codes, Floats, Integers, IvfSegment, Placed, train, with_bias
from index.live import Found, IndexRefused, check_ids, check_items, check_search, nothing_found
from index.policy import DEFAULT, Policy, Report
from schemas.failpoints import failpoint

log = logging.getLogger(__name__)

Segment = ExactIndex | IvfSegment

CAUGHT_UP = 256
"""Changes that may be left for the moment in which nobody can write."""

WORTH_READING = 0.25
"""Share of the lists up to which reading these is faster than looking at all items, many queries at a time."""

LARGEST_FLOAT16 = 60_000.0

PRACTICE_QUERIES = 128
"""Queries of late that an IVF segment is calibrated with."""

CALIBRATED_SHARE = 0.05
"""Share of the items that may be written anew before the segment is calibrated again."""


@dataclass
class _Work:
    """What compactions have come to so far."""

    compactions: int = 0
    retrained: int = 0
    build_seconds: float = 0.0
    longest_pause: float = 0.0


class SegmentedIndex:
    """An index that is exact while it is small and reads only what it must once it is large, live at any size.

    Segments stand from the oldest to the newest, and the newest, a slot table, takes every change: an upsert is written
    there first and then taken out of the older ones. A search goes the same way, from the oldest to the newest, so it
    meets an item at its new place if it has missed it at its old one; where it meets both, the newer one counts. It
    repeats if a compaction exchanged the segments meanwhile: an item may have moved into one that it did not look at.

    `compact` moves what the slot table holds into an IVF segment while all goes on. It belongs on a thread of its own
    (`index.compactor`), and only the exchange of the segments at its end keeps writers waiting.

    Safe for one writer, several readers and one compaction at a time.
    """

    def __init__(
        self,
        dimension: int,
        *,
        policy: Policy = DEFAULT,
        capacity: int = 1024,
        device: torch.device | str = "cpu",
    ) -> None:
        """Make an empty index.

        Args:
            dimension: length of the vectors.
            capacity: items to reserve room for; more make it grow.

        Raises:
            IndexRefused: dimension or capacity is below 1.
        """
        self._dimension = dimension
        self._policy = policy
        self._device = torch.device(device)
        self._fallen_back: str | None = None
        self._writing = threading.RLock()
        self._compacting = threading.Lock()
        self._segments: tuple[Segment, ...] = (ExactIndex(dimension, capacity=capacity, device=self._device),)
        self._begun = self._sequence = 0
        self._count = 0
        self._generation = 0
        self._work = _Work()
        # Ids that were written since the slot table was put aside; None while none is.
        self._changes: list[Tensor] | None = None
        self._trained_error, self._trained_on = 0.0, 0
        # Whether the segment was calibrated by queries or only by items, and how many were written since.
        self._calibrated_by_queries, self._written = False, 0
        # How many items there were when lists turned out not to be worth it; then not before twice as many.
        self._shapeless = 0
        self._asked = torch.zeros(0, dimension)  # of late, at most `PRACTICE_QUERIES`

    @property
    def sequence(self) -> int:
        return self._sequence

    @property
    def generation(self) -> int:
        """How many times everything was replaced; queries belong to the vectors of one generation."""
        return self._generation

    def __len__(self) -> int:
        return self._count

    def __contains__(self, item: int) -> bool:
        return any(item in segment for segment in self._segments)

    # Changes

    def upsert(self, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
        def write() -> None:
            self._newest.upsert(ids, vectors, bias)
            for segment in self._segments[:-1]:
                segment.remove(ids)

        self._change(ids, write)

    def remove(self, ids: Tensor) -> None:
        check_ids("ids", ids, 1)

        def write() -> None:
            for segment in self._segments:
                segment.remove(ids)

        self._change(ids, write)

    def renew(self, ids: Tensor, vectors: Tensor, bias: Tensor) -> None:
        """Replace everything by a new generation, which is built beside the old one and takes its place in one step.

        Searches go on in the old one until then. So does writing, but what is written meanwhile is of the old
        generation and goes with it.

        Args:
            ids: of an id that is named twice the last one counts; (n,), int64.
            vectors: (n, dimension), float32.
            bias: (n,), float32.

        Raises:
            IndexRefused: nothing is changed then.
        """
        check_items(self._dimension, ids, vectors, bias)
        with self._compacting:
            fresh = SegmentedIndex(self._dimension, policy=self._policy, capacity=max(1, len(ids)), device=self._device)
            fresh._fallen_back, fresh._asked = self._fallen_back, self._asked
            fresh.upsert(ids, vectors, bias)
            if fresh.due:
                fresh.compact()
            work = fresh._work
            work.compactions += self._work.compactions
            work.retrained += self._work.retrained
            work.longest_pause = max(work.longest_pause, self._work.longest_pause)
            with self._writing:
                self._begun += 1
                self._segments, self._count, self._work = fresh._segments, fresh._count, work
                self._trained_error, self._trained_on = fresh._trained_error, fresh._trained_on
                self._calibrated_by_queries, self._written = fresh._calibrated_by_queries, 0
                self._shapeless = fresh._shapeless
                self._generation += 1
                self._sequence = self._begun

    def _change(self, ids: Tensor, write: Callable[[], None]) -> None:
        with self._writing:
            self._begun += 1
            try:
                try:
                    write()
                except torch.OutOfMemoryError as error:
                    self._leave_gpu(error)
                    write()
            except BaseException:
                self._begun = self._sequence
                raise
            if self._changes is not None:
                self._changes.append(ids.clone())
            self._count = sum(map(len, self._segments))
            self._sequence = self._begun

    # Reading

    def search(
        self,
        queries: Tensor,
        k: int,
        *,
        excluded: Tensor | None = None,
        allowed: Tensor | None = None,
        generation: int | None = None,
    ) -> Found:
        check_search(self._dimension, queries, k, excluded, allowed)
        while True:
            segments, began, now = self._segments, self._begun, self._generation
            if generation is not None and generation != now:
                raise IndexRefused("generation", str(generation), str(now))
            quiet, width = began == self._sequence, min(k, self._count)
            try:
                found = [segment.search(queries, k, excluded=excluded, allowed=allowed) for segment in segments]
            except torch.OutOfMemoryError as error:
                self._leave_gpu(error)
                continue
            if self._segments is segments:
                break
        if queries.device.type == "cpu":
            self._asked = torch.cat((self._asked, queries))[-PRACTICE_QUERIES:]
        quiet = quiet and self._begun == began
        joined = _joined(found, width, met_once=quiet)
        return Found(joined.ids.to(queries.device), joined.scores.to(queries.device))

    def report(self) -> Report:
        """How it stands."""
        segments, work = self._segments, self._work
        main = segments[0] if isinstance(segments[0], IvfSegment) else None
        return Report(
            kind="exact" if main is None else "ivf",
            why=self._why(),
            device=str(self._device),
            items=self._count,
            delta=self._delta_items(),
            gone=main.gone if main else 0,
            lists=len(main.centroids) if main else 0,
            probes=main.probes if main else 0,
            recall=round(main.recall, 4) if main else 1.0,
            full=self.full,
            generation=self._generation,
            compactions=work.compactions,
            retrained=work.retrained,
            build_seconds=round(work.build_seconds, 3),
            longest_pause_ms=round(1000 * work.longest_pause, 3),
            nbytes=sum(segment.nbytes for segment in segments),
        )

    # Compaction

    @property
    def due(self) -> bool:
        """Whether a compaction would do some good."""
        if self._device.type != "cpu" or self._policy.kind == "exact":
            return False
        if isinstance(self._segments[0], IvfSegment):
            enough = max(self._policy.delta_items, self._policy.delta_share * self._count)
            return self._delta_items() > enough or self._segments[0].gone > max(enough, self._count / 2)
        if self._policy.kind == "ivf":
            return self._count > 0
        return self._count > max(self._policy.exact_items, 2 * self._shapeless)

    @property
    def full(self) -> bool:
        """Whether the slot table has outgrown what searches can bear, since compactions do not keep up."""
        if self._device.type != "cpu" or not isinstance(self._segments[0], IvfSegment):
            return False
        return self._delta_items() > max(self._policy.full_items, self._policy.full_share * self._count)

    def compact(self) -> None:
        """Move all that the slot table holds into an IVF segment, and leave behind what is gone.

        The lists stay those that were learnt last until items have moved away from them (`Policy.retrain_error`) or
        their number has doubled: lists learnt from items that have been replaced since find ever less of the new ones.
        """
        with self._compacting:
            began = time.perf_counter()
            try:
                self._compact()
            except BaseException:
                self._thaw()
                raise
            self._work.compactions += 1
            self._work.build_seconds = time.perf_counter() - began

    def _compact(self) -> None:
        old = self._segments[0] if isinstance(self._segments[0], IvfSegment) else None
        stale = old is not None and self._is_stale(old)
        settled = None if old is None else old.contents()
        centroids = None if old is None else old.centroids
        if stale and settled is not None:
            # This takes longest, so it comes before the slot table is put aside.
            centroids = train(settled.rows, self._policy.rows_per_list)
            settled = Placed.nearest(centroids, settled.ids, settled.rows)
        ids, rows = self._freeze()
        failpoint("index.compact")
        if centroids is None:
            centroids = train(rows, self._policy.rows_per_list)
        placed = Placed.nearest(centroids, ids, rows)
        if old is not None and settled is not None:
            # What was changed before the slot table was put aside is in there.
            placed = Placed.joined(settled.only(old.holds(settled.ids)), placed)
        new = IvfSegment(centroids, placed, self._codes(placed.rows))
        asked = self._asked
        enough = len(asked) == PRACTICE_QUERIES
        self._written += len(ids)
        overdue = (enough and not self._calibrated_by_queries) or self._written > CALIBRATED_SHARE * len(new)
        if old is None or stale or overdue:
            new.calibrate(asked if enough else _some(placed.rows), self._policy.recall, self._policy.recall_at)
            self._calibrated_by_queries, self._written = enough, 0
        else:
            new.read(old.probes, old.recall)
        if old is None or stale:
            if old is None and self._policy.kind == "auto" and new.probes > WORTH_READING * len(centroids):
                self._shapeless = len(new)
                self._thaw()
                return
            self._trained_error, self._trained_on = new.error, len(new)
            self._work.retrained += 1
        self._exchange(new)

    def _is_stale(self, old: IvfSegment) -> bool:
        """Whether items stand further from their lists' centroids than they did, or lists should be more or fewer."""
        further = old.error > self._policy.retrain_error * self._trained_error
        return further or not self._trained_on / 4 <= len(old) <= 2 * self._trained_on

    def _freeze(self) -> tuple[Integers, Floats]:
        """Put the slot table aside, and an empty one in its place, which takes what is written from now on.

        Returns:
            Ids and rows of what the slot table held.
        """
        empty = ExactIndex(self._dimension, capacity=2 * self._policy.delta_items)
        with self._held_up():
            frozen = self._newest
            self._changes = []
            self._segments = (*self._segments, empty)
        ids, vectors, bias = frozen.contents()
        return ids.numpy(), with_bias(vectors, bias)

    def _exchange(self, new: IvfSegment) -> None:
        """Let the new segment catch up with what was written meanwhile, and take the place of all but the newest."""
        replaced = self._segments  # kept until nobody waits: to give back much memory takes many milliseconds
        while True:
            with self._held_up():
                changes, self._changes = self._changes or [], []
                if sum(map(len, changes)) <= CAUGHT_UP:
                    for ids in changes:
                        new.remove(ids)
                    self._segments = (new, self._segments[-1])
                    self._count = sum(map(len, self._segments))
                    self._changes = None
                    break
            for ids in changes:
                new.remove(ids)
        del replaced

    def _thaw(self) -> None:
        """Take back a slot table that was put aside, with what was written since."""
        with self._held_up():
            if self._changes is not None:
                written, self._segments = self._newest, self._segments[:-1]
                self._newest.upsert(*written.contents())
                self._changes = None

    @contextmanager
    def _held_up(self) -> Iterator[None]:
        """Keep writers waiting, and note for how long."""
        with self._writing:
            began = time.perf_counter()
            yield
            self._work.longest_pause = max(self._work.longest_pause, time.perf_counter() - began)

    def _codes(self, rows: Floats) -> Codes:
        memory = self._policy.memory
        if memory is None or rows.nbytes <= memory:
            return "float32"
        if np.abs(rows[np.isfinite(rows)]).max(initial=0.0) > LARGEST_FLOAT16:
            return "float32"
        return "float16"

    def _delta_items(self) -> int:
        return sum(len(segment) for segment in self._segments if isinstance(segment, ExactIndex))

    def _why(self) -> str:
        policy, count = self._policy, self._count
        if self._device.type != "cpu":
            return f"on {self._device} every item is looked at"
        if self._fallen_back:
            return self._fallen_back
        if policy.kind != "auto":
            return f'index.kind is "{policy.kind}"'
        if isinstance(self._segments[0], IvfSegment):
            return f"{count:,} items, exact up to {policy.exact_items:,}"
        if self._shapeless:
            return f"{count:,} items without clusters: too many lists would have to be read"
        if count > policy.exact_items:
            return f"{count:,} items: lists are being learnt"
        return f"{count:,} items, exact up to {policy.exact_items:,}"

    def _leave_gpu(self, error: torch.OutOfMemoryError) -> None:
        """The GPU's memory does not suffice: go on from the host's."""
        with self._writing:
            if self._device.type == "cpu":
                return  # another thread has met it first
            ids, vectors, bias = self._newest.contents()
            on_host = ExactIndex(self._dimension, capacity=max(1, len(ids)))
            on_host.upsert(ids, vectors, bias)
            self._segments = (on_host,)
            self._fallen_back = f"{self._device} ran out of memory"
            self._device = on_host.device
            log.warning("the index of %d items goes on in the host's memory: %s", len(ids), error)

    @property
    def _newest(self) -> ExactIndex:
        newest = self._segments[-1]
        assert isinstance(newest, ExactIndex)
        return newest


def _some(rows: Floats) -> Tensor:
    """Vectors of some items, to practise with while there are too few queries."""
    chosen = np.random.default_rng(0).choice(len(rows), min(PRACTICE_QUERIES, len(rows)), replace=False)
    return torch.from_numpy(rows[chosen, :-1])


def _joined(found: Sequence[Found], width: int, met_once: bool) -> Found:
    """The best of several segments' answers, the oldest first.

    Args:
        width: of the answer.
        met_once: no item can be in two answers; where one is, the newer counts.
    """
    if len(found) == 1 and found[0].ids.shape[1] == width:
        return found[0]
    scores = [each.scores for each in found]
    if not met_once:
        for number in range(len(found) - 1):
            newer = torch.cat([each.ids for each in found[number + 1 :]], 1).sort(1).values
            if newer.shape[1]:
                place = torch.searchsorted(newer, found[number].ids).clamp_max_(newer.shape[1] - 1)
                twice = newer.gather(1, place) == found[number].ids
                scores[number] = scores[number].masked_fill(twice, -torch.inf)
    ids, together = torch.cat([each.ids for each in found], 1), torch.cat(scores, 1)
    answer = nothing_found(len(ids), width)
    best, columns = together.topk(min(width, together.shape[1]), dim=1)
    answer.scores[:, : best.shape[1]] = best
    answer.ids[:, : best.shape[1]] = ids.gather(1, columns).masked_fill_(best == -torch.inf, 0)
    return answer
