"""A warm start: a learner goes through a past in its order, and then its tower again and again while that helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from learner.exam import Exam
from learner.online import OnlineLearner
from learner.outcomes import DEPTH
from learner.replay import TrainingBatch
from schemas.records import Example

LEARNT_AT_ONCE = 256
"""Examples of the past that are sorted by scenario at once; LEARN too takes what has gathered in each topic."""

REHEARSED_AT_ONCE = 1024
EXAMINED_AT_ONCE = 256

IN_ORDER, NEWEST, VALIDATION = "in order", "the newest, in order", "validation"
"""Stages as `Audience.progress` is told of them; beside these there is "epoch N"."""


@dataclass(frozen=True)
class Schedule:
    """How long to go on.

    Attributes:
        epochs: of the tower over the past, at most.
        patience: epochs in a row that may bring nothing better.
        validation: share of the examples, the newest, that nothing learns from before the choice of an epoch.
    """

    epochs: int
    patience: int
    validation: float


@dataclass(frozen=True)
class Validation:
    """How well the newest examples were ranked before anything had learnt from them.

    Attributes:
        epoch: how many there had been; 0 is after the pass in order.
        tested, hits: scenario → how many were a test, and in how many of these the item was among the first `DEPTH`.
    """

    epoch: int
    tested: Mapping[str, int]
    hits: Mapping[str, int]

    @property
    def recall(self) -> float | None:
        """Over all scenarios; None if nothing was a test."""
        tested = sum(self.tested.values())
        return sum(self.hits.values()) / tested if tested else None


@dataclass(frozen=True)
class WarmStart:
    """What came of it.

    Attributes:
        learnt: examples that the learner went through in order.
        validations: after the pass in order and after each whole epoch.
        best: the one that the learner was taken back to; None if there was none.
        stopped: whether it was asked to end.
    """

    learnt: int
    validations: Sequence[Validation]
    best: Validation | None
    stopped: bool


@dataclass(frozen=True)
class Audience:
    """Who is told how it goes, and may end it.

    Attributes:
        progress: told the stage, what is done of it, and its whole.
        validated: told each validation when it was made.
        stop: asked again and again; once it says True, the best so far is what remains.
    """

    progress: Callable[[str, int, int], None]
    validated: Callable[[Validation], None]
    stop: Callable[[], bool]


def warm_up(
    learner: OnlineLearner,
    examples: Sequence[tuple[str, Example]],
    schedule: Schedule,
    generator: torch.Generator,
    audience: Audience,
) -> WarmStart:
    """in order → epochs, each validated → back to the best → the newest, in order.

    The pass in order is what LEARN would have done: it fills co-visitation, popularity and replay, and trains the
    mixer. The epochs after it train the tower alone. What the learner then knows is the past of a stream that begins.

    Args:
        learner: that knows the items and has learnt nothing yet.
        examples: each with its scenario, in the order in which they happened.
        generator: on the CPU; shuffles the epochs.
    """
    count = len(examples) - round(schedule.validation * len(examples))
    past, newest = examples[:count], examples[count:]
    batches: list[TrainingBatch] = []
    learner.on_exam = lambda exam: batches.append(exam.lessons.batch)
    learnt = _learn(learner, past, IN_ORDER, audience)
    learner.on_exam = None
    validations: list[Validation] = []
    best = None
    if batches and not audience.stop():
        rehearsed = TrainingBatch.joined(batches)
        batches.clear()
        best = _rehearse(learner, rehearsed, newest, schedule, generator, audience, validations)
    learnt += _learn(learner, newest, NEWEST, audience)
    learner.run.begin_stream()
    return WarmStart(learnt, validations, best, audience.stop())


def _learn(learner: OnlineLearner, examples: Sequence[tuple[str, Example]], stage: str, audience: Audience) -> int:
    """As they come; returns how many there was time for."""
    done = 0
    while done < len(examples) and not audience.stop():
        some = examples[done : done + LEARNT_AT_ONCE]
        for scenario, group in _by_scenario(some).items():
            learner.learn(scenario, group)
        done += len(some)
        audience.progress(stage, done, len(examples))
    return done


def _rehearse(
    learner: OnlineLearner,
    past: TrainingBatch,
    newest: Sequence[tuple[str, Example]],
    schedule: Schedule,
    generator: torch.Generator,
    audience: Audience,
    validations: list[Validation],
) -> Validation | None:
    """Epochs while they help; leaves the learner as it was at the best validation, which is returned."""
    best = _validate(learner, newest, 0, audience)
    if best is None:
        return None
    validations.append(best)
    kept = learner.remember()
    for epoch in range(1, schedule.epochs + 1 if best.recall is not None else 1):
        found = (
            _validate(learner, newest, epoch, audience) if _epoch(learner, past, epoch, generator, audience) else None
        )
        if found is None:
            break
        validations.append(found)
        if (found.recall or 0.0) > (best.recall or 0.0):
            best, kept = found, learner.remember()
        elif epoch - best.epoch >= schedule.patience:
            break
    learner.return_to(kept)
    return best


def _epoch(
    learner: OnlineLearner, past: TrainingBatch, epoch: int, generator: torch.Generator, audience: Audience
) -> bool:
    """Let the tower learn the whole past once more, in a new order; False if there was no time for all of it."""
    order = torch.randperm(len(past), generator=generator).to(past.target.device)
    for start in range(0, len(past), REHEARSED_AT_ONCE):
        if audience.stop():
            return False
        some = past.take(order[start : start + REHEARSED_AT_ONCE])
        learner.rehearse(some, 1)
        audience.progress(f"epoch {epoch}", start + len(some), len(past))
    return True


def _validate(
    learner: OnlineLearner, newest: Sequence[tuple[str, Example]], epoch: int, audience: Audience
) -> Validation | None:
    """Rank the newest examples without learning from them; None if there was no time for all of them."""
    tested: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    done = 0
    for scenario, group in _by_scenario(newest).items():
        for start in range(0, len(group), EXAMINED_AT_ONCE):
            if audience.stop():
                return None
            some = group[start : start + EXAMINED_AT_ONCE]
            exam = learner.examiner.examine(scenario, some)
            tested[scenario] += 0 if exam is None else len(exam.tested)
            hits[scenario] += 0 if exam is None else _hits(exam)
            done += len(some)
            audience.progress(VALIDATION, done, len(newest))
    found = Validation(epoch, dict(tested), dict(hits))
    audience.validated(found)
    return found


def _hits(exam: Exam) -> int:
    if exam.ranking is None:
        return 0
    target = exam.lessons.batch.target[exam.tested]
    return int((exam.ranking.rows[:, :DEPTH] == target[:, None]).any(1).sum())


def _by_scenario(examples: Sequence[tuple[str, Example]]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for scenario, example in examples:
        found.setdefault(scenario, []).append(example)
    return found
