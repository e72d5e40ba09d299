"""The replay memory: examples of the past, a fair sample of each scenario's stream, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """Examples as tensors.

    Attributes:
        scenario: (batch,), int64.
        history: rows, oldest first, 0 pads; (batch, length), int64.
        gaps: buckets of `learner.model.gap_buckets`, 0 at pads; (batch, length), int64.
        target: (batch,), int64.
        weight: negative is dislike; (batch,), float32.
    """

    scenario: Tensor
    history: Tensor
    gaps: Tensor
    target: Tensor
    weight: Tensor

    def __len__(self) -> int:
        return len(self.target)

    def take(self, at: Tensor | slice) -> TrainingBatch:
        """The examples at these places, in their order."""
        return TrainingBatch(*(getattr(self, field.name)[at] for field in fields(self)))

    @classmethod
    def joined(cls, batches: Sequence[TrainingBatch]) -> TrainingBatch:
        """All of them, one after the other."""
        return cls(*(torch.cat([getattr(each, field.name) for each in batches]) for field in fields(cls)))


def user_hash(user_id: str) -> int:
    """Eight bytes that stand for a user, only good for finding their rows again; never 0."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


class Replay:
    """A reservoir per scenario: whatever its share of the traffic, each keeps the same number of rows.

    A row takes length * 5 + 16 bytes, and remembers of the user only a hash, for erasure.
    """

    def __init__(self, scenarios: int, rows: int, length: int, device: torch.device | str = "cpu") -> None:
        """Make an empty memory of `rows` rows per scenario for histories of `length` items."""
        self._history = torch.zeros(scenarios, rows, length, dtype=torch.int32, device=device)
        self._gaps = torch.zeros(scenarios, rows, length, dtype=torch.uint8, device=device)
        self._target = torch.zeros(scenarios, rows, dtype=torch.int32, device=device)
        self._weight = torch.zeros(scenarios, rows, device=device)
        self._user = torch.zeros(scenarios, rows, dtype=torch.int64, device=device)
        self._filled = [0] * scenarios
        self._met = [0] * scenarios

    def __len__(self) -> int:
        return sum(self._filled)

    @property
    def capacity(self) -> int:
        """Rows that there is room for, over all scenarios."""
        return self._target.numel()

    @property
    def bytes_per_row(self) -> int:
        tensors = (self._history, self._gaps, self._target, self._weight, self._user)
        return sum(t.element_size() * t[0, 0].numel() for t in tensors)

    def filled(self, scenario: int) -> int:
        """How many rows the scenario holds."""
        return self._filled[scenario]

    def add(self, scenario: int, batch: TrainingBatch, users: Sequence[int], generator: torch.Generator) -> None:
        """Let examples of one scenario in; every example of its stream is kept with the same chance.

        Args:
            users: a hash per example, 0 for none.
            generator: on the CPU.
        """
        size = len(batch)
        draws = torch.rand(size, generator=generator, dtype=torch.float64).tolist()
        place_of: dict[int, int] = {}
        for number, draw in enumerate(draws):
            place = self._place(scenario, draw)
            if place is not None:
                place_of[place] = number
        if not place_of:
            return
        device = self._target.device
        at = torch.tensor(list(place_of), device=device)
        taken = torch.tensor(list(place_of.values()), device=device)
        self._history[scenario, at] = batch.history[taken].int()
        self._gaps[scenario, at] = batch.gaps[taken].to(torch.uint8)
        self._target[scenario, at] = batch.target[taken].int()
        self._weight[scenario, at] = batch.weight[taken]
        self._user[scenario, at] = torch.tensor(users, dtype=torch.int64, device=device)[taken]

    def sample(self, size: int, generator: torch.Generator) -> TrainingBatch:
        """Draw examples with replacement, evenly over the scenarios that have any; none if there are none.

        Args:
            generator: on the CPU.
        """
        having = torch.tensor([number for number, filled in enumerate(self._filled) if filled], dtype=torch.long)
        if len(having) == 0:
            size = 0
            having = torch.zeros(1, dtype=torch.long)
        scenario = having[torch.randint(len(having), (size,), generator=generator)].sort().values
        filled = torch.tensor(self._filled)[scenario]
        place = (torch.rand(size, generator=generator, dtype=torch.float64) * filled).long()
        scenario, place = scenario.to(self._target.device), place.to(self._target.device)
        return TrainingBatch(
            scenario=scenario,
            history=self._history[scenario, place].long(),
            gaps=self._gaps[scenario, place].long(),
            target=self._target[scenario, place].long(),
            weight=self._weight[scenario, place],
        )

    def forget_item(self, row: int) -> None:
        """Drop the examples that led to the item, and take it out of all histories."""
        self._history.masked_fill_(self._history == row, 0)
        self._gaps.masked_fill_(self._history == 0, 0)
        for scenario in range(len(self._filled)):
            self._keep(scenario, self._target[scenario] != row)

    def forget_rows(self, scenario: int, gone: Tensor) -> None:
        """Take items out of what is remembered of one scenario.

        Args:
            gone: whether the item of a row is gone; (rows,), bool.
        """
        history, target = self._history[scenario], self._target[scenario]
        history.masked_fill_(gone[history.long()], 0)
        self._gaps[scenario].masked_fill_(history == 0, 0)
        self._keep(scenario, ~gone[target.long()])

    def forget_user(self, user: int) -> int:
        """Drop the examples of the user with this hash; returns how many there were."""
        before = len(self)
        for scenario in range(len(self._filled)):
            self._keep(scenario, self._user[scenario] != user)
        return before - len(self)

    def state(self) -> dict[str, Tensor]:
        return {
            "history": self._history,
            "gaps": self._gaps,
            "target": self._target,
            "weight": self._weight,
            "user": self._user,
            "filled": torch.tensor(self._filled),
            "met": torch.tensor(self._met),
        }

    def by_scenario(self) -> dict[str, int]:
        """The tensors of `state` that have a part for each scenario, and the dimension that counts them."""
        return dict.fromkeys(self.state(), 0)

    def load(self, state: Mapping[str, Tensor]) -> None:
        for tensor, name in (
            (self._history, "history"),
            (self._gaps, "gaps"),
            (self._target, "target"),
            (self._weight, "weight"),
            (self._user, "user"),
        ):
            tensor.copy_(state[name])
        self._filled, self._met = state["filled"].tolist(), state["met"].tolist()

    def _place(self, scenario: int, draw: float) -> int | None:
        """Where the scenario's next example goes, if anywhere."""
        self._met[scenario] += 1
        filled, rows = self._filled[scenario], self._target.shape[1]
        if filled < rows:
            self._filled[scenario] += 1
            return filled
        place = int(draw * self._met[scenario])
        return place if place < rows else None

    def _keep(self, scenario: int, kept: Tensor) -> None:
        filled = self._filled[scenario]
        at = kept[:filled].nonzero().flatten()
        if len(at) == filled:
            return
        for tensor in (self._history, self._gaps, self._target, self._weight, self._user):
            staying = tensor[scenario, at]
            tensor[scenario] = 0
            tensor[scenario, : len(at)] = staying
        self._filled[scenario] = len(at)
