"""What an exam says: the signals of one micro-batch, all of its examples at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.exam import Exam
from learner.items import ItemTable
from learner.lessons import Lessons
from learner.outcomes import COLD_USES, DEPTH
from learner.ranking import Ranking

Floats = NDArray[np.float64]

LEAST_CHANCE = 1e-4
"""What the model gives an item that is not among its candidates, for the log loss."""

PAST_SECONDS = 7 * 86_400.0
"""Events that are older belong to a history that is played back: topics keep them no longer, so nobody was late."""

BINS = 10
"""Of chances, for the calibration error."""


@dataclass(frozen=True)
class ExamSignals:
    """Observations of one exam, in the order of its examples.

    Attributes:
        observed: by signal: one value for each test, or for each example.
        chance, right: of each test's first item: the chance that it was given, and whether it was acted on; (tests,).
        score: of each test's first item; (tests,).
        targets: rows of the items that were acted on and wanted; (n,), int64.
        events: names, of every example.
    """

    observed: dict[str, Floats]
    chance: Floats
    right: Floats
    score: Floats
    targets: NDArray[np.int64]
    events: Sequence[str]


def exam_signals(exam: Exam, table: ItemTable, now: float) -> ExamSignals:
    """Read the signals off an exam, before anything is learnt from it.

    Args:
        now: epoch seconds.
    """
    lessons, target = exam.lessons, exam.lessons.batch.target
    new_user = lessons.asked.history[:, -1] == 0
    new_item = table.popularity.events[target] < COLD_USES
    age = now - np.array([example.time for example in exam.examples])
    observed = {
        "new_users": _floats(new_user),
        "new_items": _floats(new_item),
        "feature_age": age[age < PAST_SECONDS].clip(0.0),
    }
    nothing = np.zeros(0)
    chance = right = score = nothing
    if exam.ranking is not None:
        tests, (chance, right, score) = _tests(exam.ranking, target[exam.tested])
        popular = _popular(exam.scenario, table, lessons, exam.tested)
        observed |= {**tests, "recall@10_popular": popular}
    wanted = target[lessons.batch.weight >= 0]
    return ExamSignals(
        observed=observed,
        chance=chance,
        right=right,
        score=score,
        targets=wanted.cpu().numpy(),
        events=[example.event for example in exam.examples],
    )


def _tests(ranking: Ranking, target: Tensor) -> tuple[dict[str, Floats], tuple[Floats, Floats, Floats]]:
    """Recall, NDCG and log loss of each test, and its first item's chance, rightness and score."""
    found = ranking.rows == target[:, None]  # (tests, c)
    place = torch.where(found.any(1), found.int().argmax(1), found.shape[1])
    hit = place < DEPTH
    gain = hit / torch.log2(place + 2.0)
    log_chances = ranking.scores.log_softmax(1)
    # Of a target that is no candidate there is nothing; of a ranking with a score that is no number, all is none.
    log_chance = log_chances.masked_fill(~found, -torch.inf).amax(1)
    loss = -torch.where(log_chances[:, 0].isnan(), torch.nan, log_chance.clamp_min(math.log(LEAST_CHANCE)))
    first = (log_chances[:, 0].exp(), found[:, 0], ranking.scores[:, 0])
    rows = torch.stack([each.double() for each in (hit, gain, loss, *first)]).cpu().numpy()
    return {"recall@10": rows[0], "ndcg@10": rows[1], "log_loss": rows[2]}, (rows[3], rows[4], rows[5])


def _popular(scenario: int, table: ItemTable, lessons: Lessons, tested: Tensor) -> Floats:
    """Whether each test's item is among the ten most popular of late that the user may be shown."""
    eligible, popularity = table.eligible[scenario], table.popularity
    target, excluded = lessons.batch.target[tested], lessons.asked.excluded[tested]
    keys = popularity.keys[scenario, :, 1]
    withheld = (keys[excluded] > keys[target][:, None]) & eligible[excluded] & (excluded > 0)
    return _floats(popularity.above(scenario, target, eligible) - withheld.sum(1) < DEPTH)


def calibration_error(chance: Floats, right: Floats) -> float:
    """Expected calibration error: how far chances lie from shares, in bins of chances, in the mean over all tests."""
    number = (chance * BINS).astype(np.int64).clip(0, BINS - 1)
    return float(np.abs(np.bincount(number, chance - right, BINS)).sum() / len(chance))


def _floats(tensor: Tensor) -> Floats:
    return tensor.cpu().numpy().astype(np.float64)
