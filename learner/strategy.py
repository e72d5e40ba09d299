"""Strategies: how a micro-batch and what is remembered of earlier ones become a gradient step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from learner.replay import Replay, TrainingBatch
from learner.training import Trainer


class Strategy(Protocol):
    """Learns from micro-batches, each of one scenario, in the order in which they come."""

    def train(self, new: TrainingBatch, users: Sequence[int]) -> bool:
        """Take one step on new and replayed examples, and remember new ones.

        What could not be learnt from once would spoil every step that it is replayed in, so it is not remembered.

        Args:
            new: at least one example, all of one scenario.
            users: a hash, 0 for none, for each example to remember; these come first.

        Returns:
            False if the loss was not finite; nothing has changed then.
        """


class MakeStrategy(Protocol):
    """Makes a strategy."""

    def __call__(self, *, trainer: Trainer, replay: Replay, replayed: int, generator: torch.Generator) -> Strategy:
        """Put it together.

        Args:
            trainer: what learns.
            replay: the memory.
            replayed: examples to replay at each step.
            generator: what the memory draws from; on the CPU.
        """


class PlainStrategy:
    """Replay in a few lines; `learner.avalanche.AvalancheStrategy` does the same to the bit."""

    def __init__(self, *, trainer: Trainer, replay: Replay, replayed: int, generator: torch.Generator) -> None:
        self._trainer = trainer
        self._replay = replay
        self._replayed = replayed
        self._generator = generator

    def train(self, new: TrainingBatch, users: Sequence[int]) -> bool:
        replayed = self._replay.sample(self._replayed, self._generator)
        learnt = self._trainer.step(TrainingBatch.joined([new, replayed]), len(new))
        if learnt:
            self._replay.add(int(new.scenario[0]), new.take(slice(len(users))), users, self._generator)
        return learnt
