"""Ranking: from a user's history to an ordered list. SERVE answers with it, LEARN tests and trains on it.

candidates → features → order, for a batch of users of one scenario at once. Nothing here changes any state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from learner.compiled import compiled
from learner.directory import Integers, directory_size, place_of
from learner.items import ItemTable
from learner.mixer import FEATURES, Mixer
from learner.model import Heads, Trunk, gap_buckets, profile
from learner.outcomes import COLD_USES
from schemas.settings import Model

NEURAL, COVISITED, POPULAR, OWN = 1, 2, 4, 8
"""Who brought a candidate, as bits of `Ranking.origin`."""

OWN_CANDIDATES = 100
"""Of what a user has used in a scenario where items may return, the newest so many are candidates."""

NEWCOMER_BONUS = math.log(5.0)
"""What an item of fewer than `COLD_USES` uses gets on top of the mixer's score, were all the others known, in logits.

By the mixer's odds alone a new item stays low until it is used, and is not used while it stays low."""

LEAST_SHARE = 1e-3
LEAST_COUNT = 0.02
"""Stand in for nothing where a logarithm is taken."""

Search = Callable[[Tensor, int, Tensor | None, Tensor | None], tuple[Tensor, Tensor]]
"""(queries (b, d), k, excluded (b, e) or None, allowed (n,) or None) → ids (b, k'), scores (b, k'), best first; 0 pads.

Never fewer than min(k, what is neither excluded nor outside `allowed`)."""


@dataclass(frozen=True)
class Question:
    """For whom to rank.

    Attributes:
        history: item rows, oldest first; unknown items are left out.
        times: epoch seconds beside `history`.
        now: epoch seconds.
        excluded: rows never to return.
        used: rows that the user has used in the scenario, oldest first, where they may return.
    """

    history: Sequence[int]
    times: Sequence[float]
    now: float
    excluded: Sequence[int]
    used: Sequence[int] = ()


@dataclass(frozen=True)
class Clocks:
    """Events counted so far, over all scenarios and in this one; the counters decay with them."""

    clock: float
    scenario_clock: float


@dataclass(frozen=True)
class Batch:
    """Questions as tensors.

    Attributes:
        history: rows, oldest first, 0 pads on the left; (batch, length), int64.
        gaps: buckets of `gap_buckets`, 0 at pads; (batch, length), int64.
        excluded: rows, 0 pads; (batch, e), int64.
        used: rows, 0 pads; (batch, u), int64.
    """

    history: Tensor
    gaps: Tensor
    excluded: Tensor
    used: Tensor

    def take(self, at: Tensor | slice) -> Batch:
        """The questions at these places."""
        return Batch(self.history[at], self.gaps[at], self.excluded[at], self.used[at])


@dataclass(frozen=True)
class Candidates:
    """What may be recommended, with all that speaks for it.

    Attributes:
        rows: each at most once per user, 0 pads on the right; (batch, c), int64.
        neural: inner product plus bias; (batch, c), float32.
        origin: who brought it; (batch, c), int64.
        features: (batch, c, len(FEATURES)), float32.
        bonus: of newcomers, on top of what the mixer makes of the features; (batch, c), float32.
    """

    rows: Tensor
    neural: Tensor
    origin: Tensor
    features: Tensor
    bonus: Tensor


@dataclass(frozen=True)
class Ranking:
    """Candidates in order, best first; pads (row 0, score -inf) stand last.

    Attributes:
        rows: (batch, c), int64.
        scores: (batch, c), float32.
        neural: (batch, c), float32.
        origin: bits NEURAL, COVISITED, POPULAR; (batch, c), int64.
    """

    rows: Tensor
    scores: Tensor
    neural: Tensor
    origin: Tensor


