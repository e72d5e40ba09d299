"""Exams: what came of testing a micro-batch before it was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from learner.lessons import Lessons
from learner.ranking import Ranking
from schemas.records import Example


@dataclass(frozen=True)
class Exam:
    """A micro-batch of one scenario and what came of its test.

    Attributes:
        scenario: its number.
        examples: beside `lessons`.
        tested: which of them were a test; (tests,), int64.
        ranking: what would have been served, for each test; None if there were none.
    """

    scenario: int
    examples: Sequence[Example]
    lessons: Lessons
    tested: Tensor
    ranking: Ranking | None
