"""What is kept of what was learnt: recall on each probe set over time, its forgetting, and its backward transfer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import torch
from torch import Tensor

from learner.probes import Key

TESTS_KEPT = 1000
"""The matrix shows so many of the latest tests; forgetting and transfer are exact over all of them."""


@dataclass
class _Course:
    """How one set has fared; not a number where it was not tested yet.

    Attributes:
        best: the highest recall of all tests before the latest.
        latest: recall of the latest test.
        learnt: recall of the test right after its scenario's lessons.
        since: tests since that one.
    """

    best: float = nan
    latest: float = nan
    learnt: float = nan
    since: float = 0.0

    def add(self, recall: float) -> None:
        self.since += not isnan(self.learnt)
        if not isnan(self.latest):
            self.best = self.latest if isnan(self.best) else max(self.best, self.latest)
        self.latest = recall


class Retention:
    """Keeps the recall of one model on each probe set, test after test.

    Args:
        kept: so many of the latest tests are kept one by one.
    """

    def __init__(self, kept: int = TESTS_KEPT) -> None:
        self._tests: deque[dict[Key, float]] = deque(maxlen=kept)
        self._courses: dict[Key, _Course] = {}

    def add(self, recalls: Mapping[Key, float]) -> None:
        """Note what a test found, as `Probes.test` gives it; a set may be missing."""
        self._tests.append(dict(recalls))
        for key, recall in recalls.items():
            self._courses.setdefault(key, _Course()).add(recall)

    def mark_learnt(self, key: Key) -> None:
        """The lessons beside which the set was held out had just been learnt when the latest test was made.

        A set that was never tested is passed over.
        """
        course = self._courses.get(key)
        if course is not None:
            course.learnt, course.since = course.latest, 0

    def merge(self, key: Key, other: Key, share: float) -> None:
        """Two sets become one, of the first's name; what was found of both is their mean, the other's by its share."""
        one, second = self._courses.get(key, _Course()), self._courses.get(other)
        if second is not None:
            one.best, one.latest, one.learnt = (
                first if isnan(also) else also if isnan(first) else first + share * (also - first)
                for first, also in ((one.best, second.best), (one.latest, second.latest), (one.learnt, second.learnt))
            )
            one.since = max(one.since, second.since)
            self._courses[key] = one
        self.drop(other)

    def drop(self, key: Key) -> None:
        """Forget all about a set."""
        self._courses.pop(key, None)
        for recalls in self._tests:
            recalls.pop(key, None)

    def matrix(self, scenario: int) -> list[list[float | None]]:
        """Recall by window (rows, ascending) and test (columns, oldest first); None where a set was not tested."""
        windows = sorted(window for number, window in self._courses if number == scenario)
        return [[recalls.get((scenario, window)) for recalls in self._tests] for window in windows]

    def forgetting(self) -> dict[Key, float]:
        """The best recall of all earlier tests minus that of the latest, of the sets that were learnt before it.

        Chaudhry et al. 2018, Riemannian walk for incremental learning, https://arxiv.org/abs/1801.10112.
        """
        from avalanche.evaluation.metrics import Forgetting  # not at the top: it takes half a minute

        return self._measured(Forgetting(), lambda course: course.best)

    def backward_transfer(self) -> dict[Key, float]:
        """The latest recall minus that right after the lessons, of the sets that were learnt before the latest test.

        Lopez-Paz and Ranzato 2017, Gradient episodic memory, https://arxiv.org/abs/1706.08840.
        """
        from avalanche.evaluation.metrics import BWT

        return self._measured(BWT(), lambda course: course.learnt)

    def latest(self) -> dict[Key, float]:
        """Recall of each set when it was last tested."""
        return {key: course.latest for key, course in self._courses.items()}

    def state(self) -> dict[str, Tensor]:
        keys = sorted(self._courses)
        courses = [self._courses[key] for key in keys]
        return {
            "keys": torch.tensor(keys, dtype=torch.int64).view(len(keys), 2),
            "courses": _table([[each.best, each.latest, each.learnt, each.since] for each in courses], 4),
            "tests": _table([[recalls.get(key, nan) for key in keys] for recalls in self._tests], len(keys)),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from."""
        keys: list[Key] = [(scenario, window) for scenario, window in state["keys"].tolist()]
        courses = state["courses"].tolist()
        self._courses = {key: _Course(*course) for key, course in zip(keys, courses, strict=True)}
        self._tests.clear()
        for recalls in state["tests"].tolist():
            known = zip(keys, recalls, strict=True)
            self._tests.append({key: recall for key, recall in known if not isnan(recall)})

    def _measured(self, metric: Any, first: Callable[[_Course], float]) -> dict[Key, float]:
        """What a metric of Avalanche makes of a first and the latest recall, of the sets that were learnt before."""
        for key, course in self._courses.items():
            if course.since:
                metric.update(key, first(course), initial=True)
                metric.update(key, course.latest)
        found: dict[Key, float] = metric.result()
        return found


def _table(rows: list[list[float]], width: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).view(len(rows), width)
