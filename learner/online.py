"""The online learner: every example is first a test, then a lesson."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import torch
from torch import Tensor

from learner.checkpoint import CheckpointMismatch, read_checkpoint, write_checkpoint
from learner.items import ItemTable, TableFull
from learner.lessons import Lessons, as_lessons
from learner.mixer import Mixer, MixerTrainer
from learner.outcomes import DEPTH
from learner.projection import Projection
from learner.publication import News, Publication
from learner.ranking import Batch, Candidates, Clocks, Ranking, ScenarioModel, find, order
from learner.replay import Replay, TrainingBatch, user_hash
from learner.shelf import search_shelf
from learner.texts import ItemTexts
from learner.training import Trainer
from schemas.items import Item
from schemas.records import Example, ItemVector, Weights
from schemas.settings import Settings
from schemas.topics import Topics

__all__ = ["Exam", "OnlineLearner", "Publication"]


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


class OnlineLearner:
    """Owns everything that is learnt, and learns from examples in the order in which they come.

    Attributes:
        table: all items, with vectors, neighbours and popularity.
        lineage: names this run of learning; a checkpoint carries it on.
        step: gradient steps taken.
        examples: scenario → how many it has learnt from.
        skipped_steps: gradient steps that were not taken because the loss was not finite.
        left_out: items that got no row because the table is full.
        learns_tower: whether trunk, heads and item vectors learn; mixer and counters always do.
        on_exam: told of each micro-batch when it was tested and before it is learnt.
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
        self._encoder_dimension = encoder_dimension
        self._device = device
        self._wall_clock = wall_clock
        self._scenarios = tuple(settings.scenarios)
        self._number = {name: number for number, name in enumerate(self._scenarios)}
        self._topics = Topics(settings)
        self._generator = torch.Generator().manual_seed(learn.seed)
        self.table = ItemTable(self._scenarios, sizes, device)
        self._projection = Projection(encoder_dimension, sizes.dimension, self._generator, device)
        self._texts = ItemTexts(self._projection, self.table)
        self._trainer = Trainer(self.table, sizes, learn, device)
        mixer = Mixer(len(self._scenarios), sizes.mixer_units, self._generator).to(device)
        self._mixer = MixerTrainer(mixer, learn.mixer_learning_rate)
        self._models = [
            ScenarioModel(sizes, self._trainer.trunk, self._trainer.heads.only(number), mixer)
            for number in range(len(self._scenarios))
        ]
        self._replay = Replay(len(self._scenarios), learn.replay_rows, sizes.history, device)
        self._news = News(self.table)
        self._heads_changed = False
        self._clock = 0.0
        self._scenario_clocks = [0.0] * len(self._scenarios)
        self._watermarks: dict[str, dict[int, int]] = {name: {} for name in self._scenarios}
        self._hits: dict[str, deque[bool]] = {name: deque(maxlen=learn.recall_window) for name in self._scenarios}
        self._tested = dict.fromkeys(self._scenarios, (0, 0))
        self._versions = dict.fromkeys(self._scenarios, 0)
        self.lineage = str(uuid.uuid4())
        self.step = 0
        self.examples = dict.fromkeys(self._scenarios, 0)
        self.skipped_steps = 0
        self.left_out = 0
        self.learns_tower = True
        self.on_exam: Callable[[Exam], None] | None = None

    @property
    def recall(self) -> dict[str, float | None]:
        """Prequential recall@10 of each scenario's recent examples; None before the first."""
        return {name: sum(hits) / len(hits) if hits else None for name, hits in self._hits.items()}

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
        if not rows:
            return []
        self._texts.put(list(rows), texts[list(rows.values())].to(self._device))
        for number in rows.values():
            item = items[number]
            named = self._scenarios if item.scenarios is None else item.scenarios
            self.table.set_eligible(item.item_id, () if item.hidden else named)
        self._news.tell(list(rows))
        return self.table.describe_rows(list(rows), fresh=True)

    def remove_item(self, item_id: str) -> bool:
        """Forget an item, also as part of others' histories and neighbours; False if it was unknown."""
        row = self.table.remove(item_id)
        if row:
            self._texts.forget(row)
            self._trainer.forget_item(row)
            self._replay.forget_item(row)
            self._news.touch(torch.tensor([row], device=self._device))
        return bool(row)

    def forget_user(self, user_id: str) -> int:
        """Drop what is remembered of a user; returns how many replay rows that were."""
        return self._replay.forget_user(user_hash(user_id))

    # Learning

    def learn(self, scenario: str, examples: Sequence[Example]) -> int:
        """Test on the examples, then learn from them.

        An example that was learnt before, by its source partition and offset, is passed over.

        Returns:
            How many were new.
        """
        new = self._unlearnt(scenario, examples)
        size = self._settings.learn.micro_batch
        for start in range(0, len(new), size):
            self._learn_batch(self._number[scenario], new[start : start + size])
        return len(new)

    def _unlearnt(self, scenario: str, examples: Sequence[Example]) -> list[Example]:
        through = dict(self._watermarks[scenario])
        new = []
        for example in examples:
            if example.offset > through.get(example.partition, -1):
                through[example.partition] = example.offset
                new.append(example)
        return new

    def _learn_batch(self, scenario: int, examples: Sequence[Example]) -> None:
        """test → step → mix → count → remember → move the watermarks."""
        name = self._scenarios[scenario]
        targets = [self._row(example.item_id) for example in examples]
        placed = [(example, row) for example, row in zip(examples, targets, strict=True) if row]
        if placed:
            lessons = as_lessons(self.table, scenario, placed, self._settings.model.history)
            candidates, tested, ranking = self._test(scenario, lessons)
            if self.on_exam is not None:
                self.on_exam(Exam(scenario, [each for each, _ in placed], lessons, tested, ranking))
            learnt = self._train(lessons.batch) if self.learns_tower else True
            if candidates is not None:
                target = lessons.batch.target[tested]
                mixed = self._mixer.step(candidates.features, candidates.rows, target, scenario)
                self.skipped_steps += not mixed
            self._count(scenario, lessons.batch)
            if learnt:  # what could not be learnt from once would spoil every step that it is replayed in
                users = [user_hash(example.user_id) for example, _ in placed]
                self._replay.add(scenario, lessons.batch, users, self._generator)
        for example in examples:
            self._watermarks[name][example.partition] = example.offset
        self.examples[name] += len(examples)

    def _test(self, scenario: int, lessons: Lessons) -> tuple[Candidates | None, Tensor, Ranking | None]:
        """Rank as serving would have, and note whether the item was near the top."""
        tested = lessons.testable.nonzero().flatten()
        if len(tested) == 0:
            return None, tested, None
        asked = lessons.asked
        candidates = self._find(scenario, Batch(asked.history[tested], asked.gaps[tested], asked.excluded[tested]))
        ranking = order(self._models[scenario], scenario, candidates)
        hit = (ranking.rows[:, :DEPTH] == lessons.batch.target[tested, None]).any(1)
        name = self._scenarios[scenario]
        self._hits[name].extend(hit.tolist())
        before, hits = self._tested[name]
        self._tested[name] = (before + len(hit), hits + int(hit.sum()))
        return candidates, tested, ranking

    def rank(self, scenario: int, questions: Batch) -> Ranking:
        """What would be served in the scenario of this number; changes nothing."""
        return order(self._models[scenario], scenario, self._find(scenario, questions))

    def _find(self, scenario: int, questions: Batch) -> Candidates:
        clocks = Clocks(self._clock, self._scenario_clocks[scenario])
        search = search_shelf(self.table, scenario)
        return find(self._models[scenario], self.table, scenario, clocks, questions, search, minimum=DEPTH)

    def rehearse(self, batch: TrainingBatch, epochs: int) -> None:
        """Let the tower learn again from examples that it has met, `epochs` times, each time in another order."""
        size = self._settings.learn.micro_batch
        for _ in range(epochs):
            order = torch.randperm(len(batch), generator=self._generator).to(self._device)
            for start in range(0, len(batch), 2 * size):
                part = batch.take(order[start : start + 2 * size])
                self.step += self._trainer.step(part, self._replay.sample(0, self._generator))
        self._heads_changed = True

    def _train(self, batch: TrainingBatch) -> bool:
        if self.step == 0:
            self._texts.settle()
        replayed = self._replay.sample(self._settings.learn.replay_batch, self._generator)
        learnt = self._trainer.step(batch, replayed)
        self.step += learnt
        self.skipped_steps += not learnt
        self._heads_changed |= learnt
        return learnt

    def _count(self, scenario: int, batch: TrainingBatch) -> None:
        """Uses count towards popularity and co-visitation; dislikes do not."""
        liked = batch.weight >= 0
        history, target = batch.history[liked], batch.target[liked]
        if len(target) == 0:
            return
        self.table.popularity.update(scenario, target, self._scenario_clocks[scenario])
        self._clock += len(target)
        self._scenario_clocks[scenario] += len(target)
        own = history == target[:, None]
        self._news.touch(self.table.covisitation.update(history.masked_fill(own, 0).cpu(), target.cpu(), self._clock))
        self._heads_changed = True

    def _row(self, item_id: str) -> int:
        try:
            return self.table.add(item_id)
        except TableFull:
            self.left_out += 1
            return 0

    # Publishing

    def publish(self) -> Publication | None:
        """What is news since the last publication; None if nothing is."""
        rows = self._news.changed()
        if not rows and not self._heads_changed:
            return None
        return self._publication(rows)

    def republish(self) -> Publication:
        """Everything, for readers that may have none of it."""
        return self._publication(list(self.table.row_of.values()))

    def _publication(self, rows: list[int]) -> Publication:
        vectors = self.table.describe_rows(rows, fresh=False)
        self._news.tell(rows)
        self._heads_changed = False
        recall = self.recall
        for name in self._scenarios:
            self._versions[name] += 1
        weights = [
            Weights(
                scenario=name,
                lineage=self.lineage,
                version=self._versions[name],
                step=self.step,
                published_at=self._wall_clock(),
                clock=self._clock,
                scenario_clock=self._scenario_clocks[number],
                vectors_through=0,
                published_with=list(self._scenarios),
                trained_through={
                    f"{self._topics.events(name)}:{partition}": offset
                    for partition, offset in sorted(self._watermarks[name].items())
                },
                recall=recall[name],
                tested=self._tested[name][0],
                hits=self._tested[name][1],
                examples=self.examples[name],
                tensors=self._models[number].dump(),
            )
            for number, name in enumerate(self._scenarios)
        ]
        return Publication(vectors, weights)

    # Checkpoints

    def save(self, folder: Path, extra: Mapping[str, object]) -> str:
        """Write everything that learning needs to go on as if it had never stopped.

        Args:
            extra: whatever JSON can say; `restore` gives it back.

        Returns:
            The SHA-256 of the checkpoint's manifest.
        """
        facts = {
            "made_for": self._made_for(),
            "names": self.table.names(),
            "clock": self._clock,
            "scenario_clocks": self._scenario_clocks,
            "watermarks": {name: list(through.items()) for name, through in self._watermarks.items()},
            "hits": {name: [int(hit) for hit in hits] for name, hits in self._hits.items()},
            "tested": {name: list(counts) for name, counts in self._tested.items()},
            "versions": self._versions,
            "lineage": self.lineage,
            "step": self.step,
            "examples": self.examples,
            "skipped_steps": self.skipped_steps,
            "left_out": self.left_out,
            "extra": dict(extra),
        }
        parts = {"table": self.table.state(), **{name: part.state() for name, part in self._parts().items()}}
        tensors = {f"{part}/{name}": tensor for part, state in parts.items() for name, tensor in state.items()}
        tensors["generator"] = self._generator.get_state()
        return write_checkpoint(folder, tensors, facts)

    def restore(self, folder: Path) -> dict[str, object]:
        """Go on from a checkpoint; everything is news after that, so `republish`.

        Returns:
            What was given to `save` as `extra`.

        Raises:
            DamagedCheckpoint: a file is missing or altered.
            CheckpointMismatch: the settings describe another model.
            StateMismatch: the tables are those of another version of Headstream.
        """
        checkpoint = read_checkpoint(folder)
        facts = msgspec.convert(checkpoint.facts, _Facts)
        for field, present in self._made_for().items():
            if facts.made_for.get(field) != present:
                raise CheckpointMismatch(field, facts.made_for.get(field), present)

        def within(part: str) -> dict[str, Tensor]:
            prefix = f"{part}/"
            return {
                name.removeprefix(prefix): tensor
                for name, tensor in checkpoint.tensors.items()
                if name.startswith(prefix)
            }

        self.table.load(within("table"), facts.names)
        for name, part in self._parts().items():
            part.load(within(name))
        self._generator.set_state(checkpoint.tensors["generator"])
        self._news = News(self.table)
        self._heads_changed = True
        self._clock = facts.clock
        self._scenario_clocks = facts.scenario_clocks
        self._watermarks = {name: dict(through) for name, through in facts.watermarks.items()}
        for name, hits in self._hits.items():
            hits.clear()
            hits.extend(map(bool, facts.hits[name]))
        self._tested = facts.tested
        self._versions = facts.versions
        self.lineage = facts.lineage
        self.step = facts.step
        self.examples = facts.examples
        self.skipped_steps = facts.skipped_steps
        self.left_out = facts.left_out
        return facts.extra

    def _parts(self) -> dict[str, _Part]:
        return {
            "projection": self._projection,
            "texts": self._texts,
            "trainer": self._trainer,
            "mixer": self._mixer,
            "replay": self._replay,
        }

    def _made_for(self) -> dict[str, object]:
        """What a checkpoint must have been made with, to be gone on from."""
        sizes = self._settings.model
        named = ("encoder", "dimension", "history", "heads", "feedforward", "adapter_rank", "neighbours", "mixer_units")
        return {
            "scenarios": list(self._scenarios),
            "encoder_dimension": self._encoder_dimension,
            "learn.replay_rows": self._settings.learn.replay_rows,
            **{f"model.{name}": getattr(sizes, name) for name in named},
        }


class _Facts(msgspec.Struct):
    """What a checkpoint says in JSON."""

    made_for: dict[str, object]
    names: list[str | None]
    clock: float
    scenario_clocks: list[float]
    watermarks: dict[str, list[tuple[int, int]]]
    hits: dict[str, list[int]]
    tested: dict[str, tuple[int, int]]
    versions: dict[str, int]
    lineage: str
    step: int
    examples: dict[str, int]
    skipped_steps: int
    left_out: int
    extra: dict[str, object]


class _Part(Protocol):
    """What a checkpoint takes tensors from and gives them back to."""

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...
