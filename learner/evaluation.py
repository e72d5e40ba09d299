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
from learner.online import Exam, OnlineLearner
from learner.outcomes import COLD_USES, DEPTH, Examined
from learner.ranking import Ranking
from learner.replay import TrainingBatch
from schemas.items import Item
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
    Student(None, "naive", replays=False),
)

MODELS = ("headstream", *BASELINES, "static", "naive", "static-mixed", "no-mixer")


@dataclass(frozen=True)
class Stream:
    """What is to be learnt from.

    Attributes:
        texts: the encoder's vectors of the items; (items, encoder dimension).
        examples: as SERVE makes them, each with its scenario, in the order in which they happened; at least one.
        warm: so many of the first examples are learnt from and are no test.
    """

    items: Sequence[Item]
    texts: Tensor
    examples: Sequence[tuple[str, Example]]
    warm: int


@dataclass
class Marks:
    """What one model did.

    Attributes:
        places: of the wanted item in each list, from 0; `DEPTH` where it was not among so many.
        shown: rows that stood in a list.
        seconds: spent on ranking and learning, the warm-up included.
    """

    places: list[NDArray[np.int64]] = field(default_factory=lambda: [np.zeros(0, np.int64)])
    shown: set[int] = field(default_factory=set)
    seconds: float = 0.0

    def add(self, lists: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Mark lists of rows, best first; (tests, at least `DEPTH`)."""
        match = lists[:, :DEPTH] == target[:, None]
        self.places.append(np.where(match.any(1), match.argmax(1), DEPTH))
        self.shown.update(np.unique(lists[:, :DEPTH]).tolist())


@dataclass
class Results:
    """What one seed came to.

    Attributes:
        items: that some scenario may recommend.
    """

    tested: Examined
    marks: dict[str, Marks]
    items: int


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
    learn = msgspec.structs.replace(settings.learn, seed=seed)
    rivals = [name for name in models if name in BASELINES]
    found: tuple[Examined, int] | None = None
    marks: dict[str, Marks] = {}
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
        found = found or (classroom.tested(), classroom.items())
    assert found is not None
    tested, count = found
    return Results(tested, marks, count)


class _Classroom:
    """One student, the rivals that sit beside it, and their marks."""

    def __init__(self, settings: Settings, stream: Stream, student: Student, rivals: Sequence[str], seed: int) -> None:
        self._stream = stream
        self._student = student
        self._learner = OnlineLearner(settings, stream.texts.shape[1], torch.device("cpu"))
        self._learner.on_exam = self._examine
        self._learner.put_items(stream.items, stream.texts)
        self._scenarios = tuple(settings.scenarios)
        self._rows = self._learner.table.allocated
        self._rivals = {name: BASELINES[name](self._rows, len(self._scenarios), seed) for name in rivals}
        self._users: dict[str, int] = {}
        self._uses = np.zeros(self._rows, np.int64)
        self._counting = False
        self._warmed: list[TrainingBatch] = []
        self._known = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))]
        self.marks = {name: Marks() for name in (student.mixed, student.neural, *rivals) if name is not None}

    def run(self, warm_epochs: int, progress: Callable[[str, int], None]) -> None:
        examples, warm = self._stream.examples, self._stream.warm
        name = self._student.mixed or self._student.neural or ""
        starts = sorted({*range(0, len(examples), STRETCH), warm} - {len(examples)})
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
            progress(name, end)
        for model in (self._student.mixed, self._student.neural):
            if model is not None:
                self.marks[model].seconds = own

    def tested(self) -> Examined:
        scenario, user, cold = (np.concatenate(column) for column in zip(*self._known, strict=True))
        return Examined(scenario, user, cold)

    def items(self) -> int:
        return int(self._learner.table.eligible.any(0).sum())

    def _finish_warm_up(self, epochs: int) -> None:
        if self._warmed:
            self._learner.rehearse(TrainingBatch.joined(self._warmed), epochs)
        self._warmed.clear()
        self._learner.learns_tower = self._student.learns
        self._counting = True

    def _examine(self, exam: Exam) -> None:
        """Mark the student's lists, and let the rivals answer and learn the same micro-batch."""
        trial = self._trial(exam)
        self._grow()
        tested = exam.tested.numpy()
        if self._counting and exam.ranking is not None:
            target = trial.target[tested]
            cold = self._uses[target] < COLD_USES
            self._known.append((np.full(len(tested), exam.scenario), trial.users[tested], cold))
            self._mark_student(exam.ranking, target)
        elif not self._counting:
            self._warmed.append(exam.lessons.batch)
        shelf = self._learner.table.eligible[exam.scenario].numpy()
        for name, rival in self._rivals.items():
            marks, began = self.marks[name], time.perf_counter()
            if self._counting and len(tested):
                marks.add(rival.rank(trial.take(tested), shelf), trial.target[tested])
            rival.learn(trial)
            marks.seconds += time.perf_counter() - began
        np.add.at(self._uses, trial.uses().target, 1)

    def _mark_student(self, ranking: Ranking, target: NDArray[np.int64]) -> None:
        if self._student.mixed is not None:
            self.marks[self._student.mixed].add(ranking.rows.numpy(), target)
        if self._student.neural is not None:
            neural = ranking.neural.masked_fill(ranking.rows == 0, -torch.inf)
            best = neural.topk(min(DEPTH, neural.shape[1]), 1).indices
            self.marks[self._student.neural].add(ranking.rows.gather(1, best).numpy(), target)

    def _trial(self, exam: Exam) -> Trial:
        asked, batch = exam.lessons.asked, exam.lessons.batch
        users = [self._users.setdefault(each.user_id, len(self._users)) for each in exam.examples]
        return Trial(
            scenario=exam.scenario,
            users=np.array(users, np.int64),
            history=asked.history.numpy(),
            target=batch.target.numpy(),
            weight=batch.weight.numpy(),
            excluded=asked.excluded.numpy(),
            now=np.array([each.time for each in exam.examples]),
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