class ScenarioModel(nn.Module):
    """All that ranks one scenario: the trunk, and the scenario's own head and mixer."""

    def __init__(self, sizes: Model, trunk: Trunk, head: Heads, mixer: Mixer) -> None:
        super().__init__()
        self.sizes = sizes
        self.trunk = trunk
        self.head = head
        self.mixer = mixer

    @classmethod
    def blank(cls, sizes: Model) -> ScenarioModel:
        """One that has learnt nothing."""
        generator = torch.Generator().manual_seed(0)
        trunk, head = Trunk(sizes, generator), Heads(1, sizes, generator)
        return cls(sizes, trunk, head, Mixer(1, sizes.mixer_units, generator)).requires_grad_(False)

    def query(self, items: Tensor, present: Tensor, gaps: Tensor) -> Tensor:
        """Vectors to search the index with; arguments as in `Trunk.forward`; (batch, dimension)."""
        scenario = torch.zeros(len(items), dtype=torch.long, device=items.device)
        queries: Tensor = self.head(self.trunk(items, present, gaps), scenario)
        return queries

    def dump(self) -> bytes:
        """As safetensors."""
        return save_tensors({name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()})

    def load(self, tensors: bytes) -> None:
        """Become the model that `dump` was called on, of the same sizes."""
        self.load_state_dict(load_tensors(tensors))


def rank(
    model: ScenarioModel,
    table: ItemTable,
    scenario: int,
    clocks: Clocks,
    questions: Sequence[Question],
    search: Search,
    allowed: Tensor | None = None,
    minimum: int = 0,
) -> Ranking:
    """Order the items of a scenario for each user.

    Args:
        search: the scenario's index; holds exactly the rows that are eligible there.
        allowed: rows that may be returned; None is all. (n,), int64.
        minimum: so many items at least, if so many are eligible, allowed and not excluded.
    """
    batch = as_batch(questions, model.sizes.history, table.vectors.device)
    return order(model, find(model, table, scenario, clocks, batch, search, allowed, minimum))


def warm_up(sizes: Model) -> None:
    """Rank once for nobody, so that the compiled loops are there before anybody waits for them."""
    table = ItemTable(("nowhere",), sizes)
    rows = [table.add(name) for name in ("one", "other")]
    table.eligible[0, rows] = True
    nearest = torch.tensor([rows])
    questions = [Question(history=rows[:1], times=[0.0], now=0.0, excluded=[])]
    model, clocks = ScenarioModel.blank(sizes), Clocks(0.0, 0.0)
    rank(model, table, 0, clocks, questions, lambda queries, *_: (nearest, queries))
    reasons(table, questions, [rows[1:]])


def as_batch(questions: Sequence[Question], length: int, device: torch.device) -> Batch:
    """Questions as tensors, of the newest `length` items of each history."""
    histories = [list(question.history[-length:]) for question in questions]
    pads = [[0] * (length - len(history)) for history in histories]
    rows = torch.tensor([pad + history for pad, history in zip(pads, histories, strict=True)], dtype=torch.long)
    ages = torch.tensor(
        [
            pad + [question.now - time for time in question.times[-length:]]
            for pad, question in zip(pads, questions, strict=True)
        ],
        dtype=torch.float64,
    )
    rows, ages = rows.view(len(questions), length), ages.view(len(questions), length)
    excluded = padded([question.excluded for question in questions], device)
    used = padded([question.used for question in questions], device)
    return Batch(rows.to(device), (gap_buckets(ages) * (rows > 0)).to(device), excluded, used)


