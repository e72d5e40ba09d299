"""Consolidation: what all scenarios share is fine-tuned on what is remembered of each of them, a piece at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.items import ItemTable
from learner.outcomes import COLD_USES
from learner.projection import Projection
from learner.replay import Replay
from learner.texts import ItemTexts
from learner.training import Trainer

EPOCHS = 2
"""Times that each remembered example is met, in the mean."""

ITEMS_THAT_STAY = 100
"""The projection is held where it is as if by so many items that lie where their texts say."""


class Consolidation:
    """Trunk and item vectors learn from replay alone, evenly over the scenarios; heads and biases stand still.

    At its end the projection turns towards where behaviour has put the items whose texts it projects. Items that are in
    use stay where they are; those that nobody has used yet, and all that come later, are placed by what that taught.

    Attributes:
        done: steps taken, of `steps`.
    """

    def __init__(
        self,
        trainer: Trainer,
        replay: Replay,
        texts: ItemTexts,
        table: ItemTable,
        projection: Projection,
        size: int,
        generator: torch.Generator,
    ) -> None:
        """Prepare; nothing has moved yet.

        Args:
            size: examples of a step.
        """
        self._trainer = trainer
        self._replay = replay
        self._texts = texts
        self._table = table
        self._projection = projection
        self._size = size
        self._generator = generator
        self.steps = -(-EPOCHS * len(replay) // size)
        self.done = 0

    def advance(self, steps: int) -> Tensor:
        """Take so many steps, or those that are left; returns the rows of items that may have moved, (n,), int64."""
        moved = [torch.zeros(0, dtype=torch.long, device=self._table.vectors.device)]
        for _ in range(min(steps, self.steps - self.done)):
            self.done += 1
            batch = self._replay.sample(self._size, self._generator)
            if len(batch) and self._trainer.step(batch, 0):
                moved.append(self._trainer.tower.leaves.rows)
        rows: Tensor = torch.unique(torch.cat(moved))
        return rows

    def finish(self) -> Tensor:
        """Turn the projection; returns the rows of items that have moved, (n,), int64."""
        table = self._table
        rows = torch.tensor(sorted(table.row_of.values()), dtype=torch.long, device=table.vectors.device)
        projected, used = self._texts.projected(rows), table.popularity.events[rows] >= COLD_USES
        told = (projected != 0).any(1)
        turn = _turn(projected[used & told], table.vectors[rows[used & told]])
        self._projection.turn_by(turn)
        return self._texts.turn(rows[told], turn, stay=rows[used & told])


def _turn(projected: Tensor, vectors: Tensor) -> Tensor:
    """The linear map of projected texts that comes nearest to where their items lie, by ridge regression around none.

    Args:
        projected, vectors: (n, dimension).

    Returns:
        (dimension, dimension); the identity if there is no item.
    """
    texts, learnt = projected.double(), (vectors - projected).double()
    same = torch.eye(projected.shape[1], dtype=torch.float64, device=projected.device)
    spread = texts.T @ texts  # (dimension, dimension)
    ridge = ITEMS_THAT_STAY * spread.diagonal().mean() / max(1, len(texts))
    turn: Tensor = same + torch.linalg.solve(spread + ridge.clamp_min(1e-6) * same, texts.T @ learnt).T
    return turn.float()
