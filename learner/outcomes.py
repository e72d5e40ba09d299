"""What an evaluation found: where each model had the item that was acted on, and the figures that sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

DEPTH = 10
"""Places of a list that count."""

COLD_USES = 3
"""An item is cold until it was used so many times."""

WINDOWS = 40
"""Equal stretches of the stream, for the curves over time."""

RESAMPLES = 1000
"""Of the users, for the intervals."""


@dataclass(frozen=True)
class Examined:
    """The events on which every model was tested, in the order in which they happened.

    Attributes:
        scenario: numbers; (n,), int64.
        user: dense numbers; (n,), int64.
        cold: whether the item had fewer than `COLD_USES` uses before; (n,), bool.
        disliked: whether the same user said afterwards that they do not want the item; (n,), bool.
    """

    scenario: NDArray[np.int64]
    user: NDArray[np.int64]
    cold: NDArray[np.bool_]
    disliked: NDArray[np.bool_]


class Clicks(msgspec.Struct, frozen=True, kw_only=True):
    """How well a model tells what people took from what they refused, if what stands in its list is said to be taken.

    Attributes:
        accuracy: share of both that is told rightly.
        precision: of what is said to be taken, the share that was; None if nothing is.
        recall: of what was taken, the share that is said to be.
        f1: harmonic mean of precision and recall.
    """

    accuracy: float
    precision: float | None
    recall: float
    f1: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One model, over all tested events.

    Attributes:
        recall: share of events whose item was among the first ten; with one item wanted, also its hit rate.
        interval: 95 % of the recall, by bootstrap over users.
        ndcg: 1 / log2(place + 1) of the item, places from 1; 0 where it was not among the ten.
        mrr: 1 / place of the item; 0 where it was not among the ten.
        second_half: recall in the second half of the stream.
        top: share of events whose item stood first. Each event has one item that is wanted and one that stands first,
            so this is accuracy, precision, recall and F1 of top-1 all at once.
        clicks: taken and refused told apart, by the first `DEPTH` places and by the first alone; of a source in which
            nothing is refused, nothing.
        cold_recall: recall of the events on cold items; None if there were none.
        coverage: share of the items that any scenario may recommend which stood in some list.
        scenarios: recall by scenario.
        thirds: recall in each third of the stream.
        curve: recall in each of `WINDOWS` stretches of the stream, by scenario; None where it has no events.
        examples_per_second: tested and learnt, of the model's own time.
    """

    recall: float = msgspec.field(name="recall@10")
    interval: tuple[float, float]
    second_half: float = msgspec.field(name="second half recall@10")
    ndcg: float = msgspec.field(name="ndcg@10")
    mrr: float = msgspec.field(name="mrr@10")
    top: float = msgspec.field(name="top-1")
    cold_recall: float | None = msgspec.field(name="cold recall@10")
    coverage: float
    scenarios: dict[str, float | None]
    thirds: list[float]
    curve: dict[str, list[float | None]]
    examples_per_second: float | None
    clicks: dict[str, Clicks] = {}


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """The recall of one model over that of another.

    Attributes:
        interval: 95 % by bootstrap over users, both models tested on the same ones each time.
    """

    value: float
    interval: tuple[float, float]


Matrix = list[list[float | None]]
"""Recall after each block (rows) on the probe set of each scenario (columns); None where there is no such set."""


