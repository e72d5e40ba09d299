"""An IVF segment: items in FAISS's inverted lists, of which a search reads the few that the query points to."""

from __future__ import annotations

from typing import Literal, NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.blocks import top_k
from index.live import Found, nothing_found

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Codes = Literal["float32", "float16"]

TRAINED_ON = 40
"""Rows for each list that its centroid is learnt from, at most."""

ITERATIONS = 6

NARROW_ROWS, NARROW_SHARE = 4096, 0.05
"""A filter that lets through so few rows, or so small a share of them, is searched row by row: exact, and faster."""

GONE, HIDDEN, SHOWN = 0, 1, 2


class Placed(NamedTuple):
    """Items and the lists that they go to.

    Attributes:
        ids: (n,), int64.
        rows: vectors with the bias behind, -inf for an item that is there but hidden; (n, dimension + 1), float32.
        lists: (n,), int32.
        distances: squared, from the list's centroid; (n,), float32.
    """

    ids: Integers
    rows: Floats
    lists: NDArray[np.int32]
    distances: Floats

    @classmethod
    def nearest(cls, centroids: Floats, ids: Integers, rows: Floats) -> Placed:
        """Each item in the list of the centroid that is nearest to it."""
        _follow_torch()
        finder = faiss.IndexFlatL2(rows.shape[1])
        finder.add(centroids)
        distances, lists = finder.search(_finite(rows), 1)
        return cls(ids, rows, lists[:, 0].astype(np.int32), distances[:, 0])

    def only(self, kept: NDArray[np.bool_]) -> Placed:
        """Some of them."""
        return Placed(self.ids[kept], self.rows[kept], self.lists[kept], self.distances[kept])

    @classmethod
    def joined(cls, one: Placed, other: Placed) -> Placed:
        """Both, one after the other."""
        return cls(
            np.concatenate((one.ids, other.ids)),
            np.concatenate((one.rows, other.rows)),
            np.concatenate((one.lists, other.lists)),
            np.concatenate((one.distances, other.distances)),
        )


