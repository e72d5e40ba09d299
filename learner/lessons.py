"""Lessons: examples as tensors, once as serving was asked and once as they are learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from learner.items import ItemTable
from learner.ranking import OWN_CANDIDATES, Batch, Question, as_batch
from learner.replay import TrainingBatch
from schemas.packed import unpack, unpack_times
from schemas.records import Example


@dataclass(frozen=True)
class Lessons:
    """A micro-batch of one scenario.

    Attributes:
        asked: as serving was asked.
        batch: as it is learnt from.
        testable: which examples can be a test; (batch,), bool.
        passed_over: what was shown above the chosen items, as dislikes.
    """

    asked: Batch
    batch: TrainingBatch
    testable: Tensor
    passed_over: TrainingBatch


def as_lessons(
    table: ItemTable, scenario: int, placed: Sequence[tuple[Example, int]], length: int, impressions: float = 0.0
) -> Lessons:
    """Lessons of one scenario.

    Args:
        placed: examples, each with the row of its item.
        length: of the histories.
        impressions: what it weighs to be passed over.
    """
    device = table.vectors.device
    asked = as_batch([_question(table, example, length) for example, _ in placed], length, device)
    target = torch.tensor([row for _, row in placed], device=device)
    weight = torch.tensor([example.weight for example, _ in placed], device=device)
    repeat = (asked.excluded == target[:, None]).any(1)
    # Nobody learns that an item follows itself: where it could not have been shown, it is taken out of the history.
    masked = repeat[:, None] & (asked.history == target[:, None])
    batch = TrainingBatch(
        scenario=torch.full_like(target, scenario),
        history=asked.history.masked_fill(masked, 0),
        gaps=asked.gaps.masked_fill(masked, 0),
        target=target,
        weight=weight,
    )
    testable = (weight >= 0) & ~repeat & table.eligible[scenario, target]
    passed = [
        (number, row)
        for number, (example, _) in enumerate(placed)
        if impressions and example.passed_over
        for row in table.rows(unpack(example.passed_over))
        if row
    ]
    by, rows = torch.tensor(passed, dtype=torch.long, device=device).view(-1, 2).T
    over = batch.take(by)
    passed_over = replace(over, target=rows, weight=torch.full_like(over.weight, -impressions))
    return Lessons(asked, batch, testable, passed_over)


def _question(table: ItemTable, example: Example, length: int) -> Question:
    rows, times = table.rows(unpack(example.history)), unpack_times(example.history_times)
    known = [(row, at) for row, at in zip(rows, times, strict=True) if row][-length:]
    return Question(
        history=[row for row, _ in known],
        times=[at for _, at in known],
        now=example.time,
        excluded=[row for row in table.rows(unpack(example.excluded)) if row],
        used=[row for row in table.rows(unpack(example.used)[-OWN_CANDIDATES:]) if row],
    )
