"""A run of learning: its name, and how far it has come, over all scenarios and in each."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from learner.checkpoint import Checkpoint
from learner.facts import Facts
from learner.progress import Progress
from learner.ranking import Clocks


class Run:
    """All that is counted of one learner.

    Attributes:
        lineage: names this run; a checkpoint carries it on.
        step: gradient steps taken.
        skipped_steps: gradient steps that were not taken because the loss was not finite.
        left_out: items that got no row because the table is full.
        clock: uses counted, over all scenarios.
        progress: of each scenario, in the order of their numbers.
    """

    def __init__(self, scenarios: Sequence[str]) -> None:
        self.lineage = str(uuid.uuid4())
        self.step = 0
        self.skipped_steps = 0
        self.left_out = 0
        self.clock = 0.0
        self.progress = {name: Progress() for name in scenarios}

    @property
    def recall(self) -> dict[str, float | None]:
        """Prequential recall@10 of each scenario's recent examples; None before the first."""
        return {name: progress.recall for name, progress in self.progress.items()}

    @property
    def examples(self) -> dict[str, int]:
        """How many each scenario has learnt from."""
        return {name: progress.examples for name, progress in self.progress.items()}

    def clocks(self, name: str) -> Clocks:
        """By which a scenario ranks now."""
        return Clocks(self.clock, self.progress[name].clock)

    def count(self, name: str, uses: int) -> None:
        """So many uses were counted in a scenario."""
        self.clock += uses
        self.progress[name].clock += uses

    def begin_stream(self) -> None:
        """Call what was learnt so far the past: no offset, count or recall of it is part of the stream that begins."""
        for progress in self.progress.values():
            progress.begin_stream()

    def succeed(self, earlier: Checkpoint) -> None:
        """Take another learner's place in its stream: what it has learnt from is past here too, its counts go on."""
        for name, progress in Facts.read(earlier.facts, {}).progress.items():
            if name in self.progress:
                self.progress[name].succeed(progress)

    def load(self, facts: Facts) -> None:
        """Go on as a checkpoint's run; scenarios that it knows nothing of begin."""
        self.lineage = facts.lineage
        self.step = facts.step
        self.skipped_steps = facts.skipped_steps
        self.left_out = facts.left_out
        self.clock = facts.clock
        self.progress = {name: facts.progress.get(name, Progress()) for name in self.progress}
