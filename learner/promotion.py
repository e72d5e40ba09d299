"""Promotion: what a scenario has learnt is compared with its good version, takes its place, or gives way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.checkpoint import Checkpoint
from learner.facts import Facts
from learner.gate import Standing, Verdict
from learner.good import GoodVersions, model_in
from learner.items import ItemTable
from learner.lessons import Lessons
from learner.outcomes import DEPTH
from learner.parts import TABLE, Parts
from learner.progress import Progress
from learner.publication import Served
from learner.ranking import Clocks, Ranking, ScenarioModel
from learner.replay import Replay
from learner.texts import ItemTexts
from learner.training import Trainer
from schemas.control_group import in_control_group
from schemas.records import Example
from schemas.settings import Model, Settings

LARGEST_WEIGHT = 1e4
LONGEST_VECTOR = 1e3
"""Weights and vectors of any use stay orders of magnitude below; beyond, learning has run away."""


class UnknownScenario(Exception):
    """A checkpoint was made before the scenario was there.

    Attributes:
        scenario: that was asked for, and `known`: those that it holds.
    """

    def __init__(self, scenario: str, known: Sequence[str]) -> None:
        self.scenario = scenario
        self.known = tuple(known)
        super().__init__(f'the checkpoint knows nothing of scenario "{scenario}", only of {", ".join(known)}')


@dataclass(frozen=True)
class Earlier:
    """A version of a scenario as a checkpoint holds it."""

    checkpoint: Checkpoint
    facts: Facts
    scenario: str

    @property
    def there(self) -> int:
        """The scenario's number in it."""
        return self.facts.scenarios.index(self.scenario)

    @property
    def progress(self) -> Progress:
        return self.facts.progress[self.scenario]

    @property
    def clocks(self) -> Clocks:
        return Clocks(self.facts.clock, self.progress.clock)

    def table(self, sizes: Model, device: torch.device) -> ItemTable:
        """The items as it knows them."""
        table = ItemTable(self.facts.scenarios, sizes, device)
        prefix = f"{TABLE}/"
        tensors = self.checkpoint.tensors
        state = {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
        table.load(state, self.facts.names)
        return table


class Promotion:
    """How each scenario stands to its good version, and what moves it from one standing to another.

    Attributes:
        good: the good versions.
        standings: by scenario, in the order of their numbers.
        rollbacks: of any scenario since the process began.
    """

    def __init__(
        self,
        settings: Settings,
        table: ItemTable,
        models: Sequence[ScenarioModel],
        texts: ItemTexts,
        trainer: Trainer,
        replay: Replay,
        parts: Parts,
    ) -> None:
        self._gate = settings.gate
        self._sizes = settings.model
        self._control = {name: scenario.control for name, scenario in settings.scenarios.items()}
        self._table = table
        self._models = models
        self._texts = texts
        self._trainer = trainer
        self._replay = replay
        self._parts = parts
        self.rollbacks = 0
        self.load({})

    def load(self, standings: Mapping[str, Standing]) -> None:
        """Begin from these standings, as far as they are of the present scenarios; no good version is known yet."""
        self.good = GoodVersions(self._table, self._sizes)
        self.standings = {name: standings.get(name, Standing()) for name in self._table.scenarios}

    # What the gate sees

    def compare(
        self, scenario: int, examples: Sequence[Example], lessons: Lessons, tested: Tensor, ranking: Ranking
    ) -> None:
        """Rank a share of the micro-batches by the good version too, and bet on the difference.

        Args:
            examples: beside `lessons`.
            tested: which of the lessons were a test; (tests,), int64.
            ranking: what was learnt gave for these.
        """
        name = self._table.scenarios[scenario]
        self.standings[name].meet(examples, self._gate.settled_seconds)
        standing, control = self.standings[name], self._control[name]
        if scenario not in self.good or not standing.takes_turn(self._gate.share):
            return
        voters = [
            place
            for place, at in enumerate(tested.tolist())
            if standing.may_vote(examples[at], control=in_control_group(examples[at].user_id, name, control))
        ]
        if not voters:
            return
        voting = tested[voters]
        target = lessons.batch.target[voting, None]
        before = self.good.rank(scenario, lessons.asked.take(voting)).rows
        hits = [(rows[:, :DEPTH] == target).any(1).int() for rows in (ranking.rows[voters], before)]
        standing.test.update((hits[0] - hits[1]).tolist(), self._gate.margin)

    def verdicts(self, progress: Mapping[str, Progress]) -> dict[str, Verdict]:
        """What can be said of each scenario that learns.

        One without a good version yet is to be passed, and so is one that is so young that nobody can have a say.
        """
        return {
            name: self._verdict(each, progress[name].oldest) for name, each in self.standings.items() if each.learning
        }

    def _verdict(self, standing: Standing, oldest: float) -> Verdict:
        gate = self._gate
        if standing.good is None or standing.known_until < oldest:
            return "passed"
        verdict = standing.test.verdict(gate.least_pairs, gate.margin, gate.error)
        # What newcomers have taught nobody has judged.
        return "undecided" if verdict == "passed" and standing.newcomers > gate.newcomers else verdict

    def is_doubtful(self, name: str, progress: Mapping[str, Progress]) -> bool:
        """Whether a scenario serves what newcomers have taught, though it had a good version before they came."""
        standing = self.standings[name]
        served = standing.learning and standing.restores is None and standing.good is not None
        young = standing.known_until < progress[name].oldest
        return served and not young and standing.newcomers > self._gate.newcomers

    def unfit(self, rows: Tensor) -> dict[str, str]:
        """Scenarios whose weights, or vectors of these rows, are no numbers or out of all proportion, and how.

        Args:
            rows: that have changed; (n,), int64.
        """
        found = {}
        sizes = self._table.vectors[rows].norm(dim=1)
        wild = ~(sizes <= LONGEST_VECTOR)  # what is no number is wild too
        for number, (name, model) in enumerate(zip(self._table.scenarios, self._models, strict=True)):
            largest = float(torch.stack([each.abs().max() for each in model.state_dict().values()]).max())
            biases = self._table.bias[number, rows].abs()
            if not largest <= LARGEST_WEIGHT:
                found[name] = f"a weight of size {largest:g}; {LARGEST_WEIGHT:g} is allowed"
            elif not bool((biases <= LARGEST_WEIGHT).all()):
                found[name] = f"an item's bias of size {float(biases.max()):g}; {LARGEST_WEIGHT:g} is allowed"
            elif bool((wild & self._table.eligible[number, rows]).any()):
                longest = float(sizes[self._table.eligible[number, rows]].max())
                found[name] = f"an item's vector of length {longest:g}; {LONGEST_VECTOR:g} is allowed"
        return found

    # What becomes of it

    def pause(self, name: str, through: Mapping[int, int]) -> None:
        """Learn nothing more in this scenario, which has learnt up to these offsets."""
        standing = self.standings[name]
        standing.learning = False
        if standing.restores is None:
            standing.through = dict(through)

    def resume(self, name: str) -> None:
        """Learn again in this scenario."""
        standing = self.standings[name]
        standing.learning = True
        if standing.restores is None:
            standing.through = None

    def promote(self, name: str, progress: Progress, clocks: Clocks) -> None:
        """Take what is learnt now, and was published last, for the good version, and serve it."""
        number = self._table.scenarios.index(name)
        self.good.take(number, self._models[number], clocks)
        self.good.held.discard(number)
        before = self.standings[name]
        through = None if before.learning else before.through
        self.standings[name] = Standing(
            learning=before.learning,
            good=progress.version,
            through=through,
            known_until=progress.newest - self._gate.settled_seconds,
            turn=before.turn,
            newcomers=before.newcomers,
        )

    def adopt(self, name: str, earlier: Earlier) -> None:
        """Know the good version again that a standing speaks of, after all was loaded from another checkpoint."""
        number, table = self._table.scenarios.index(name), earlier.table(self._sizes, self._table.vectors.device)
        model = model_in(earlier.checkpoint.tensors, self._sizes, earlier.there)
        self.good.take_from(number, model, earlier.clocks, table, earlier.there, self._known_to(table))
        if self.standings[name].restores is not None:
            self.good.held.add(number)

    def roll_back(self, name: str, earlier: Earlier, version: int, newest: float, *, learning: bool) -> Tensor:
        """Go back to an earlier version, which is served until another one is promoted.

        Head, biases, counts, mixer and replay of the scenario become what they were, and so do its own items. What
        others share stays as it is: the trunk is the earlier one for this scenario's users, and for nobody else.

        Args:
            version: that `earlier` holds.
            newest: time of the newest example, epoch seconds: who was settled by then has a say in what comes next,
                however old the version is.
            learning: whether to learn on from there.

        Returns:
            The rows of the items that are not as they were; (n,), int64.
        """
        number, table, device = self._table.scenarios.index(name), self._table, self._table.vectors.device
        then, tensors = earlier.table(self._sizes, device), earlier.checkpoint.tensors
        known = self._known_to(then)
        own = table.own(number)
        own = own[torch.isin(own, known)]
        self.rollbacks += 1
        # 1. what learns, 2. the items, 3. what was remembered of items that are gone, 4. what is served meanwhile.
        self._parts.take_scenario(tensors, earlier.there, number)
        shifts = self._texts.shifts(own, tensors)
        table.take_scenario(then, earlier.there, number, known, own)
        table.vectors[own] += shifts
        self._trainer.settle_items(own)
        gone = torch.ones(max(table.allocated, then.allocated), dtype=torch.bool, device=device)
        gone[known] = False
        gone[0] = False
        self._replay.forget_rows(number, gone)
        model = model_in(tensors, self._sizes, earlier.there)
        self.good.take_from(number, model, earlier.clocks, then, earlier.there, known)
        self.good.shift(own, shifts)
        self.good.held.add(number)
        self.standings[name] = Standing(
            learning=learning,
            restores=version,
            good=version,
            through=dict(earlier.progress.through),
            known_until=newest - self._gate.settled_seconds,
            newcomers=self.standings[name].newcomers,
        )
        return (table.eligible[number] | _mask(own, table.allocated)).nonzero().flatten()

    # What is served

    def served(self, clock: float, progress: Mapping[str, Progress]) -> list[Served]:
        """What ranks each scenario for its users, in the order of their numbers.

        Args:
            clock: over all scenarios.
        """
        found = []
        for number, name in enumerate(self._table.scenarios):
            standing, model, clocks = self.standings[name], self._models[number], Clocks(clock, progress[name].clock)
            if number in self.good.held:
                model, clocks = self.good.model(number), self.good.clocks(number)
            through = progress[name].through if standing.through is None else standing.through
            found.append(Served(model, clocks, through, standing.restores))
        return found

    def _known_to(self, then: ItemTable) -> Tensor:
        """The rows that hold the same items in another table as now; (n,), int64."""
        names = then.id_of
        rows = [row for name, row in self._table.row_of.items() if row < len(names) and names[row] == name]
        return torch.tensor(sorted(rows), dtype=torch.long, device=self._table.vectors.device)


def _mask(rows: Tensor, length: int) -> Tensor:
    mask = torch.zeros(length, dtype=torch.bool, device=rows.device)
    mask[rows] = True
    return mask