@torch.no_grad()
def find(
    model: ScenarioModel,
    table: ItemTable,
    scenario: int,
    clocks: Clocks,
    batch: Batch,
    search: Search,
    allowed: Tensor | None = None,
    minimum: int = 0,
) -> Candidates:
    """Gather candidates and measure what speaks for each; arguments as in `rank`."""
    sizes = model.sizes
    present = batch.history > 0
    device = table.vectors.device
    items = _at(table.vectors, batch.history)  # (b, length, d)
    queries = model.query(items, present, batch.gaps)

    # Candidates, from four sides; the counters live in the host's memory, wherever the model runs.
    excluded = batch.excluded if batch.excluded.shape[1] else None
    nearest, _ = search(queries, max(sizes.neural_candidates, minimum), excluded, allowed)
    covisited = table.covisitation.score(batch.history.cpu(), clocks.clock)
    together = covisited.top(sizes.covisited_candidates)
    popular = table.popularity.top(scenario, table.eligible[scenario], sizes.popular_candidates, clocks.scenario_clock)
    shelf = table.eligible[scenario] if allowed is None else among(table.eligible[scenario], allowed)
    sides = [nearest.cpu(), together, popular.cpu().expand(len(nearest), -1), batch.used.cpu()]
    on_host, origin = _gather(sides, shelf.cpu(), batch.excluded.cpu())
    rows = on_host.to(device)

    # What speaks for each.
    found = rows > 0
    vectors = _at(table.vectors, rows)  # (b, c, d)
    mean = functional.normalize(profile(items, present), dim=1)
    newest = functional.normalize(items[:, -1], dim=1)
    asked = torch.stack([queries, mean, newest], dim=1)
    by_query, by_mean, by_newest = torch.bmm(asked, vectors.mT).unbind(1)  # (b, c) each
    neural = by_query + _at(table.bias[scenario], rows)
    norm = vectors.norm(dim=2).clamp_min(1e-6)
    signals = covisited.at(on_host).to(device)  # (b, c, 4)
    shares = (signals / signals.sum(1, keepdim=True).clamp_min(1e-9) + LEAST_SHARE).log() + 5.0
    popularity = table.popularity.log_popularity(scenario, rows, clocks.scenario_clock)  # (b, c, 2)
    popularity = torch.logaddexp(popularity, popularity.new_tensor(LEAST_COUNT).log())
    count = table.count(rows, clocks.clock)
    log_softmax = neural.masked_fill(~found, -torch.inf).log_softmax(1).clamp_min(-20.0) + 5.0
    features = torch.empty(*rows.shape, len(FEATURES), device=rows.device)
    features[..., 0] = log_softmax
    features[..., 1:5] = shares
    features[..., 5:7] = popularity
    features[..., 7] = count.log1p() - 3.0
    features[..., 8] = signals[..., 0] > 0
    features[..., 9] = present.sum(1, keepdim=True).float().log1p() - 2.5
    features[..., 10] = 3.0 * by_mean / norm
    features[..., 11] = (batch.gaps[:, -1:] - 6.0) / 4.0
    features[..., 12] = 3.0 * by_newest / norm
    features[..., 13:15] = _own_use(on_host, batch).to(device)
    features.masked_fill_(~found[..., None], 0.0)
    return Candidates(rows, neural, origin.to(device), features, _newcomer_bonus(table, rows))


@torch.no_grad()
def order(model: ScenarioModel, candidates: Candidates) -> Ranking:
    """Candidates by the mixer's score, best first."""
    scores = model.mixer(candidates.features, 0) + candidates.bonus
    scores = scores.masked_fill(candidates.rows == 0, -torch.inf)
    scores, place = scores.sort(dim=1, descending=True, stable=True)
    return Ranking(
        rows=candidates.rows.gather(1, place),
        scores=scores,
        neural=candidates.neural.gather(1, place),
        origin=candidates.origin.gather(1, place),
    )


def _newcomer_bonus(table: ItemTable, rows: Tensor) -> Tensor:
    """The less a list has of newcomers, the more each of them gets: where most are new, newness tells nothing.

    Args:
        rows: of candidates, 0 pads; (batch, c), int64.

    Returns:
        (batch, c), float32.
    """
    found = rows > 0
    new = (_at(table.popularity.events, rows) < COLD_USES) & found
    known = 1.0 - new.sum(1, keepdim=True) / found.sum(1, keepdim=True).clamp_min(1)
    return NEWCOMER_BONUS * known * new


