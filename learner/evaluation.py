"""Prequential evaluation: Headstream and its rivals on the same events, each event first a test and then a lesson.

Headstream is the very `OnlineLearner` that LEARN runs. It cuts the stream into micro-batches, and every rival is given
the same ones, with the same histories, the same shelf and the same exclusions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learner.baselines import Baseline, DecayedPopularity, Ease, ItemKNN, Popularity, SasRec, Trial, TunedItemKNN
from learner.exam import Exam
from learner.lessons import Lessons, as_lessons
from learner.online import OnlineLearner
from learner.outcomes import COLD_USES, DEPTH, Examined
from learner.probes import RANKED_AT_ONCE, Key, Probes
from learner.ranking import Ranking
from learner.replay import TrainingBatch, user_hash
from learner.retention import Retention
from schemas.items import Item
from schemas.packed import holds, unpack
from schemas.records import Example
from schemas.settings import Settings

STRETCH = 256
"""Events of the stream that are sorted by scenario at once; LEARN too takes what has gathered in each topic."""

BASELINES: Mapping[str, Callable[[int, int, int], Baseline]] = {
    "popularity": lambda rows, scenarios, _: Popularity(rows, scenarios),
    "decayed-popularity": lambda rows, scenarios, _: DecayedPopularity(rows, scenarios),
    "item-knn": lambda rows, *_: ItemKNN(rows),
    "item-knn-tuned": lambda rows, *_: TunedItemKNN(rows),
    "ease": lambda rows, *_: Ease(rows),
    "sasrec-warm": lambda rows, _, seed: SasRec(rows, seed=seed),
}
"""Makers of the rivals, from rows, scenarios and seed."""


@dataclass(frozen=True)
class Student:
    """A way of running the learner, and the models whose lists it gives.

    Attributes:
        mixed: name of what is served: the mixer's order.
        neural: name of the tower by itself, in the order of its own scores.
        learns: whether the tower goes on learning after the warm-up.
        replays: whether old examples are learnt beside new ones.
    """

    mixed: str | None
    neural: str | None
    learns: bool = True
    replays: bool = True


STUDENTS = (
    Student("headstream", "no-mixer"),
    Student("static-mixed", "static", learns=False),
    Student("naive-mixed", "naive", replays=False),
)

MODELS = ("headstream", *BASELINES, "static", "naive", "static-mixed", "naive-mixed", "no-mixer")


@dataclass(frozen=True)
class Block:
    """A stretch of the stream, after which every probe set is ranked.

    Attributes:
        end: so many of the stream's examples lie before its end; after the warm-up.
        completes: scenarios whose lessons are all learnt with it.
    """

    name: str
    end: int
    completes: Sequence[str]


@dataclass(frozen=True)
class Stream:
    """What is to be learnt from.

    Attributes:
        texts: the encoder's vectors of the items; (items, encoder dimension).
        examples: as SERVE makes them, each with its scenario, in the order in which they happened; at least one.
        warm: so many of the first examples are learnt from and are no test.
        blocks: in order.
        probes: scenario → examples that are held out: none of them is learnt from.
    """

    items: Sequence[Item]
    texts: Tensor
    examples: Sequence[tuple[str, Example]]
    warm: int
    blocks: Sequence[Block] = ()
    probes: Mapping[str, Sequence[Example]] = field(default_factory=dict)


@dataclass
class Marks:
    """What one model did.

    Attributes:
        places: of the wanted item in each list, from 0; `DEPTH` where it was not among so many.
        refused: the same of items that were disliked or passed over.
        shown: rows that stood in a list.
        seconds: spent on ranking and learning, the warm-up included.
        retention: recall on the probe sets after each block; the window of all sets is 0.
    """

    places: list[NDArray[np.int64]] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    refused: list[NDArray[np.int64]] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    shown: set[int] = field(default_factory=set)
    seconds: float = 0.0
    retention: Retention = field(default_factory=Retention)

    def add(self, lists: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Mark lists of rows, best first; (tests, at least `DEPTH`)."""
        self.places.append(places_in(lists, target))
        self.shown.update(np.unique(lists[:, :DEPTH]).tolist())