class Forgetting(msgspec.Struct, frozen=True, kw_only=True):
    """What one model kept in the stress order; each figure is None if nothing can be said.

    Attributes:
        matrix: both of its sides in the order of `Report.blocks`.
        forgetting: of each scenario but the last, the best recall after any earlier block minus that at the end: mean.
        backward_transfer: of each scenario but the last, recall at the end minus that after its own block: mean.
        final_average: recall at the end, mean over all scenarios.
    """

    matrix: Matrix
    forgetting: float | None
    backward_transfer: float | None
    final_average: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole evaluation.

    Attributes:
        source: as it was named.
        events: learnt from, the warm-up among them.
        tested: events that were a test: after the warm-up, of items that could have been shown.
        seeds: that the figures of the models are means over.
        models: by name.
        ratios: of the recall of headstream to that of each other model, by the other's name; without those that found
            nothing.
        memory_megabytes: of this process at its peak.
        refused: items that were disliked, or passed over in a list; those that no list could have held are not counted.
        held_out: events that are learnt by no model, in the probe sets of all scenarios.
        blocks: in the stress order, the scenarios, as one came after the other.
        forgetting: in the stress order, by model.
        weights: SHA-256 of all that the learner had learnt at the end, for each seed, by the model that it was run for:
            the same history and seed give the same one.
    """

    source: str
    events: int
    tested: int
    seeds: list[int]
    models: dict[str, Figures]
    memory_megabytes: float
    ratios: dict[str, Ratio] = {}
    refused: int = 0
    held_out: int = 0
    blocks: list[str] = []
    forgetting: dict[str, Forgetting] = {}
    weights: dict[str, list[str]] = {}


def figures(
    tested: Examined,
    places: Sequence[NDArray[np.int64]],
    scenarios: Sequence[str],
    coverage: float,
    examples_per_second: float | None,
    refused: Sequence[NDArray[np.int64]] = (),
) -> Figures:
    """Sum one model's places up.

    Args:
        places: for each seed, of the item in the model's list, from 0; `DEPTH` or more where it was not among the
            first ten; (n,).
        refused: the same of what was refused and was no test; (r,).
    """
    place = np.stack(places)  # (seeds, n)
    unwanted = np.stack(refused) if refused else np.zeros((len(place), 0), np.int64)
    listed, back = place < DEPTH, np.minimum(place, DEPTH)
    hit = listed.mean(0)  # (n,)
    thirds, stretches = np.array_split(hit, 3), np.array_split(np.arange(len(hit)), WINDOWS)
    return Figures(
        recall=_mean(hit) or 0.0,
        interval=interval(hit, tested.user),
        second_half=_mean(hit[len(hit) // 2 :]) or 0.0,
        ndcg=_mean(listed / np.log2(back + 2)) or 0.0,
        mrr=_mean(listed / (back + 1)) or 0.0,
        top=_mean(place == 0) or 0.0,
        cold_recall=_mean(hit[tested.cold]),
        coverage=coverage,
        scenarios={name: _mean(hit[tested.scenario == number]) for number, name in enumerate(scenarios)},
        thirds=[_mean(third) or 0.0 for third in thirds],
        curve={
            name: [_mean(hit[part[tested.scenario[part] == number]]) for part in stretches]
            for number, name in enumerate(scenarios)
        },
        examples_per_second=examples_per_second,
        clicks=clicks(place[:, ~tested.disliked], np.concatenate([place[:, tested.disliked], unwanted], 1)),
    )


def clicks(taken: NDArray[np.int64], refused: NDArray[np.int64]) -> dict[str, Clicks]:
    """Taken and refused told apart by lists of `DEPTH` places, and of one.

    Args:
        taken, refused: places as `figures` takes them; (seeds, n) and (seeds, r).

    Returns:
        Nothing unless there is something of both.
    """
    if not taken.size or not refused.size:
        return {}
    return {f"top-{depth}": _clicks(taken < depth, refused < depth) for depth in (DEPTH, 1)}


def _clicks(taken: NDArray[np.bool_], refused: NDArray[np.bool_]) -> Clicks:
    """From whether each of what was taken and refused is said to be taken."""
    right, wrong, missed = int(taken.sum()), int(refused.sum()), int((~taken).sum())
    return Clicks(
        accuracy=float((right + (~refused).sum()) / (taken.size + refused.size)),
        precision=right / (right + wrong) if right + wrong else None,
        recall=right / taken.size,
        f1=2 * right / (2 * right + wrong + missed),
    )


def interval(hit: NDArray[np.float64], user: NDArray[np.int64], seed: int = 0) -> tuple[float, float]:
    """95 % of a recall if other users of the same kind had come: the users are drawn anew, each with all its events.

    Efron 1979, Bootstrap methods, https://doi.org/10.1214/aos/1176344552.
    """
    if not len(hit):
        return 0.0, 0.0
    low, high = np.percentile(_recalls(hit[:, None], user, seed)[:, 0], [2.5, 97.5])
    return float(low), float(high)


def ratio(
    ours: Sequence[NDArray[np.int64]], theirs: Sequence[NDArray[np.int64]], user: NDArray[np.int64], seed: int = 0
) -> Ratio | None:
    """How many times their recall ours is.

    Where one of them does well the other mostly does too, so this says more than where their two intervals lie.

    Args:
        ours, theirs: places as `figures` takes them.

    Returns:
        None if theirs is nothing.
    """
    hits = np.stack([(np.stack(each) < DEPTH).mean(0) for each in (ours, theirs)], 1)  # (n, 2)
    mine, other = hits.sum(0)
    if not other:
        return None
    recalls = _recalls(hits, user, seed)
    found = recalls[recalls[:, 1] > 0]  # next to nothing may be nothing for some users
    low, high = np.percentile(found[:, 0] / found[:, 1], [2.5, 97.5])
    return Ratio(value=float(mine / other), interval=(float(low), float(high)))


def _recalls(hits: NDArray[np.float64], user: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Recalls of models for the users as they are drawn anew.

    Args:
        hits: of each model at each event; (n, models).

    Returns:
        (RESAMPLES, models).
    """
    names, number = np.unique(user, return_inverse=True)
    events = np.bincount(number)
    by_user = np.stack([np.bincount(number, weights=hit) for hit in hits.T], 1)  # (users, models)
    generator, chance = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
    recalls = np.zeros((RESAMPLES, hits.shape[1]))
    for resample in range(RESAMPLES):  # one at a time: all of them at once would be gigabytes for a million users
        drawn = generator.multinomial(len(names), chance)
        recalls[resample] = drawn @ by_user / (drawn @ events)
    return recalls


def _mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float | None:
    return float(values.mean()) if values.size else None
