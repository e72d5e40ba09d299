"""The forgetting matrix: how well each window of a scenario's past is still known, test after test.

A window is a stretch of the scenario's stream. A share of it is held out in a probe set (`learner.probes`), which is
tested again and again. As windows age, neighbours become one, so that there are never more than so many.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import isnan, nan
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from learner.probes import Key
from learner.retention import Retention

COLUMNS = 200
"""Tests that are kept; of the older half every other one goes when there are more."""

UNKNOWN_TIME = 0.0


class Cell(NamedTuple):
    """Recall of one window at one test; `began_at` and `ended_at` of its questions and `at` in epoch seconds."""

    window: int
    at: int
    began_at: float
    ended_at: float
    size: int
    recall: float


class Window:
    """A stretch of a scenario's stream.

    Attributes:
        last: number of the newest window that it was made of; its own number is that of the oldest.
        began_at, ended_at: when its first and last question were asked, epoch seconds.
        size: questions when it was last tested.
    """

    __slots__ = ("began_at", "ended_at", "last", "size")

    def __init__(self, last: int, began_at: float, ended_at: float, size: int = 0) -> None:
        self.last = last
        self.began_at = began_at
        self.ended_at = ended_at
        self.size = size


class Course:
    """The windows of one scenario and how they have fared.

    Attributes:
        present: number of the window that the stream is in.
        seen: examples of it so far.
    """

    def __init__(self) -> None:
        self.present = 0
        self.seen = 0
        self._windows: dict[int, Window] = {}
        self._tests: list[tuple[float, dict[int, float]]] = []
        self._retention = Retention(kept=1)

    @property
    def windows(self) -> list[int]:
        """Those that hold questions, in the order of time."""
        return sorted(self._windows)

    def stretches(self, examples: int, length: int) -> Iterator[int]:
        """Walk on by so many examples: how many of them belong to each window, `present` being that one meanwhile."""
        while examples:
            if self.seen >= length:
                self.present, self.seen = self.present + 1, 0
            here = min(examples, length - self.seen)
            yield here
            self.seen += here
            examples -= here

    def hold(self, times: Sequence[float]) -> None:
        """Questions of the present window were held out, which were asked at these times."""
        window = self._windows.setdefault(self.present, Window(self.present, times[0], times[-1]))
        window.began_at, window.ended_at = min(window.began_at, *times), max(window.ended_at, *times)

    def neighbours(self) -> tuple[int, int]:
        """The two, of all but the newest, that span least for their age: the first to become one."""
        numbers = self.windows[:-1]
        newest = self._windows[self.windows[-1]].last
        return min(
            pairwise(numbers), key=lambda pair: (self._windows[pair[1]].last - pair[0] + 1) / (newest - pair[0] + 1)
        )

    def merge(self, older: int, newer: int) -> None:
        """Let the older take the newer's place too; what was found of both is their mean, by their sizes."""
        one, other = self._windows[older], self._windows.pop(newer)
        share = other.size / (one.size + other.size) if one.size + other.size else 0.5
        one.last, one.ended_at = other.last, max(one.ended_at, other.ended_at)
        one.began_at = min(one.began_at, other.began_at)
        for _, recalls in self._tests:
            second = recalls.pop(newer, None)
            if second is not None and older in recalls:
                recalls[older] += share * (second - recalls[older])
            elif second is not None:
                recalls[older] = second
        self._retention.merge((0, older), (0, newer), share)

    def add(self, at: float, recalls: Mapping[int, float], sizes: Mapping[int, int]) -> None:
        """Note what a test at this time found; windows that hold nothing any more are gone."""
        for number in [number for number in self._windows if number not in recalls]:
            del self._windows[number]
            self._retention.drop((0, number))
            for _, each in self._tests:
                each.pop(number, None)
        for number in recalls:
            self._windows.setdefault(number, Window(number, UNKNOWN_TIME, UNKNOWN_TIME)).size = sizes[number]
        self.present = max(self.present, *recalls)
        self._tests.append((at, dict(recalls)))
        self._retention.add({(0, number): recall for number, recall in recalls.items()})
        self._retention.mark_learnt((0, self.present))
        if len(self._tests) > COLUMNS:
            half = COLUMNS // 2
            self._tests = [*self._tests[:half:2], *self._tests[half:]]

    @property
    def last_test(self) -> float:
        """When it was, epoch seconds; minus infinity before the first."""
        return self._tests[-1][0] if self._tests else float("-inf")

    def cells(self) -> list[Cell]:
        """The whole matrix; of tests within one second the last."""
        found = {
            (number, int(at)): Cell(number, int(at), window.began_at, window.ended_at, window.size, recalls[number])
            for at, recalls in self._tests
            for number, window in self._windows.items()
            if number in recalls
        }
        return [found[key] for key in sorted(found)]

    def forgetting(self) -> float | None:
        """Mean of the windows that are past: the best recall of earlier tests minus the latest; None if none is."""
        return _mean(self._retention.forgetting())

    def backward_transfer(self) -> float | None:
        """Mean of the windows that are past: the latest recall minus that right after the window was learnt."""
        return _mean(self._retention.backward_transfer())

    def state(self) -> dict[str, Tensor]:
        numbers = self.windows
        windows = [self._windows[number] for number in numbers]
        times = [[number, each.last, each.size] for number, each in zip(numbers, windows, strict=True)]
        asked = [[each.began_at, each.ended_at] for each in windows]
        tests = [[at, *(recalls.get(number, nan) for number in numbers)] for at, recalls in self._tests]
        return {
            "stand": torch.tensor([self.present, self.seen]),
            "windows": torch.tensor(times, dtype=torch.int64).view(len(numbers), 3),
            "asked": torch.tensor(asked, dtype=torch.float64).view(len(numbers), 2),
            "matrix": torch.tensor(tests, dtype=torch.float64).view(len(tests), 1 + len(numbers)),
            **self._retention.state(),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from."""
        self.present, self.seen = state["stand"].tolist()
        pairs = zip(state["windows"].tolist(), state["asked"].tolist(), strict=True)
        self._windows = {
            number: Window(last, began_at, ended_at, size) for (number, last, size), (began_at, ended_at) in pairs
        }
        self._tests = [
            (at, {number: recall for number, recall in zip(self._windows, recalls, strict=True) if not isnan(recall)})
            for at, *recalls in state["matrix"].tolist()
        ]
        self._retention = Retention(kept=1)
        self._retention.load(state)


class Forgetting:
    """The courses of all scenarios, by name."""

    def __init__(self, scenarios: Sequence[str]) -> None:
        self.courses = {name: Course() for name in scenarios}

    def state(self) -> dict[str, Tensor]:
        """Under the names of their scenarios, so that it may be loaded where there are others."""
        return {
            f"{name}.{field}": tensor for name, each in self.courses.items() for field, tensor in each.state().items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from; scenarios that it knows nothing of begin anew."""
        tensors: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            scenario, field = name.rsplit(".", 1)
            tensors.setdefault(scenario, {})[field] = tensor
        for name in self.courses:
            self.courses[name] = Course()
            if name in tensors:
                self.courses[name].load(tensors[name])


def _mean(found: Mapping[Key, float]) -> float | None:
    return fmean(found.values()) if found else None
