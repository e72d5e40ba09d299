"""Probe sets: examples that are never learnt from and are ranked again and again, to see whether what was learnt stays.

`learner.retention` keeps what such tests find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from learner.lessons import Lessons
from learner.outcomes import DEPTH
from learner.ranking import Batch

Key = tuple[int, int]
"""Names a probe set: the scenario's number, and that of the window of time that its examples come from."""

Rank = Callable[[int, Batch], Mapping[str, Tensor]]
"""(scenario, questions) → lists by the name of what ranked: rows, best first; (n, `DEPTH` or more), int64.

May not change anything that ranks."""

RANKED_AT_ONCE = 64


@dataclass(frozen=True)
class ProbeSet:
    """Questions with their answers, as they stood when they were held out.

    Attributes:
        history, gaps, excluded, used: as in `Batch`.
        target: the row that was acted on; (n,), int64.
        user: hash of who acted; (n,), int64.
    """

    history: Tensor
    gaps: Tensor
    excluded: Tensor
    used: Tensor
    target: Tensor
    user: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def take(self, at: Tensor) -> ProbeSet:
        """The questions at these places, or where this is true."""
        return ProbeSet(*(getattr(self, field.name)[at] for field in fields(self)))

    def joined(self, other: ProbeSet) -> ProbeSet:
        """These questions and then the other's."""
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return ProbeSet(*(_stacked(first, second) for first, second in pairs))

    def parts(self) -> Iterator[tuple[Batch, Tensor]]:
        """Questions and targets, as many as are ranked at once."""
        for start in range(0, len(self), RANKED_AT_ONCE):
            part = slice(start, start + RANKED_AT_ONCE)
            yield Batch(self.history, self.gaps, self.excluded, self.used).take(part), self.target[part]


class Probes:
    """The probe sets of all scenarios. Ranking them changes nothing; a question that is in one is what it was, till
    an erasure.

    Args:
        scenarios: names, in the order of their numbers.
    """

    def __init__(self, scenarios: Sequence[str], device: torch.device | str = "cpu") -> None:
        self._scenarios = tuple(scenarios)
        self._device = device
        self._sets: dict[Key, ProbeSet] = {}

    def __len__(self) -> int:
        """Questions in all sets."""
        return sum(map(len, self._sets.values()))

    @property
    def keys(self) -> list[Key]:
        """The sets there are, in order."""
        return sorted(self._sets)

    def size(self, key: Key) -> int:
        """Questions in a set; 0 if there is none."""
        return len(self._sets[key]) if key in self._sets else 0

    def hold(self, key: Key, lessons: Lessons, users: Sequence[int]) -> int:
        """Add the lessons that can be a test to a set.

        Args:
            lessons: of the key's scenario; nobody may learn from them.
            users: hash of each one's user.

        Returns:
            How many could be a test; if none of any could, there is no such set.
        """
        asked = lessons.asked
        user = torch.tensor(users, dtype=torch.int64, device=asked.history.device)
        every = ProbeSet(asked.history, asked.gaps, asked.excluded, asked.used, lessons.batch.target, user)
        new = every.take(lessons.testable)
        self._put(key, self._sets[key].joined(new) if key in self._sets else new)
        return len(new)

    def merge(self, key: Key, other: Key, most: int, generator: torch.Generator) -> None:
        """Let a set be a sample of itself and another, of so many questions at most; the other is gone."""
        if other not in self._sets:
            return
        second = self._sets.pop(other)
        both = self._sets[key].joined(second) if key in self._sets else second
        drawn = torch.randperm(len(both), generator=generator)[:most].sort().values
        self._sets[key] = both.take(drawn.to(self._device))

    def drop(self, key: Key) -> None:
        """Forget a set, if there is one."""
        self._sets.pop(key, None)

    def test(self, rank: Rank, scenario: int | None = None) -> dict[str, dict[Key, float]]:
        """Recall@10 on each set, or on each of one scenario, of each thing that ranks, by its name."""
        keys = [key for key in self.keys if scenario in (None, key[0])]
        hits: dict[str, dict[Key, float]] = {}
        for key in keys:
            for questions, target in self._sets[key].parts():
                for name, lists in rank(key[0], questions).items():
                    found = hits.setdefault(name, dict.fromkeys(keys, 0.0))
                    found[key] += int((lists[:, :DEPTH] == target[:, None]).sum())
        return {
            name: {key: count / len(self._sets[key]) for key, count in found.items()} for name, found in hits.items()
        }

    def forget_item(self, row: int) -> None:
        """Drop the questions whose answer is this row, and take it out of all others: it may become another item's."""
        for key, each in list(self._sets.items()):
            history = each.history.masked_fill(each.history == row, 0)
            without = ProbeSet(
                history=history,
                gaps=each.gaps.masked_fill(history == 0, 0),
                excluded=each.excluded.masked_fill(each.excluded == row, 0),
                used=each.used.masked_fill(each.used == row, 0),
                target=each.target,
                user=each.user,
            )
            self._put(key, without.take(each.target != row))

    def forget_user(self, user: int) -> int:
        """Drop the questions of the user with this hash; returns how many there were."""
        before = len(self)
        for key, each in list(self._sets.items()):
            self._put(key, each.take(each.user != user))
        return before - len(self)

    def state(self) -> dict[str, Tensor]:
        """Under the names of their scenarios, so that it may be loaded where there are others."""
        return {
            f"{self._scenarios[scenario]}.{window}.{field.name}": getattr(each, field.name)
            for (scenario, window), each in self._sets.items()
            for field in fields(ProbeSet)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from; the sets of scenarios that are gone are left out."""
        tensors: dict[Key, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            scenario, window, field = name.rsplit(".", 2)
            if scenario in self._scenarios:
                key = self._scenarios.index(scenario), int(window)
                tensors.setdefault(key, {})[field] = tensor.to(self._device, copy=True)
        self._sets = {key: ProbeSet(**each) for key, each in tensors.items()}

    def _put(self, key: Key, probes: ProbeSet) -> None:
        if len(probes):
            self._sets[key] = probes
        else:
            self.drop(key)


def _stacked(first: Tensor, second: Tensor) -> Tensor:
    """One below the other, the narrower with 0 pads on the right."""
    if first.ndim == 1:
        return torch.cat([first, second])
    width = max(first.shape[1], second.shape[1])
    return torch.cat([functional.pad(each, (0, width - each.shape[1])) for each in (first, second)])
