"""The online learner: every example is first a test, then a lesson."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from learner.checkpoint import Checkpoint, fingerprint, read_checkpoint, write_checkpoint
from learner.consolidation import Consolidation
from learner.erased import ErasedUsers, Forgotten
from learner.exam import Exam
from learner.examiner import Examiner
from learner.facts import Facts, made_for
from learner.fair_share import FairShare
from learner.forgetting import Forgetting
from learner.hold_out import HoldOut, Placed
from learner.items import ItemTable, TableFull
from learner.lessons import Lessons, as_lessons
from learner.mixer import Mixer, MixerTrainer
from learner.monitor import Monitor
from learner.parts import Parts
from learner.probes import Probes
from learner.projection import Projection
from learner.promotion import Promotion
from learner.publication import News
from learner.ranking import Candidates, ScenarioModel
from learner.replay import Replay, TrainingBatch, user_hash
from learner.run import Run
from learner.strategy import MakeStrategy, PlainStrategy, Strategy
from learner.texts import ItemTexts
from learner.training import Trainer
from learner.versions import Versions
from schemas.items import Item
from schemas.records import Example, ItemVector
from schemas.settings import Settings
from schemas.topics import Topics


class OnlineLearner:
    """Owns everything that is learnt, and learns from examples in the order in which they come.

    Attributes:
        table: all items, with vectors, neighbours and popularity.
        run: how far learning has come.
        examiner: ranks as serving would.
        probes: what was held out of the stream, to be asked again and again.
        forgetting: what came of asking, over time.
        hold_out: what fills the probes, and asks them.
        promotion: how each scenario stands to its good version.
        versions: what is published, and what becomes of it.
        erased: users whose past is not learnt any more.
        fair_share: passes over what one user does too much of.
        monitor: watches the signals of every scenario; who gives it exams decides whether it has any.
        learns_tower: whether trunk, heads and item vectors learn; mixer and counters always do.
        on_exam: told of each micro-batch, less what is held out of it, when it was tested and before it is learnt.
    """

    def __init__(
        self,
        settings: Settings,
        encoder_dimension: int,
        device: torch.device,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start from nothing.

        Args:
            wall_clock: epoch seconds, to date publications with.
        """
        sizes, learn = settings.model, settings.learn
        self._settings = settings
        self._made_for = made_for(settings, encoder_dimension)
        self._device = device
        self._scenarios = tuple(settings.scenarios)
        self._number = {name: number for number, name in enumerate(self._scenarios)}
        self._generator = torch.Generator().manual_seed(learn.seed)
        self.table = ItemTable(self._scenarios, sizes, device)
        self._projection = Projection(encoder_dimension, sizes.dimension, self._generator, device)
        self._trainer = Trainer(self.table, sizes, learn, device)
        mixer = Mixer(len(self._scenarios), sizes.mixer_units, self._generator).to(device)
        self._mixer = MixerTrainer(mixer, learn.mixer_learning_rate)
        tower = self._trainer.tower
        self._models = [
            ScenarioModel(sizes, tower.trunk, tower.heads.only(number), mixer.only(number))
            for number in range(len(self._scenarios))
        ]
        self._texts = ItemTexts(self._projection, self.table, self._shift)
        self._replay = Replay(len(self._scenarios), learn.replay_rows, sizes.history, device)
        self.probes = Probes(self._scenarios, device)
        self.forgetting = Forgetting(self._scenarios)
        self.fair_share = FairShare(len(self._scenarios), learn.user_share)
        self._unlisted: set[str] = set()
        self._parts = Parts(
            self.table,
            shared={
                "projection": self._projection,
                "texts": self._texts,
                "probes": self.probes,
                "forgetting": self.forgetting,
            },
            divided={
                "trainer": self._trainer,
                "mixer": self._mixer,
                "replay": self._replay,
                "fair_share": self.fair_share,
            },
        )
        self.run = Run(self._scenarios)
        self.erased = ErasedUsers()
        self.monitor = Monitor(self.table, self.run.lineage, learn.seed, settings.drift.patience)
        self.examiner = Examiner(self.table, self._models, self.run, sizes.history, learn.recall_window)
        self.hold_out = HoldOut(self.table, self.probes, self.forgetting, self.examiner, learn, sizes.history)
        self._news = News(self.table)
        self.promotion = Promotion(
            settings, self.table, self._models, self._texts, self._trainer, self._replay, self._parts
        )
        self.versions = Versions(
            self.table,
            self.run,
            self.promotion,
            self._news,
            Topics(settings),
            self._made_for,
            settings.gate.least_pairs,
            wall_clock,
        )
        self.adopt(PlainStrategy)
        self.learns_tower = True
        self.on_exam: Callable[[Exam], None] | None = None

    @property
    def remembered(self) -> dict[str, int]:
        """How many examples are kept of each scenario, to be replayed."""
        return {name: self._replay.filled(number) for name, number in self._number.items()}

    def adopt(self, make: MakeStrategy) -> None:
        """Take the steps to come with another strategy."""
        self._strategy: Strategy = make(
            trainer=self._trainer,
            replay=self._replay,
            replayed=self._settings.learn.replay_batch,
            generator=self._generator,
        )

    # Items

    def put_items(self, items: Sequence[Item], texts: Tensor) -> list[ItemVector]:
        """Take in items, new or changed; hidden ones too, but no scenario may recommend them.

        Args:
            texts: the encoder's vectors; (n, encoder_dimension).

        Returns:
            Records to be published at once, so that the items can be recommended before anyone has used them.
        """
        newest = {item.item_id: number for number, item in enumerate(items)}
        rows: dict[int, int] = {}
        for item_id, number in newest.items():
            row = self._row(item_id)
            if row:
                rows[row] = number
        self._unlisted.difference_update(newest)
        if not rows:
            return []
        if self._texts.put(list(rows), texts[list(rows.values())].to(self._device)):
            self._news.suspect(torch.arange(self.table.allocated, device=self._device))
        for number in rows.values():
            item = items[number]
            named = self._scenarios if item.scenarios is None else item.scenarios
            self.table.set_eligible(item.item_id, () if item.hidden else named)
        self.promotion.good.admit(list(rows))
        self._news.tell(list(rows))
        return self.promotion.good.describe_rows(list(rows), fresh=True)

    def _shift(self, rows: Tensor, shifts: Tensor) -> None:
        self.promotion.good.shift(rows, shifts)

    def remove_item(self, item_id: str) -> bool:
        """Forget an item, also as part of others' histories and neighbours; False if it was unknown."""
        (row,) = self.table.rows([item_id])
        self._unlisted.discard(item_id)
        if row:
            # Who reads of them only later, and of this item never, would take the row's next item for their neighbour.
            others = self.table.covisitation.naming(row)
            self.table.remove(item_id)
            self.promotion.good.remove(row)
            self._texts.forget(row)
            self._trainer.forget_item(row)
            self._replay.forget_item(row)
            self.probes.forget_item(row)
            self.monitor.forget_item(row)
            self._news.touch(torch.cat([torch.tensor([row]), others]).to(self._device))
        return bool(row)

    def erase(self, user_id: str, until: float, name: str) -> Forgotten:
        """Drop what is remembered of a user, and learn no more of what happened up to `until`, epoch seconds.

        What was learnt stays in weights and counts, in sum with everybody else's.

        Args:
            name: of the erasure; the same one again begins no other count.
        """
        self.erased.add(user_id, self.run.lineage, until, name)
        return self.forget_user(user_id)

    def forget_user(self, user_id: str) -> Forgotten:
        """Drop what is remembered of a user."""
        user = user_hash(user_id)
        self.fair_share.forget_user(user)
        return Forgotten(self._replay.forget_user(user), self.probes.forget_user(user))

    # Learning

    def learn(self, scenario: str, examples: Sequence[Example]) -> int:
        """Test on the examples, then learn from them.

        An example that was learnt before, by its source partition and offset, is passed over.

        Returns:
            How many were new.
        """
        new = self.run.progress[scenario].unlearnt(examples)
        size = self._settings.learn.micro_batch
        for start in range(0, len(new), size):
            self._learn_batch(self._number[scenario], new[start : start + size])
        return len(new)

    def _learn_batch(self, scenario: int, examples: Sequence[Example]) -> None:
        """hold out → test → compare → step and remember → mix → count → move the watermarks.

        A scenario whose learning is paused is tested, and that is all; with an erased user's example, or what is above
        a user's fair share, not even that.
        """
        name = self._scenarios[scenario]
        targets = [self._met(example.item_id) for example in examples]
        placed: Sequence[Placed] = [
            (example, row)
            for example, row in zip(examples, targets, strict=True)
            if row and not self.erased.refuses(example, self.run.lineage)
        ]
        if self.promotion.standings[name].learning:  # what is not learnt is not forgotten either
            placed = self.fair_share.take(scenario, self.hold_out.take(scenario, placed))
        if placed:
            impressions = self._settings.scenarios[name].impressions
            lessons = as_lessons(self.table, scenario, placed, self._settings.model.history, impressions)
            candidates, tested, ranking = self.examiner.test(scenario, lessons)
            if self.on_exam is not None:
                self.on_exam(Exam(scenario, [each for each, _ in placed], lessons, tested, ranking))
            if ranking is not None:
                self.promotion.compare(scenario, [each for each, _ in placed], lessons, tested, ranking)
            if self.promotion.standings[name].learning:
                self._learn_from(placed, lessons)
                if candidates is not None:
                    self._mix(scenario, candidates, lessons.batch.target[tested])
                self._count(scenario, lessons.batch)
        self.run.progress[name].mark(examples)
        self._news.weights = True  # how far it is, and how well, is news even where it taught nothing

    def _learn_from(self, placed: Sequence[Placed], lessons: Lessons) -> None:
        if self.learns_tower:
            both = TrainingBatch.joined([lessons.batch, lessons.passed_over])
            self._train(both, [user_hash(example.user_id) for example, _ in placed])

    def rehearse(self, batch: TrainingBatch, epochs: int) -> None:
        """Let the tower learn again from examples that it has met, `epochs` times, each time in another order."""
        size = self._settings.learn.micro_batch
        for _ in range(epochs):
            order = torch.randperm(len(batch), generator=self._generator).to(self._device)
            for start in range(0, len(batch), 2 * size):
                part = batch.take(order[start : start + 2 * size])
                self.run.step += self._trainer.step(part, len(part))
                self._news.suspect(self._trainer.tower.leaves.rows)
        self._news.weights = True

    def consolidate(self) -> Consolidation:
        """What `advance_consolidation` goes on with."""
        size = self._settings.learn.micro_batch + self._settings.learn.replay_batch
        return Consolidation(
            self._trainer, self._replay, self._texts, self.table, self._projection, size, self._generator
        )

    def advance_consolidation(self, consolidation: Consolidation, steps: int) -> bool:
        """Take some steps of it; returns whether that was all, and a new generation of item vectors is there."""
        before = consolidation.done
        self._news.suspect(consolidation.advance(steps))
        self.run.step += consolidation.done - before
        self._news.weights = True
        if consolidation.done < consolidation.steps:
            return False
        self._news.suspect(consolidation.finish())
        return True

    @property
    def generation(self) -> int:
        """How many consolidations there were."""
        return self._projection.generation

    def _train(self, batch: TrainingBatch, users: Sequence[int]) -> None:
        if self.run.step == 0:
            self._texts.settle()
            self._news.suspect(torch.arange(self.table.allocated, device=self._device))
        learnt = self._strategy.train(batch, users)
        self.run.step += learnt
        self.run.skipped_steps += not learnt
        self._news.suspect(self._trainer.tower.leaves.rows)

    def _mix(self, scenario: int, candidates: Candidates, target: Tensor) -> None:
        learnt = self._mixer.step(candidates.features, candidates.rows, target, scenario)
        self.run.skipped_steps += not learnt

    def _count(self, scenario: int, batch: TrainingBatch) -> None:
        """Uses count towards popularity and co-visitation; dislikes do not."""
        liked = batch.weight >= 0
        history, target = batch.history[liked], batch.target[liked]
        if len(target) == 0:
            return
        name = self._scenarios[scenario]
        self.table.popularity.update(scenario, target, self.run.progress[name].clock)
        self.run.count(name, len(target))
        own = history == target[:, None]
        self._news.touch(
            self.table.covisitation.update(history.masked_fill(own, 0).cpu(), target.cpu(), self.run.clock)
        )

    def _met(self, item_id: str) -> int:
        """The row of an item that an event names; without a record it gets one only while few are without.

        Whoever makes ids up fills that many rows and no more, and never takes the place of an item that exists.
        """
        row = self.table.row_of.get(item_id, 0)
        if row:
            return row
        if len(self._unlisted) >= self._settings.model.unlisted_items:
            self.run.left_out += 1
            return 0
        row = self._row(item_id)
        if row:
            self._unlisted.add(item_id)
        return row

    def _row(self, item_id: str) -> int:
        try:
            return self.table.add(item_id)
        except TableFull:
            self.run.left_out += 1
            return 0

    # Checkpoints

    def save(self, folder: Path, extra: Mapping[str, object]) -> str:
        """Write everything that learning needs to go on as if it had never stopped.

        Args:
            extra: whatever JSON can say; `restore` gives it back.

        Returns:
            The SHA-256 of the checkpoint's manifest.
        """
        state = self._state(extra)
        return write_checkpoint(folder, state.tensors, state.facts)

    def fingerprint(self) -> str:
        """Of all that was learnt; the same log, seed and number of threads give the same one on a CPU."""
        return fingerprint(self._state({}).tensors)

    def remember(self) -> Checkpoint:
        """A copy, in memory, of everything that `return_to` goes on from."""
        state = self._state({})
        return Checkpoint({name: tensor.detach().clone() for name, tensor in state.tensors.items()}, state.facts)

    def _state(self, extra: Mapping[str, object]) -> Checkpoint:
        """Everything as it stands, not copied."""
        facts = Facts(
            made_for=self._made_for,
            names=self.table.names(),
            clock=self.run.clock,
            progress=self.run.progress,
            lineage=self.run.lineage,
            step=self.run.step,
            skipped_steps=self.run.skipped_steps,
            left_out=self.run.left_out,
            standings=self.promotion.standings,
            extra=dict(extra),
            drift=self.monitor.state,
            erased=self.erased.gone,
            unlisted=sorted(self._unlisted),
        )
        tensors = {**self._parts.tensors(), "generator": self._generator.get_state()}
        return Checkpoint(tensors, msgspec.to_builtins(facts, str_keys=True))

    def restore(self, folder: Path) -> Facts:
        """Go on from a checkpoint; everything is news after that, so `versions.republish`.

        It may have been made with other scenarios: those that stay go on, and new ones begin with what all share.

        Returns:
            What the checkpoint says of itself, with what was given to `save` as `extra`.

        Raises:
            DamagedCheckpoint: a file is missing or altered.
            CheckpointMismatch: the settings describe another model.
            StateMismatch: the tables are those of another version of Headstream.
        """
        return self.return_to(read_checkpoint(folder))

    def return_to(self, checkpoint: Checkpoint) -> Facts:
        """As `restore`, from what is in memory."""
        facts = Facts.read(checkpoint.facts, self._made_for)
        self._parts.load(checkpoint.tensors, facts.names, facts.scenarios)
        self._generator.set_state(checkpoint.tensors["generator"])
        self.run.load(facts)
        self.erased = ErasedUsers(facts.erased)
        self._unlisted = set(facts.unlisted)
        self.monitor.lineage = facts.lineage
        self.monitor.load(facts.drift)
        self.versions.load(facts.standings)
        return facts
