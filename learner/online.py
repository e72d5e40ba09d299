"""The online learner: every example is first a test, then a lesson."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from learner.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from learner.consolidation import Consolidation
from learner.exam import Exam
from learner.facts import Facts, made_for
from learner.forgetting import Forgetting
from learner.gate import Verdict
from learner.hold_out import Placed, divide
from learner.items import ItemTable, TableFull
from learner.lessons import Lessons, as_lessons
from learner.mixer import Mixer, MixerTrainer
from learner.monitor import Monitor
from learner.outcomes import DEPTH
from learner.parts import Parts
from learner.probes import Probes
from learner.progress import Progress
from learner.projection import Projection
from learner.promotion import Earlier, Promotion, UnknownScenario
from learner.publication import Described, News, Publication, Stand, weights_of
from learner.ranking import Batch, Candidates, Clocks, Ranking, ScenarioModel, Search, find, order
from learner.replay import Replay, TrainingBatch, user_hash
from learner.shelf import search_shelf
from learner.strategy import MakeStrategy, PlainStrategy, Strategy
from learner.texts import ItemTexts
from learner.training import Trainer
from schemas.items import Item
from schemas.records import Example, ItemVector
from schemas.settings import Settings
from schemas.topics import Topics


class OnlineLearner:
    """Owns everything that is learnt, and learns from examples in the order in which they come.

    Attributes:
        table: all items, with vectors, neighbours and popularity.
        monitor: watches the signals of every scenario; who gives it exams decides whether it has any.
        probes: what was held out of the stream; `probes.test` with `rank` says how much of it is still known.
        forgetting: what such tests found, over time.
        lineage: names this run of learning; a checkpoint carries it on.
        step: gradient steps taken.
        skipped_steps: gradient steps that were not taken because the loss was not finite.
        left_out: items that got no row because the table is full.
        learns_tower: whether trunk, heads and item vectors learn; mixer and counters always do.
        search_of: gives the search for the scenario of a number; at first one that looks at all it may recommend.
        promotion: how each scenario stands to its good version.
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
        self._wall_clock = wall_clock
        self._scenarios = tuple(settings.scenarios)
        self._number = {name: number for number, name in enumerate(self._scenarios)}
        self._topics = Topics(settings)
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
        self._parts = Parts(
            self.table,
            shared={
                "projection": self._projection,
                "texts": self._texts,
                "probes": self.probes,
                "forgetting": self.forgetting,
            },
            divided={"trainer": self._trainer, "mixer": self._mixer, "replay": self._replay},
        )
        self.promotion = self._promotion()
        self.adopt(PlainStrategy)
        self._news = News(self.table)
        self._clock = 0.0
        self._progress = {name: Progress() for name in self._scenarios}
        self.lineage = str(uuid.uuid4())
        self.monitor = Monitor(self.table, self.lineage, learn.seed, settings.drift.patience)
        self.step = 0
        self.skipped_steps = 0
        self.left_out = 0
        self.learns_tower = True
        self.on_exam: Callable[[Exam], None] | None = None
        self.search_of: Callable[[int], Search] = partial(search_shelf, self.table)

    @property
    def recall(self) -> dict[str, float | None]:
        """Prequential recall@10 of each scenario's recent examples; None before the first."""
        return {name: progress.recall for name, progress in self._progress.items()}

    @property
    def examples(self) -> dict[str, int]:
        """How many each scenario has learnt from."""
        return {name: progress.examples for name, progress in self._progress.items()}

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

    def _promotion(self) -> Promotion:
        return Promotion(
            self._settings,
            self.table,
            self._models,
            self._texts,
            self._trainer,
            self._replay,
            self._parts,
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

    def forget_user(self, user_id: str) -> int:
        """Drop what is remembered of a user; returns how many rows of replay and of probe sets that were."""
        user = user_hash(user_id)
        return self._replay.forget_user(user) + self.probes.forget_user(user)

    # Learning

    def learn(self, scenario: str, examples: Sequence[Example]) -> int:
        """Test on the examples, then learn from them.

        An example that was learnt before, by its source partition and offset, is passed over.

        Returns:
            How many were new.
        """
        new = self._progress[scenario].unlearnt(examples)
        size = self._settings.learn.micro_batch
        for start in range(0, len(new), size):
            self._learn_batch(self._number[scenario], new[start : start + size])
        return len(new)

    def _learn_batch(self, scenario: int, examples: Sequence[Example]) -> None:
        """hold out → test → compare → step and remember → mix → count → move the watermarks.

        A scenario whose learning is paused is tested, and that is all.
        """
        name = self._scenarios[scenario]
        targets = [self._row(example.item_id) for example in examples]
        placed = self._hold_out(scenario, [pair for pair in zip(examples, targets, strict=True) if pair[1]])
        if placed:
            impressions = self._settings.scenarios[name].impressions
            lessons = as_lessons(self.table, scenario, placed, self._settings.model.history, impressions)
            candidates, tested, ranking = self._test(scenario, lessons)
            if self.on_exam is not None:
                self.on_exam(Exam(scenario, [each for each, _ in placed], lessons, tested, ranking))
            if ranking is not None:
                self.promotion.compare(scenario, [each for each, _ in placed], lessons, tested, ranking)
            if self.promotion.standings[name].learning:
                self._learn_from(placed, lessons)
                if candidates is not None:
                    self._mix(scenario, candidates, lessons.batch.target[tested])
                self._count(scenario, lessons.batch)
        self._progress[name].mark(examples)
        self._news.weights |= not self.promotion.standings[name].learning  # how far it is, and how well, is news too

    def _learn_from(self, placed: Sequence[Placed], lessons: Lessons) -> None:
        if self.learns_tower:
            both = TrainingBatch.joined([lessons.batch, lessons.passed_over])
            self._train(both, [user_hash(example.user_id) for example, _ in placed])

    def _hold_out(self, scenario: int, placed: Sequence[Placed]) -> Sequence[Placed]:
        """Test a share of the examples and keep it for the window's probe set; returns the others.

        No part learns from that share: neither weights nor replay, mixer or counters. Histories of later examples hold
        its items, as serving's do. While learning is paused nothing is held out: what is not learnt is not forgotten.
        """
        learn, name, learnt, start = self._settings.learn, self._scenarios[scenario], [], 0
        if not self.promotion.standings[name].learning:
            return placed
        course = self.forgetting.courses[name]
        for count in course.stretches(len(placed), learn.probe_window):
            some, start = placed[start : start + count], start + count
            key = (scenario, course.present)
            room = learn.probe_rows - self.probes.size(key)
            held, others = divide(some, self.table.eligible[scenario], room, name, learn.probe_share, learn.seed)
            learnt += others
            if held:
                lessons = as_lessons(self.table, scenario, held, self._settings.model.history)
                self._test(scenario, lessons)
                self.probes.hold(key, lessons, [user_hash(example.user_id) for example, _ in held])
                course.hold([example.time for example, _ in held])
                self._merge_windows(scenario)
        return learnt

    def _merge_windows(self, scenario: int) -> None:
        """Let the neighbours that are to be one become one, if there are too many windows."""
        learn, name = self._settings.learn, self._scenarios[scenario]
        course = self.forgetting.courses[name]
        while len(course.windows) > learn.probe_windows:
            older, newer = course.neighbours()
            drawn = torch.Generator().manual_seed(user_hash(f"{learn.seed}:{name}:{older}:{newer}") % 2**63)
            self.probes.merge((scenario, older), (scenario, newer), learn.probe_rows, drawn)
            course.merge(older, newer)

    def test_probes(self, now: float) -> str | None:
        """Test one scenario on its probe sets, the one that has waited longest; returns its name, None if none has any.

        One at a time: all of them would keep those who wait for what is learnt waiting.

        Args:
            now: epoch seconds.
        """
        held = {self._scenarios[scenario] for scenario, _ in self.probes.keys}
        if not held:
            return None
        name = min(sorted(held), key=lambda each: self.forgetting.courses[each].last_test)
        scenario = self._number[name]
        found = self.probes.test(lambda number, asked: {"served": self.rank(number, asked).rows}, scenario)
        recalls = {window: recall for (_, window), recall in found["served"].items()}
        sizes = {window: self.probes.size((scenario, window)) for window in recalls}
        self.forgetting.courses[name].add(now, recalls, sizes)
        return name

    def examine(self, scenario: str, examples: Sequence[Example]) -> Exam | None:
        """Test on the examples and learn nothing; None if no item of theirs is known."""
        rows = self.table.rows([example.item_id for example in examples])
        placed = [(example, row) for example, row in zip(examples, rows, strict=True) if row]
        if not placed:
            return None
        number = self._number[scenario]
        lessons = as_lessons(self.table, number, placed, self._settings.model.history)
        _, tested, ranking = self._rank(number, lessons)
        return Exam(number, [each for each, _ in placed], lessons, tested, ranking)

    def _test(self, scenario: int, lessons: Lessons) -> tuple[Candidates | None, Tensor, Ranking | None]:
        """Rank as serving would have, and note whether the item was near the top."""
        candidates, tested, ranking = self._rank(scenario, lessons)
        if ranking is not None:
            hit = (ranking.rows[:, :DEPTH] == lessons.batch.target[tested, None]).any(1)
            self._progress[self._scenarios[scenario]].note(hit.tolist(), self._settings.learn.recall_window)
        return candidates, tested, ranking

    def _rank(self, scenario: int, lessons: Lessons) -> tuple[Candidates | None, Tensor, Ranking | None]:
        """Rank as serving would have, for the examples that can be a test."""
        tested = lessons.testable.nonzero().flatten()
        if len(tested) == 0:
            return None, tested, None
        asked = lessons.asked
        candidates = self._find(scenario, asked.take(tested))
        return candidates, tested, order(self._models[scenario], candidates)

    def rank(self, scenario: int, questions: Batch) -> Ranking:
        """What would be served in the scenario of this number; changes nothing."""
        return order(self._models[scenario], self._find(scenario, questions))

    def _find(self, scenario: int, questions: Batch) -> Candidates:
        clocks = Clocks(self._clock, self._progress[self._scenarios[scenario]].clock)
        search = self.search_of(scenario)
        return find(self._models[scenario], self.table, scenario, clocks, questions, search, minimum=DEPTH)

    def rehearse(self, batch: TrainingBatch, epochs: int) -> None:
        """Let the tower learn again from examples that it has met, `epochs` times, each time in another order."""
        size = self._settings.learn.micro_batch
        for _ in range(epochs):
            order = torch.randperm(len(batch), generator=self._generator).to(self._device)
            for start in range(0, len(batch), 2 * size):
                part = batch.take(order[start : start + 2 * size])
                self.step += self._trainer.step(part, len(part))
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
        self.step += consolidation.done - before
        self._news.weights = True
        if consolidation.done < consolidation.steps:
            return False
        self._news.suspect(consolidation.finish())
        return True

    @property
    def generation(self) -> int:
        """How many consolidations there were."""
        return self._projection.generation

    def begin_stream(self) -> None:
        """Call what was learnt so far the past: no offset, count or recall of it is part of the stream that begins."""
        for progress in self._progress.values():
            progress.begin_stream()

    def succeed(self, earlier: Checkpoint) -> None:
        """Take another learner's place in its stream: what it has learnt from is past here too, its counts go on."""
        for name, progress in Facts.read(earlier.facts, {}).progress.items():
            if name in self._progress:
                self._progress[name].succeed(progress)

    def _train(self, batch: TrainingBatch, users: Sequence[int]) -> None:
        if self.step == 0:
            self._texts.settle()
            self._news.suspect(torch.arange(self.table.allocated, device=self._device))
        learnt = self._strategy.train(batch, users)
        self.step += learnt
        self.skipped_steps += not learnt
        self._news.weights |= learnt
        self._news.suspect(self._trainer.tower.leaves.rows)

    def _mix(self, scenario: int, candidates: Candidates, target: Tensor) -> None:
        learnt = self._mixer.step(candidates.features, candidates.rows, target, scenario)
        self.skipped_steps += not learnt

    def _count(self, scenario: int, batch: TrainingBatch) -> None:
        """Uses count towards popularity and co-visitation; dislikes do not."""
        liked = batch.weight >= 0
        history, target = batch.history[liked], batch.target[liked]
        if len(target) == 0:
            return
        progress = self._progress[self._scenarios[scenario]]
        self.table.popularity.update(scenario, target, progress.clock)
        self._clock += len(target)
        progress.clock += len(target)
        own = history == target[:, None]
        self._news.touch(self.table.covisitation.update(history.masked_fill(own, 0).cpu(), target.cpu(), self._clock))
        self._news.weights = True

    def _row(self, item_id: str) -> int:
        try:
            return self.table.add(item_id)
        except TableFull:
            self.left_out += 1
            return 0

    # Publishing

    def publish(self) -> Publication | None:
        """What is news since the last publication; None if nothing is."""
        held = frozenset(self.promotion.good.owned().tolist())
        rows = [row for row in self._news.changed() if row not in held]
        return self._publication(rows) if rows or self._news.weights else None

    def republish(self) -> Publication:
        """Everything, for readers that may have none of it."""
        return self._publication(list(self.table.row_of.values()))

    def verdicts(self) -> dict[str, Verdict]:
        """What the gate says of each scenario that is learning."""
        least = self._settings.gate.least_pairs
        return {
            name: "undecided" if verdict == "passed" and self._progress[name].tested < least else verdict
            for name, verdict in self.promotion.verdicts(self._progress).items()
        }

    def unfit(self) -> dict[str, str]:
        """Scenarios of which something must not be published, and what."""
        return self.promotion.unfit(self._news.suspected())

    def figures(self, name: str) -> dict[str, float]:
        """Numbers by which people tell versions of a scenario apart."""
        progress = self._progress[name]
        recall = {} if progress.recall is None else {"recall@10": progress.recall}
        return {**recall, "examples": progress.examples, "tested": progress.tested, "hits": progress.hits}

    def pause(self, name: str) -> None:
        """Test on this scenario's examples and learn nothing from them."""
        self.promotion.pause(name, self._progress[name].through)

    def resume(self, name: str) -> None:
        """Learn from this scenario's examples again, from the next one on."""
        self.promotion.resume(name)

    def promote(self, name: str) -> int:
        """Take what a scenario has learnt for its good version, and serve it; returns that version's number."""
        number, progress = self._number[name], self._progress[name]
        if number in self.promotion.good.held:
            self._news.touch(self.table.eligible[number].nonzero().flatten())
            self._news.weights = True
        self.promotion.promote(name, progress, Clocks(self._clock, progress.clock))
        return progress.version

    def adopt_good(self, name: str, checkpoint: Checkpoint) -> None:
        """After a `restore`: what the scenario's standing calls its good version is in this checkpoint.

        Raises:
            CheckpointMismatch, OtherVersion: as `restore`.
        """
        self.promotion.adopt(name, self._earlier(name, checkpoint))

    def roll_back(self, name: str, checkpoint: Checkpoint, version: int, *, learning: bool) -> Publication:
        """Go back to an earlier version of one scenario, which is served until another one is promoted.

        Args:
            checkpoint: of this lineage, that holds the version.
            version: its number.
            learning: whether to learn on from there.

        Returns:
            What is to be published, so that it is served.

        Raises:
            CheckpointMismatch, OtherVersion: as `restore`; nothing has changed then.
            UnknownScenario: the checkpoint knows nothing of the scenario; nothing has changed then.
        """
        earlier = self._earlier(name, checkpoint)
        rows = self.promotion.roll_back(name, earlier, version, learning=learning)
        self._progress[name].clock = earlier.progress.clock
        return self._publication([row for row in rows.tolist() if self.table.id_of[row] is not None])

    def _earlier(self, name: str, checkpoint: Checkpoint) -> Earlier:
        facts = Facts.read(checkpoint.facts, self._made_for)
        if name not in facts.progress:
            raise UnknownScenario(name, facts.scenarios)
        return Earlier(checkpoint, facts, name)

    def _publication(self, rows: list[int]) -> Publication:
        self._news.tell(rows)
        self._news.weights = False
        for progress in self._progress.values():
            progress.version += 1
        stand = Stand(self.lineage, self.step, self._wall_clock())
        served = self.promotion.served(self._clock, self._progress)
        return Publication(
            Described(self.promotion.good, rows), weights_of(self._progress, served, self._topics, stand)
        )

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

    def remember(self) -> Checkpoint:
        """A copy, in memory, of everything that `return_to` goes on from."""
        state = self._state({})
        return Checkpoint({name: tensor.detach().clone() for name, tensor in state.tensors.items()}, state.facts)

    def _state(self, extra: Mapping[str, object]) -> Checkpoint:
        """Everything as it stands, not copied."""
        facts = Facts(
            made_for=self._made_for,
            names=self.table.names(),
            clock=self._clock,
            progress=self._progress,
            lineage=self.lineage,
            step=self.step,
            skipped_steps=self.skipped_steps,
            left_out=self.left_out,
            standings=self.promotion.standings,
            extra=dict(extra),
            drift=self.monitor.state,
        )
        tensors = {**self._parts.tensors(), "generator": self._generator.get_state()}
        return Checkpoint(tensors, msgspec.to_builtins(facts, str_keys=True))

    def restore(self, folder: Path) -> Facts:
        """Go on from a checkpoint; everything is news after that, so `republish`.

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
        self._news = News(self.table)
        self._news.weights = True
        self._clock = facts.clock
        self._progress = {name: facts.progress.get(name, Progress()) for name in self._scenarios}
        self.lineage = self.monitor.lineage = facts.lineage
        self.monitor.load(facts.drift)
        self.step = facts.step
        self.skipped_steps = facts.skipped_steps
        self.left_out = facts.left_out
        self.promotion = self._promotion()
        self.promotion.standings.update(
            {name: each for name, each in facts.standings.items() if name in self.promotion.standings}
        )
        return facts
