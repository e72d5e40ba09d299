"""Ranking: from a user's history to an ordered list. SERVE answers with it, LEARN tests and trains on it.

candidates → features → order, for a batch of users of one scenario at once. Nothing here changes any state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from learner.items import ItemTable
from learner.mixer import FEATURES, Mixer
from learner.model import Heads, Trunk, gap_buckets, profile
from schemas.settings import Model

NEURAL, COVISITED, POPULAR = 1, 2, 4
"""Who brought a candidate, as bits of `Ranking.origin`."""

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
    """

    history: Sequence[int]
    times: Sequence[float]
    now: float
    excluded: Sequence[int]


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
    """

    history: Tensor
    gaps: Tensor
    excluded: Tensor


@dataclass(frozen=True)
class Candidates:
    """What may be recommended, with all that speaks for it.

    Attributes:
        rows: each at most once per user, 0 pads on the right; (batch, c), int64.
        neural: inner product plus bias; (batch, c), float32.
        origin: who brought it; (batch, c), int64.
        features: (batch, c, len(FEATURES)), float32.
    """

    rows: Tensor
    neural: Tensor
    origin: Tensor
    features: Tensor


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
    """All that ranks one scenario: the trunk, the scenario's head and the mixer."""

    def __init__(self, sizes: Model, trunk: Trunk, head: Heads, mixer: Mixer) -> None:
        super().__init__()
        self.sizes = sizes
        self.trunk = trunk
        self.head = head
        self.mixer = mixer

    @classmethod
    def blank(cls, sizes: Model, scenarios: int) -> ScenarioModel:
        """One that has learnt nothing."""
        generator = torch.Generator().manual_seed(0)
        trunk, head = Trunk(sizes, generator), Heads(1, sizes, generator)
        return cls(sizes, trunk, head, Mixer(scenarios, sizes.mixer_units, generator))

    def query(self, items: Tensor, present: Tensor, gaps: Tensor) -> Tensor:
        """Vectors to search the index with; arguments as in `Trunk.forward`; (batch, dimension)."""
        scenario = torch.zeros(len(items), dtype=torch.long, device=items.device)
        queries: Tensor = self.head(self.trunk(items, present, gaps), scenario)
        return queries

    def dump(self) -> bytes:
        """As safetensors."""
        return save_tensors({name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()})

    @staticmethod
    def load(tensors: bytes, sizes: Model, scenarios: int) -> ScenarioModel:
        """What `dump` wrote, for the same sizes and number of scenarios."""
        model = ScenarioModel.blank(sizes, scenarios)
        model.load_state_dict(load_tensors(tensors))
        return model.requires_grad_(False)


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
    return order(model, scenario, find(model, table, scenario, clocks, batch, search, allowed, minimum))


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
    excluded = _padded([question.excluded for question in questions], device)
    return Batch(rows.to(device), (gap_buckets(ages) * (rows > 0)).to(device), excluded)


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
    items = table.vectors[batch.history]  # (b, length, d)
    queries = model.query(items, present, batch.gaps)

    # Candidates, from three sides.
    excluded = batch.excluded if batch.excluded.shape[1] else None
    nearest, _ = search(queries, max(sizes.neural_candidates, minimum), excluded, allowed)
    covisited = table.covisitation.score(batch.history, clocks.clock)
    together = covisited.top(sizes.covisited_candidates)
    popular = table.popularity.top(scenario, table.eligible[scenario], sizes.popular_candidates, clocks.scenario_clock)
    rows, origin = _merge([nearest, together, popular.expand(len(nearest), -1)], [NEURAL, COVISITED, POPULAR])
    rows, origin = _compact(rows, origin, _permitted(rows, table.eligible[scenario], batch.excluded, allowed))

    # What speaks for each.
    found = rows > 0
    vectors = table.vectors[rows]  # (b, c, d)
    mean = functional.normalize(profile(items, present), dim=1)
    by_query_and_mean = torch.bmm(vectors, torch.stack([queries, mean], dim=2))  # (b, c, 2)
    neural = by_query_and_mean[..., 0] + table.bias[scenario][rows]
    similarity = by_query_and_mean[..., 1] / vectors.norm(dim=2).clamp_min(1e-6)
    signals = covisited.at(rows)  # (b, c, 4)
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
    features[..., 10] = 3.0 * similarity
    features[..., 11] = (batch.gaps[:, -1:] - 6.0) / 4.0
    return Candidates(rows, neural, origin, features.masked_fill_(~found[..., None], 0.0))