def _at(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table, in the shape of `rows`; several times as fast as indexing on the CPU."""
    return table.index_select(0, rows.flatten()).view(*rows.shape, *table.shape[1:])


def among(eligible: Tensor, allowed: Tensor) -> Tensor:
    """Of the eligible rows those that are also allowed; (rows,), bool, and (n,), int64 → (rows,), bool."""
    named = torch.zeros_like(eligible)
    named[allowed] = True
    return eligible & named


def _gather(sides: list[Tensor], shelf: Tensor, excluded: Tensor) -> tuple[Tensor, Tensor]:
    """Candidates of all sides in one: each row once, none that is off the shelf or excluded, 0 on the right.

    Args:
        sides: of the tower, co-visitation, popularity and the user; (batch, …) each.

    Returns:
        Rows, and who brought them; (batch, c) each, int64.
    """
    brought = torch.cat(sides, dim=1).numpy()
    bits = np.repeat([NEURAL, COVISITED, POPULAR, OWN], [side.shape[1] for side in sides])
    rows, origin = np.zeros_like(brought), np.zeros_like(brought)
    widest = _keep(brought, bits, shelf.numpy(), excluded.numpy(), rows, origin)
    return torch.from_numpy(rows[:, :widest].copy()), torch.from_numpy(origin[:, :widest].copy())


@compiled
def _keep(
    brought: Integers,
    bits: Integers,
    shelf: NDArray[np.bool_],
    excluded: Integers,
    rows: Integers,
    origin: Integers,
) -> int:
    """Write each user's candidates from the left; returns how many the user with most of them has."""
    most = brought.shape[1] + excluded.shape[1]
    places = np.zeros(directory_size(most), np.int32)
    met = np.zeros(most, np.int64)  # by place: first the excluded, then the candidates
    widest = 0
    for user in range(len(brought)):
        places[:] = 0
        banned = 0
        for column in range(excluded.shape[1]):
            row = excluded[user, column]
            at = place_of(places, met, row)
            if row and places[at] == 0:
                met[banned] = row
                banned += 1
                places[at] = banned
        width = 0
        for column in range(brought.shape[1]):
            row = brought[user, column]
            if not shelf[row]:
                continue
            at = place_of(places, met, row)
            if places[at] == 0:
                met[banned + width] = row
                rows[user, width] = row
                width += 1
                places[at] = banned + width
            if places[at] > banned:
                origin[user, places[at] - 1 - banned] |= bits[column]
        widest = max(widest, width)
    return widest


def _own_use(rows: Tensor, batch: Batch) -> Tensor:
    """Whether the user has used a candidate, and how long ago the last time was; both 0 where they have not.

    What the history no longer holds was used longer ago than anything can be told apart.

    Args:
        rows: (batch, c), int64.

    Returns:
        (batch, c, 2), float32.
    """
    own = np.zeros((*rows.shape, 2), np.float32)
    history, gaps, used = (each.cpu().numpy() for each in (batch.history, batch.gaps, batch.used))
    _note_own_use(rows.numpy(), history, gaps, used, own)
    return torch.from_numpy(own)


@compiled
def _note_own_use(rows: Integers, history: Integers, gaps: Integers, used: Integers, own: NDArray[np.float32]) -> None:
    for user in range(len(rows)):
        for column in range(rows.shape[1]):
            row = rows[user, column]
            if row == 0:
                continue
            for place in range(used.shape[1]):
                if used[user, place] == row:
                    own[user, column, 0] = 1.0
                    own[user, column, 1] = 2.0
                    break
            for place in range(history.shape[1] - 1, -1, -1):
                if history[user, place] == row:
                    own[user, column, 0] = 1.0
                    own[user, column, 1] = (gaps[user, place] - 12.0) / 6.0
                    break


@torch.no_grad()
def reasons(table: ItemTable, questions: Sequence[Question], lists: Sequence[Sequence[int]]) -> list[list[str | None]]:
    """For each row of each user's list, the item of the user's history that speaks most for it; None if none does.

    That is the item that it is used with most, if it is used with any; otherwise the one most similar to it.
    """
    past = padded([question.history[::-1] for question in questions], table.vectors.device)  # (b, h), newest first
    shown = padded(lists, table.vectors.device)  # (b, n)
    if 0 in past.shape or 0 in shown.shape:
        return [[None] * len(rows) for rows in lists]
    by_use, strongest = (
        each.to(past.device) for each in table.covisitation.speakers(past.cpu(), shown.cpu())
    )  # (b, n)
    vectors, others = _at(table.vectors, past), _at(table.vectors, shown)
    similarity = torch.bmm(functional.normalize(vectors, dim=2), functional.normalize(others, dim=2).mT)  # (b, h, n)
    nearest, by_likeness = similarity.max(1)
    place = torch.where(strongest > 0, by_use, by_likeness)  # (b, n)
    speaks = (strongest > 0) | (nearest > 0)
    named = (past.gather(1, place) * speaks).tolist()
    return [[table.id_of[row] if row else None for row in named[user][: len(rows)]] for user, rows in enumerate(lists)]


def padded(lists: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Lists of rows as one tensor, 0 pads on the right."""
    widest = max(map(len, lists), default=0)
    table = [[*rows, *([0] * (widest - len(rows)))] for rows in lists]
    return torch.tensor(table, dtype=torch.long, device=device).view(len(lists), widest)