def places_in(lists: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each row stands in its list, from 0; `DEPTH` where it is not among so many; (n,)."""
    match = lists[:, :DEPTH] == rows[:, None]
    return np.where(match.any(1), match.argmax(1), DEPTH)


@dataclass
class Results:
    """What one seed came to.

    Attributes:
        items: that some scenario may recommend.
        probes: examples in all probe sets.
        fingerprints: of what each run of the learner had learnt at its end, by the name of its model.
    """

    tested: Examined
    marks: dict[str, Marks]
    items: int
    probes: int
    fingerprints: dict[str, str]


def evaluate(
    settings: Settings,
    stream: Stream,
    models: Sequence[str],
    seed: int,
    warm_epochs: int,
    progress: Callable[[str, int], None],
) -> Results:
    """Run these models over the stream.

    Args:
        models: some of `MODELS`, at least one.
        warm_epochs: times that the tower learns the warm-up again at its end, as a start from history would.
        progress: told the name of the run under way and the number of examples it has done.
    """
    if unknown := set(models) - set(MODELS):
        raise ValueError(f"no such models: {', '.join(sorted(unknown))}")
    # What the learner held out by itself, its rivals would have learnt.
    learn = msgspec.structs.replace(settings.learn, seed=seed, probe_rows=0)
    rivals = [name for name in models if name in BASELINES]
    found: tuple[Examined, int, int] | None = None
    marks: dict[str, Marks] = {}
    fingerprints: dict[str, str] = {}
    for student in STUDENTS:
        wanted = {student.mixed, student.neural} & set(models)
        leads = student is STUDENTS[0]
        if not wanted and not (leads and rivals):
            continue
        changed = learn if student.replays else msgspec.structs.replace(learn, replay_batch=0)
        classroom = _Classroom(
            msgspec.structs.replace(settings, learn=changed), stream, student, rivals if leads else [], seed
        )
        classroom.run(warm_epochs, progress)
        marks |= {name: each for name, each in classroom.marks.items() if name in models}
        fingerprints[student.mixed or student.neural or ""] = classroom.fingerprint()
        found = found or (classroom.tested(), classroom.items(), classroom.probes())
    assert found is not None
    tested, items, probes = found
    return Results(tested, marks, items, probes, fingerprints)


class _Classroom:
    """One student, the rivals that sit beside it, and their marks."""

    def __init__(self, settings: Settings, stream: Stream, student: Student, rivals: Sequence[str], seed: int) -> None:
        self._stream = stream
        self._student = student
        self._learner = OnlineLearner(settings, stream.texts.shape[1], torch.device("cpu"))
        self._learner.on_exam = self._examine
        self._learner.put_items(stream.items, stream.texts)
        self._scenarios = tuple(settings.scenarios)
        self._history = settings.model.history
        self._rows = self._learner.table.allocated
        self._rivals = {name: BASELINES[name](self._rows, len(self._scenarios), seed) for name in rivals}
        self._users: dict[str, int] = {}
        self._uses = np.zeros(self._rows, np.int64)
        self._counting = False
        self._warmed: list[TrainingBatch] = []
        self._count = 0
        self._tests: dict[tuple[int, int], int] = {}
        self._disliked: set[int] = set()
        self._known = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))]
        self.marks = {name: Marks() for name in (student.mixed, student.neural, *rivals) if name is not None}
        self._probes = Probes(self._scenarios)
        self._quizzes: dict[Key, Trial] = {}
        for number, name in enumerate(self._scenarios):
            self._hold_out(number, stream.probes.get(name, ()))

    def run(self, warm_epochs: int, progress: Callable[[str, int], None]) -> None:
        examples, warm = self._stream.examples, self._stream.warm
        name = self._student.mixed or self._student.neural or ""
        ends = {block.end: block for block in self._stream.blocks}
        starts = sorted({*range(0, len(examples), STRETCH), warm, *ends} - {len(examples)})
        own = 0.0
        for start, end in zip(starts, [*starts[1:], len(examples)], strict=True):
            began = time.perf_counter() - self._rivals_seconds()
            if start == warm:
                self._finish_warm_up(warm_epochs)
            by_scenario: dict[str, list[Example]] = {name: [] for name in self._scenarios}
            for scenario, example in examples[start:end]:
                by_scenario[scenario].append(example)
            for scenario, some in by_scenario.items():
                self._learner.learn(scenario, some)
            own += time.perf_counter() - self._rivals_seconds() - began
            if end in ends:
                self._test_retention(ends[end])
            progress(name, end)
        for model in (self._student.mixed, self._student.neural):
            if model is not None:
                self.marks[model].seconds = own

    def tested(self) -> Examined:
        scenario, user, cold = (np.concatenate(column) for column in zip(*self._known, strict=True))
        return Examined(scenario, user, cold, np.isin(np.arange(len(user)), list(self._disliked)))

    def fingerprint(self) -> str:
        return self._learner.fingerprint()

    def items(self) -> int:
        return int(self._learner.table.eligible.any(0).sum())

    def probes(self) -> int:
        return len(self._probes)

    def _finish_warm_up(self, epochs: int) -> None:
        if self._warmed:
            self._learner.rehearse(TrainingBatch.joined(self._warmed), epochs)
        self._warmed.clear()
        self._learner.learns_tower = self._student.learns
        self._counting = True

    def _examine(self, exam: Exam) -> None:
        """Mark the student's lists, and let the rivals answer and learn the same micro-batch."""
        trial = self._trial(exam.scenario, exam.examples, exam.lessons)
        self._grow()
        tested = exam.tested.numpy()
        if self._counting and exam.ranking is not None:
            target = trial.target[tested]
            cold = self._uses[target] < COLD_USES
            self._known.append((np.full(len(tested), exam.scenario), trial.users[tested], cold))
            for pair in zip(trial.users[tested].tolist(), target.tolist(), strict=True):
                self._tests[pair] = self._count
                self._count += 1
            self._mark_student(exam.ranking, target)
        elif not self._counting:
            self._warmed.append(exam.lessons.batch)
        shelf = self._learner.table.eligible[exam.scenario].numpy()
        if self._counting:
            self._mark_refusals(exam, trial, shelf)
        for name, rival in self._rivals.items():
            marks, began = self.marks[name], time.perf_counter()
            if self._counting and len(tested):
                marks.add(rival.rank(trial.take(tested), shelf), trial.target[tested])
            rival.learn(trial)
            marks.seconds += time.perf_counter() - began
        np.add.at(self._uses, trial.uses().target, 1)

    def _mark_refusals(self, exam: Exam, trial: Trial, shelf: NDArray[np.bool_]) -> None:
        """Note where each model has what was not wanted, as it would have been shown at the time."""
        refusals = self._refusals(exam, trial, shelf)
        if not refusals:
            return
        at, rows = np.array(refusals, np.int64).T
        ranking = self._learner.examiner.rank(exam.scenario, exam.lessons.asked.take(torch.from_numpy(at)))
        for name, lists in self._lists(ranking).items():
            self.marks[name].refused.append(places_in(lists.numpy(), rows))
        for name, rival in self._rivals.items():
            self.marks[name].refused.append(places_in(rival.rank(trial.take(at), shelf), rows))

    def _refusals(self, exam: Exam, trial: Trial, shelf: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """Number of the example and row, of each item that was disliked or passed over and could have been shown.

        What was a test when its user took it, and is disliked only now, could not be shown again: of that it is noted
        that the test was of an item that was not wanted.
        """
        found = []
        for number, example in enumerate(exam.examples):
            pair = int(trial.users[number]), int(trial.target[number])
            if example.weight < 0 and pair in self._tests:
                self._disliked.add(self._tests[pair])
                continue
            names = [example.item_id] if example.weight < 0 else unpack(example.passed_over)
            for name, row in zip(names, self._learner.table.rows(names), strict=True):
                if row and shelf[row] and not holds(example.excluded, name):
                    found.append((number, row))
        return found

    def _mark_student(self, ranking: Ranking, target: NDArray[np.int64]) -> None:
        for name, lists in self._lists(ranking).items():
            self.marks[name].add(lists.numpy(), target)

    def _lists(self, ranking: Ranking) -> dict[str, Tensor]:
        """The lists of the student's models; (n, at most all candidates)."""
        lists = {}
        if self._student.mixed is not None:
            lists[self._student.mixed] = ranking.rows
        if self._student.neural is not None:
            neural = ranking.neural.masked_fill(ranking.rows == 0, -torch.inf)
            best = neural.topk(min(DEPTH, neural.shape[1]), 1).indices
            lists[self._student.neural] = ranking.rows.gather(1, best)
        return lists

    def _hold_out(self, scenario: int, examples: Sequence[Example]) -> None:
        placed = [(each, row) for each in examples if (row := self._learner.table.row_of.get(each.item_id))]
        if not placed:
            return
        lessons = as_lessons(self._learner.table, scenario, placed, self._history)
        known = [each for each, _ in placed]
        key = (scenario, 0)
        if self._probes.hold(key, lessons, [user_hash(each.user_id) for each in known]):
            testable = lessons.testable.nonzero().flatten().numpy()
            self._quizzes[key] = self._trial(scenario, known, lessons).take(testable)

    def _test_retention(self, block: Block) -> None:
        """Let the student and its rivals rank all probe sets, from which none of them ever learns."""
        recalls = self._probes.test(lambda scenario, batch: self._lists(self._learner.examiner.rank(scenario, batch)))
        for name, rival in self._rivals.items():
            recalls[name] = {key: self._rival_recall(rival, quiz) for key, quiz in self._quizzes.items()}
        for name, found in recalls.items():
            retention = self.marks[name].retention
            retention.add(found)
            for scenario in block.completes:
                retention.mark_learnt((self._scenarios.index(scenario), 0))

    def _rival_recall(self, rival: Baseline, quiz: Trial) -> float:
        shelf = self._learner.table.eligible[quiz.scenario].numpy()
        hits = 0
        for start in range(0, len(quiz.target), RANKED_AT_ONCE):
            part = quiz.take(np.arange(start, min(start + RANKED_AT_ONCE, len(quiz.target))))
            hits += int((rival.rank(part, shelf)[:, :DEPTH] == part.target[:, None]).sum())
        return hits / len(quiz.target)

    def _trial(self, scenario: int, examples: Sequence[Example], lessons: Lessons) -> Trial:
        asked, batch = lessons.asked, lessons.batch
        users = [self._users.setdefault(each.user_id, len(self._users)) for each in examples]
        return Trial(
            scenario=scenario,
            users=np.array(users, np.int64),
            history=asked.history.numpy(),
            target=batch.target.numpy(),
            weight=batch.weight.numpy(),
            excluded=asked.excluded.numpy(),
            now=np.array([each.time for each in examples]),
        )

    def _grow(self) -> None:
        """Items that had no record got rows beside the known ones."""
        rows = self._learner.table.allocated
        if rows > self._rows:
            self._rows = rows
            self._uses = np.concatenate([self._uses, np.zeros(rows - len(self._uses), np.int64)])
            for rival in self._rivals.values():
                rival.grow(rows)

    def _rivals_seconds(self) -> float:
        return sum(self.marks[name].seconds for name in self._rivals)


def coverage(marks: Marks, items: int) -> float:
    """Share of the items that stood in some list."""
    return len(marks.shown - {0}) / max(1, items)
