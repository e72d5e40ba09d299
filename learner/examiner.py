"""The examiner: ranks for examples as serving would have, and notes whether their items were near the top."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from learner.exam import Exam
from learner.items import ItemTable
from learner.lessons import Lessons, as_lessons
from learner.outcomes import DEPTH
from learner.ranking import Batch, Candidates, Ranking, ScenarioModel, Search, find, order
from learner.run import Run
from learner.shelf import search_shelf
from schemas.records import Example


class Examiner:
    """Tests what is learnt now; nothing here changes it.

    Attributes:
        search_of: gives the search for the scenario of a number; at first one that looks at all it may recommend.
    """

    def __init__(
        self, table: ItemTable, models: Sequence[ScenarioModel], run: Run, history: int, recall_window: int
    ) -> None:
        """Put together.

        Args:
            models: of the scenarios, in the order of their numbers.
            history: length of the histories.
            recall_window: so many of a scenario's newest tests make its recall.
        """
        self._table = table
        self._models = models
        self._run = run
        self._history = history
        self._recall_window = recall_window
        self.search_of: Callable[[int], Search] = partial(search_shelf, table)

    def rank(self, scenario: int, questions: Batch) -> Ranking:
        """What would be served in the scenario of this number; changes nothing."""
        return order(self._models[scenario], self._find(scenario, questions))

    def examine(self, scenario: str, examples: Sequence[Example]) -> Exam | None:
        """Test on the examples and note nothing; None if no item of theirs is known."""
        rows = self._table.rows([example.item_id for example in examples])
        placed = [(example, row) for example, row in zip(examples, rows, strict=True) if row]
        if not placed:
            return None
        number = self._table.scenarios.index(scenario)
        lessons = as_lessons(self._table, number, placed, self._history)
        _, tested, ranking = self._rank(number, lessons)
        return Exam(number, [each for each, _ in placed], lessons, tested, ranking)

    def test(self, scenario: int, lessons: Lessons) -> tuple[Candidates | None, Tensor, Ranking | None]:
        """Rank as serving would have, for the lessons that can be a test, and note whether the item was near the top.

        Returns:
            Candidates and ranking of each test, None if there were none; between them which lessons were a test;
            (tests,), int64.
        """
        candidates, tested, ranking = self._rank(scenario, lessons)
        if ranking is not None:
            hit = (ranking.rows[:, :DEPTH] == lessons.batch.target[tested, None]).any(1)
            self._run.progress[self._table.scenarios[scenario]].note(hit.tolist(), self._recall_window)
        return candidates, tested, ranking

    def _rank(self, scenario: int, lessons: Lessons) -> tuple[Candidates | None, Tensor, Ranking | None]:
        tested = lessons.testable.nonzero().flatten()
        if len(tested) == 0:
            return None, tested, None
        candidates = self._find(scenario, lessons.asked.take(tested))
        return candidates, tested, order(self._models[scenario], candidates)

    def _find(self, scenario: int, questions: Batch) -> Candidates:
        clocks, search = self._run.clocks(self._table.scenarios[scenario]), self.search_of(scenario)
        return find(self._models[scenario], self._table, scenario, clocks, questions, search, minimum=DEPTH)
