"""The learner's strategy on Avalanche: an experience is a micro-batch, rehearsal is a plugin.

Whoever imports this module waits for Avalanche: ten to thirty seconds. Lomonaco et al. 2021, Avalanche: an end-to-end
library for continual learning, https://arxiv.org/abs/2104.00405.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from avalanche.benchmarks.scenarios.dataset_scenario import DatasetExperience
from avalanche.training.plugins import SupervisedPlugin
from avalanche.training.storage_policy import ExemplarsBuffer
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor

from learner.replay import Replay, TrainingBatch
from learner.training import Trainer


class MicroBatch(DatasetExperience):  # type: ignore[misc]
    """An experience: new examples of one scenario, and a hash of the user of each that is to be remembered.

    Attributes:
        learnt: whether a step was taken on it.
    """

    def __init__(self, examples: TrainingBatch, users: Sequence[int]) -> None:
        super().__init__(dataset=None)
        self.examples = examples
        self.users = users
        self.learnt = False


class Exemplars(ExemplarsBuffer):  # type: ignore[misc]
    """Avalanche's view of the replay memory, which has the same number of rows for every scenario."""

    def __init__(self, replay: Replay, generator: torch.Generator) -> None:
        super().__init__(replay.capacity)
        self._replay = replay
        self._generator = generator

    def sample(self, size: int) -> TrainingBatch:
        return self._replay.sample(size, self._generator)

    def post_adapt(self, agent_state: Any, exp: MicroBatch) -> None:  # noqa: ARG002
        if exp.learnt:
            remembered = exp.examples.take(slice(len(exp.users)))
            self._replay.add(int(remembered.scenario[0]), remembered, exp.users, self._generator)

    def resize(self, strategy: Any, new_size: int) -> None:  # noqa: ARG002
        raise ValueError(f"the replay memory has {self.max_size} rows; learn.replay_rows decides that, not {new_size}")


class Rehearsal(SupervisedPlugin):  # type: ignore[misc]
    """Lays remembered examples beside the new ones before each step, and remembers those after it."""

    def __init__(self, exemplars: Exemplars, replayed: int) -> None:
        super().__init__()
        self._exemplars = exemplars
        self._replayed = replayed

    def before_training_iteration(self, strategy: Any, **_: Any) -> None:
        strategy.mbatch = TrainingBatch.joined([strategy.mbatch, self._exemplars.sample(self._replayed)])

    def after_training_exp(self, strategy: Any, **_: Any) -> None:
        self._exemplars.post_adapt(strategy, strategy.experience)


class AvalancheStrategy(SupervisedTemplate):  # type: ignore[misc]
    """Avalanche's training loop around the `Trainer`; a `Strategy`.

    What the stock template does between experiences is left out: it would put every micro-batch into a data set and a
    loader, and reset the optimizer's moments.
    """

    def __init__(self, *, trainer: Trainer, replay: Replay, replayed: int, generator: torch.Generator) -> None:
        self._trainer = trainer
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "No loggers specified")  # what is to be seen of learning, LEARN measures
            super().__init__(
                model=trainer.tower,
                optimizer=trainer.optimizer,
                criterion=None,
                device=next(trainer.tower.parameters()).device,
                plugins=[Rehearsal(Exemplars(replay, generator), replayed)],
                evaluator=None,
            )

    def train(self, new: TrainingBatch, users: Sequence[int]) -> bool:
        """Take one step, as `learner.strategy.Strategy` says."""
        experience = MicroBatch(new, users)
        super().train(experience, eval_streams=[])
        return experience.learnt

    # What SupervisedTemplate asks of its subclasses

    def train_dataset_adaptation(self, **_: Any) -> None:
        """The examples of a micro-batch are tensors already."""

    def make_train_dataloader(self, **_: Any) -> None:
        self.dataloader = [self.experience.examples]

    def check_model_and_optimizer(self, **_: Any) -> None:
        """Nothing new has to be trained, and the moments stay."""

    def _unpack_minibatch(self) -> None:
        """The examples are where the model is."""

    def forward(self) -> Tensor:
        losses: Tensor = self.model(self.mbatch)
        return losses

    def criterion(self) -> Tensor:
        return self._trainer.loss(self.mb_output, self.mbatch.weight, len(self.experience.examples))

    def optimizer_step(self) -> None:
        self.experience.learnt = self._trainer.update(self.loss, self.experience.examples.scenario)