class IvfSegment:
    """Items that were put together once; from then on they can only be taken out.

    An item's row is its vector with its bias behind it, and a query gets a 1 there, so that one inner product is the
    score. What is taken out is hidden where it stands, by a bias of -inf written into the list: an aligned float
    changes as a whole, so searches go on meanwhile, and none of them pays for it. FAISS's own selectors cost each
    search 40 % of its speed when we tried them; on a GPU they are ignored.

    Rows are assigned to the nearest centroid, and the lists searched are those whose centroid has the greatest inner
    product with the query.

    One thread may take items out while others search.
    """

    def __init__(self, centroids: Floats, placed: Placed, codes: Codes = "float32") -> None:
        """Put the lists together.

        Args:
            centroids: (lists, dimension + 1).
            placed: each id once.
            codes: how numbers are kept; float16 halves the memory and rounds scores to three digits.
        """
        order = np.argsort(placed.lists, kind="stable")
        ids, rows = placed.ids, placed.rows
        self.centroids = centroids
        self.codes = codes
        self._ids = ids[order].astype(np.int32)
        self._distances = placed.distances[order]
        self._starts = np.searchsorted(placed.lists[order], np.arange(len(centroids) + 1)).astype(np.int64)
        stored = rows[order].astype(codes)
        self._state = np.where(stored[:, -1] > -np.inf, SHOWN, HIDDEN).astype(np.uint8)
        # By id; -1 where there is none.
        self._place = np.full(int(self._ids.max(initial=0)) + 1, -1, np.int32)
        self._place[self._ids] = np.arange(len(ids), dtype=np.int32)
        self._held = len(ids)
        self._shown = int((self._state == SHOWN).sum())
        self._built_with = len(ids)
        self._probes = len(centroids)
        self.recall = 1.0
        self._quantizer = faiss.IndexFlatIP(rows.shape[1])
        self._quantizer.add(centroids)
        self._index = self._filled(stored)
        self._bias = [self._list(number)[:, -1] for number in range(len(centroids))]

    def __len__(self) -> int:
        return self._held

    def __contains__(self, item: int) -> bool:
        return bool(self.holds(np.array([item]))[0])

    def holds(self, ids: Integers) -> NDArray[np.bool_]:
        """Which of these items are there."""
        return self._positions(ids)[1]

    @property
    def gone(self) -> int:
        """Places that are held by items which were taken out."""
        return self._built_with - self._held

    @property
    def probes(self) -> int:
        """Lists that a search reads."""
        return self._probes

    @property
    def nbytes(self) -> int:
        """Bytes held: the codes, and for each item its id, place, state and FAISS's two numbers."""
        return int(self._built_with * (self._index.code_size + 4 + 4 + 1 + 4 + 8 + 8) + 2 * self.centroids.nbytes)

    @property
    def error(self) -> float:
        """Mean squared distance of the items that are there from the centroids of their lists."""
        return float(self._distances[self._state != GONE].mean()) if self._held else 0.0

    def contents(self) -> Placed:
        """All items that are there."""
        rows = np.concatenate([self._list(number) for number in range(len(self.centroids))])
        lists = np.repeat(np.arange(len(self.centroids), dtype=np.int32), np.diff(self._starts))
        kept = self._state != GONE
        return Placed(
            self._ids[kept].astype(np.int64),
            rows[kept].astype(np.float32, copy=False),
            lists[kept],
            self._distances[kept],
        )

    def remove(self, ids: Tensor) -> None:
        """Take items out; ids that are not there are ignored."""
        positions, _ = self._positions(ids.cpu().numpy())
        if len(positions) == 0:
            return
        positions = np.unique(positions)
        state = self._state[positions]
        lists = np.searchsorted(self._starts, positions, side="right") - 1
        places = positions - self._starts[lists]
        for number, place in zip(lists.tolist(), places.tolist(), strict=True):
            self._bias[number][place] = -np.inf
        self._state[positions] = GONE
        self._held -= len(positions)
        self._shown -= int((state == SHOWN).sum())

    def search(
        self, queries: Tensor, k: int, *, excluded: Tensor | None = None, allowed: Tensor | None = None
    ) -> Found:
        """As `index.live.Index.search`, of the items that the lists read hold; (batch, min(k, items not hidden)).

        Where these lists hold fewer than k, all lists are read: never fewer than k while so many are left.
        """
        width = min(k, self._shown)
        if width == 0 or len(queries) == 0:
            return nothing_found(len(queries), width)
        asked = _with_ones(queries)
        unwanted = None if excluded is None or excluded.shape[1] == 0 else excluded.cpu().to(torch.int64).sort(1).values
        selector, reach = None, self._shown
        if allowed is not None:
            positions, _ = self._positions(allowed.cpu().numpy())
            positions = np.unique(positions)
            positions = positions[self._state[positions] == SHOWN]
            reach = len(positions)
            if reach <= max(NARROW_ROWS, NARROW_SHARE * self._built_with):
                return self._search_rows(asked, positions, width, unwanted)
            bits = np.zeros(self._built_with, np.bool_)
            bits[positions] = True
            packed = np.packbits(bits, bitorder="little")
            selector = faiss.IDSelectorBitmap(packed)
        banned = 0 if unwanted is None else unwanted.shape[1]
        # Most of what a user has had lies elsewhere; who is left short is searched for again.
        found = self._search_lists(asked, width, min(banned, width), self._probes, selector, unwanted)
        short = (found.ids > 0).sum(1) < min(width, reach)
        if bool(short.any()):
            at = short.nonzero().flatten()
            barred = None if unwanted is None else unwanted[at]
            again = self._search_lists(asked[at.numpy()], width, banned, len(self.centroids), selector, barred)
            found.ids[at], found.scores[at] = again
        return found

    def calibrate(self, queries: Tensor, wanted: float, k: int) -> None:
        """Read as few lists as it takes to find that share of what all lists hold, and note the share in `recall`.

        Args:
            queries: such as will be asked; (n, dimension).
            wanted: mean recall@k; 1 reads all lists, whatever the queries.
        """
        everywhere = len(self.centroids)
        self._probes, self.recall = everywhere, 1.0
        if wanted >= 1.0 or self._shown == 0 or len(queries) == 0:
            return
        asked, width = _with_ones(queries), min(k, self._shown)
        truth = self._search_lists(asked, width, 0, everywhere, None, None).ids.sort(1).values

        def found_of(probes: int) -> float:
            # A search that is left short of k looks everywhere: that must not pass for what so few lists find.
            found = self._search_lists(asked, width, 0, probes, None, None).ids
            place = torch.searchsorted(truth, found).clamp_max(truth.shape[1] - 1)
            return float(((truth.gather(1, place) == found) & (found > 0)).sum() / (truth > 0).sum())

        # More lists never find less: double their number until they do, and then look between.
        least, most = 0, 1
        while most < everywhere and found_of(most) < wanted:
            least, most = most, min(2 * most, everywhere)
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (least, middle) if found_of(middle) >= wanted else (middle, most)
        self._probes, self.recall = most, found_of(most)

    def read(self, probes: int, recall: float) -> None:
        """Read so many lists, of which it was measured before how much they find."""
        self._probes, self.recall = min(probes, len(self.centroids)), recall

    def _search_lists(
        self,
        asked: Floats,
        width: int,
        more: int,
        probes: int,
        selector: faiss.IDSelector | None,
        unwanted: Tensor | None,
    ) -> Found:
        """The best `width` of some lists, out of `more` than these, from which what is unwanted is struck out."""
        _follow_torch()
        parameters = faiss.SearchParametersIVF(nprobe=probes, sel=selector)
        count = min(width + more, self._built_with)
        scores, positions = self._index.search(asked, count, params=parameters)
        ids = torch.from_numpy(np.where(positions < 0, 0, self._ids[positions]).astype(np.int64))
        return _best(ids, torch.from_numpy(scores), width, unwanted)

    def _search_rows(self, asked: Floats, positions: Integers, width: int, unwanted: Tensor | None) -> Found:
        """The best `width` of these places, each of which is looked at."""
        count = min(width, len(positions))
        if count == 0:
            return nothing_found(len(asked), width)
        rows = torch.from_numpy(self._index.reconstruct_batch(positions))
        scores = torch.from_numpy(asked) @ rows.T
        ids = torch.from_numpy(self._ids[positions]).long()
        if unwanted is not None:
            _strike_out(ids.expand(len(scores), -1), scores, unwanted)
        best, columns = top_k(scores, count)
        found = nothing_found(len(asked), width)
        found.scores[:, :count] = best
        found.ids[:, :count] = ids[columns].masked_fill_(best == -torch.inf, 0)
        return found

    def _positions(self, ids: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """Where those of the items stand that are there, and which these are."""
        places = self._place[np.where((ids < 0) | (ids >= len(self._place)), 0, ids)]
        there = places >= 0
        there[there] = self._state[places[there]] != GONE
        return places[there].astype(np.int64), there

    def _filled(self, stored: NDArray[np.floating]) -> faiss.IndexIVF:
        lists, width = len(self.centroids), stored.shape[1]
        if self.codes == "float32":
            index = faiss.IndexIVFFlat(self._quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        else:
            kind = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexIVFScalarQuantizer(
                self._quantizer, width, lists, kind, faiss.METRIC_INNER_PRODUCT, False
            )
        index.is_trained = True
        positions = np.arange(len(stored))
        for number in range(lists):
            begin, end = int(self._starts[number]), int(self._starts[number + 1])
            if end > begin:
                codes = stored[begin:end].view(np.uint8)
                index.invlists.add_entries(
                    number, end - begin, faiss.swig_ptr(positions[begin:end]), faiss.swig_ptr(codes)
                )
        index.ntotal = len(stored)
        index.make_direct_map(True)
        return index

    def _list(self, number: int) -> NDArray[np.floating]:
        """The rows of a list, where FAISS holds them; (items, dimension + 1)."""
        size = int(self._starts[number + 1] - self._starts[number])
        if size == 0:
            return np.zeros((0, self._index.d), self.codes)
        codes = faiss.rev_swig_ptr(self._index.invlists.get_codes(number), size * self._index.code_size)
        view: NDArray[np.floating] = codes.view(self.codes).reshape(size, self._index.d)
        return view


def train(rows: Floats, rows_per_list: int) -> Floats:
    """Centroids of lists, as many as serve best: 4 √n, if each then has so many rows."""
    lists = max(1, min(int(4 * len(rows) ** 0.5), len(rows) // rows_per_list))
    finite = _finite(rows)
    if len(finite) > TRAINED_ON * lists:
        finite = finite[np.random.default_rng(0).choice(len(finite), TRAINED_ON * lists, replace=False)]
    if lists == 1:
        return finite.mean(0, keepdims=True) if len(finite) else np.zeros((1, rows.shape[1]), np.float32)
    _follow_torch()
    kmeans = faiss.Kmeans(
        rows.shape[1], lists, niter=ITERATIONS, seed=1, min_points_per_centroid=1, max_points_per_centroid=TRAINED_ON
    )
    kmeans.train(finite)
    centroids: Floats = kmeans.centroids
    return centroids


def _finite(rows: Floats) -> Floats:
    """The rows with a bias of 0 in place of -inf."""
    hidden = rows[:, -1] == -np.inf
    if not hidden.any():
        return np.ascontiguousarray(rows)
    finite = rows.copy()
    finite[hidden, -1] = 0.0
    return finite


def _best(ids: Tensor, scores: Tensor, width: int, unwanted: Tensor | None) -> Found:
    """The first `width` of what is sorted, less what is unwanted."""
    if unwanted is not None:
        _strike_out(ids, scores, unwanted)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        ids = ids.gather(1, order)
    ids, scores = ids[:, :width], scores[:, :width]
    absent = (ids == 0) | (scores == -torch.inf)
    return Found(ids.masked_fill(absent, 0), scores.masked_fill(absent, -torch.inf))


def _strike_out(ids: Tensor, scores: Tensor, unwanted: Tensor) -> None:
    """Give what is unwanted the lowest score.

    Args:
        unwanted: sorted; (batch, e).
    """
    place = torch.searchsorted(unwanted, ids.contiguous()).clamp_max_(unwanted.shape[1] - 1)
    scores.masked_fill_(unwanted.gather(1, place) == ids, -torch.inf)


def _follow_torch() -> None:
    """FAISS keeps a number of threads for each thread that calls it; let it be torch's."""
    faiss.omp_set_num_threads(torch.get_num_threads())


def _with_ones(queries: Tensor) -> Floats:
    """Queries for rows that end in a bias; (n, dimension) → (n, dimension + 1)."""
    return np.pad(queries.cpu().numpy(), ((0, 0), (0, 1)), constant_values=1.0)


def with_bias(vectors: Tensor, bias: Tensor) -> Floats:
    """Rows as a segment keeps them; (n, dimension) and (n,) → (n, dimension + 1)."""
    rows: Floats = torch.cat((vectors.cpu(), bias.cpu()[:, None]), 1).numpy()
    return rows
