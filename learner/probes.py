"""Probe sets: examples that are never learnt from and are ranked again and again, to see whether what was learnt stays.

`learner.retention` keeps what such tests find.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

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

    def parts(self) -> Iterator[tuple[Batch, Tensor]]:
        """Questions and targets, as many as are ranked at once."""
        for start in range(0, len(self), RANKED_AT_ONCE):
            part = slice(start, start + RANKED_AT_ONCE)
            yield Batch(self.history, self.gaps, self.excluded, self.used).take(part), self.target[part]


class Probes:
    """The probe sets of all scenarios. Ranking them changes nothing, and nothing but an erasure changes them."""

    def __init__(self) -> None:
        self._sets: dict[Key, ProbeSet] = {}

    def __len__(self) -> int:
        """Questions in all sets."""
        return sum(map(len, self._sets.values()))

    @property
    def keys(self) -> list[Key]:
        """The sets there are, in order."""
        return sorted(self._sets)

    def hold(self, key: Key, lessons: Lessons, users: Sequence[int]) -> int:
        """Make a set of the lessons that can be a test, in place of any set of this key.

        Args:
            lessons: of the key's scenario; nobody may learn from them.
            users: hash of each one's user.

        Returns:
            How many could be a test; if none could, there is no such set.
        """
        asked = lessons.asked
        user = torch.tensor(users, dtype=torch.int64, device=asked.history.device)
        every = ProbeSet(asked.history, asked.gaps, asked.excluded, asked.used, lessons.batch.target, user)
        return self._put(key, every.take(lessons.testable))

    def drop(self, key: Key) -> None:
        """Forget a set, if there is one."""
        self._sets.pop(key, None)

    def test(self, rank: Rank) -> dict[str, dict[Key, float]]:
        """Recall@10 on each set of each thing that ranks, by its name."""
        hits: dict[str, dict[Key, float]] = {}
        for key in self.keys:
            for questions, target in self._sets[key].parts():
                for name, lists in rank(key[0], questions).items():
                    found = hits.setdefault(name, dict.fromkeys(self.keys, 0.0))
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
        return {
            f"{scenario}.{window}.{field.name}": getattr(each, field.name)
            for (scenario, window), each in self._sets.items()
            for field in fields(ProbeSet)
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Become what `state` was taken from."""
        tensors: dict[Key, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            scenario, window, field = name.split(".")
            tensors.setdefault((int(scenario), int(window)), {})[field] = tensor
        self._sets = {key: ProbeSet(**each) for key, each in tensors.items()}

    def _put(self, key: Key, probes: ProbeSet) -> int:
        if len(probes):
            self._sets[key] = probes
        else:
            self.drop(key)
        return len(probes)