@torch.no_grad()
def order(model: ScenarioModel, scenario: int, candidates: Candidates) -> Ranking:
    """Candidates by the mixer's score, best first."""
    scores = model.mixer(candidates.features, scenario).masked_fill(candidates.rows == 0, -torch.inf)
    scores, place = scores.sort(dim=1, descending=True, stable=True)
    return Ranking(
        rows=candidates.rows.gather(1, place),
        scores=scores,
        neural=candidates.neural.gather(1, place),
        origin=candidates.origin.gather(1, place),
    )


def _merge(parts: Sequence[Tensor], bits: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Candidates of all sides in one: each row once, in ascending order; a repeat leaves a 0 behind."""
    rows = torch.cat(list(parts), dim=1)
    origin = torch.cat([torch.full_like(part, bit) for part, bit in zip(parts, bits, strict=True)], dim=1)
    # One sort of (row, origin) in one number; a side names a row at most once, so summing the bits is or-ing them.
    packed, _ = (rows * 8 + origin).sort(dim=1)
    rows, origin = packed // 8, packed % 8
    for distance in range(1, len(parts)):
        again = rows[:, distance:] == rows[:, :-distance]
        origin[:, :-distance] += torch.where(again, packed[:, distance:] % 8, 0)
    rows[:, 1:].masked_fill_(rows[:, 1:] == (packed // 8)[:, :-1], 0)
    return rows, origin


def _permitted(rows: Tensor, eligible: Tensor, excluded: Tensor, allowed: Tensor | None) -> Tensor:
    """Which candidates may be returned; (b, c), bool."""
    permitted = eligible[rows] & (rows > 0)
    if excluded.shape[1]:
        ascending, _ = excluded.sort(dim=1)
        place = torch.searchsorted(ascending, rows).clamp_max(ascending.shape[1] - 1)
        permitted &= ascending.gather(1, place) != rows
    if allowed is not None:
        among = torch.zeros_like(eligible)
        among[allowed] = True
        permitted &= among[rows]
    return permitted


def _compact(rows: Tensor, origin: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Only what is kept, moved to the left; 0 on the right."""
    widest = int(kept.sum(1).max()) if kept.numel() else 0
    # What is not kept goes to one column more, which is cut off.
    place = torch.where(kept, kept.cumsum(1) - 1, widest)
    blank = rows.new_zeros(len(rows), widest + 1)
    return blank.scatter(1, place, rows)[:, :widest], blank.scatter(1, place, origin)[:, :widest]


def because(table: ItemTable, question: Question, rows: Sequence[int]) -> list[str | None]:
    """The reasons of one user's list; see `reasons`."""
    return reasons(table, [question], [rows])[0]


@torch.no_grad()
def reasons(table: ItemTable, questions: Sequence[Question], lists: Sequence[Sequence[int]]) -> list[list[str | None]]:
    """For each row of each user's list, the item of the user's history that speaks most for it; None if none does.

    That is the item that it is used with most, if it is used with any; otherwise the one most similar to it.
    """
    past = _padded([question.history[::-1] for question in questions], table.vectors.device)  # (b, h), newest first
    shown = _padded(lists, table.vectors.device)  # (b, n)
    if 0 in past.shape or 0 in shown.shape:
        return [[None] * len(rows) for rows in lists]
    covisitation = table.covisitation
    weights = covisitation.together[past] / (covisitation.count[past][..., None] + 1.0).sqrt()  # (b, h, m)
    same = covisitation.neighbours[past][..., None] == shown[:, None, None, :]  # (b, h, m, n)
    together = (weights[..., None] * same).sum(2)  # (b, h, n)
    vectors, others = table.vectors[past], table.vectors[shown]
    similarity = torch.bmm(functional.normalize(vectors, dim=2), functional.normalize(others, dim=2).mT)  # (b, h, n)
    strongest, by_use = together.max(1)
    nearest, by_likeness = similarity.max(1)
    place = torch.where(strongest > 0, by_use, by_likeness)  # (b, n)
    speaks = (strongest > 0) | (nearest > 0)
    named = (past.gather(1, place) * speaks).tolist()
    return [[table.id_of[row] if row else None for row in named[user][: len(rows)]] for user, rows in enumerate(lists)]


def _padded(lists: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Lists of rows as one tensor, 0 pads on the right."""
    widest = max(map(len, lists), default=0)
    table = [[*rows, *([0] * (widest - len(rows)))] for rows in lists]
    return torch.tensor(table, dtype=torch.long, device=device).view(len(lists), widest)
