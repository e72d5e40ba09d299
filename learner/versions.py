"""Versions: every publication makes one of each scenario, and people and the gate say which of them is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from learner.checkpoint import Checkpoint
from learner.facts import Facts
from learner.gate import Standing, Verdict
from learner.items import ItemTable
from learner.promotion import Earlier, Promotion, UnknownScenario
from learner.publication import Described, News, Publication, Stand, weights_of
from learner.run import Run
from schemas.topics import Topics


class Versions:
    """What of a learner is published, and what becomes of that."""

    def __init__(
        self,
        table: ItemTable,
        run: Run,
        promotion: Promotion,
        news: News,
        topics: Topics,
        made_for: Mapping[str, object],
        least_pairs: int,
        wall_clock: Callable[[], float],
    ) -> None:
        """Put together; nothing is published yet.

        Args:
            made_for: what a checkpoint must have been made with, to hold versions of this learner.
            least_pairs: tests of a scenario before its first version can be good.
            wall_clock: epoch seconds, to date publications with.
        """
        self._table = table
        self._run = run
        self._promotion = promotion
        self._news = news
        self._topics = topics
        self._made_for = made_for
        self._least_pairs = least_pairs
        self._wall_clock = wall_clock

    # What is published

    def publish(self) -> Publication | None:
        """What is news since the last publication; None if nothing is."""
        changed = self._news.changed()
        # Where the good version is served, what is learnt meanwhile is nobody's news.
        rows = [row for row, held in zip(changed, self._promotion.good.serves(changed), strict=True) if not held]
        return self._publication(rows) if rows or self._news.weights else None

    def republish(self) -> Publication:
        """Everything, for readers that may have none of it."""
        return self._publication(list(self._table.row_of.values()))

    def _publication(self, rows: list[int]) -> Publication:
        self._news.tell(rows)
        self._news.weights = False
        for progress in self._run.progress.values():
            progress.version += 1
        stand = Stand(self._run.lineage, self._run.step, self._wall_clock())
        served = self._promotion.served(self._run.clock, self._run.progress)
        return Publication(
            Described(self._promotion.good, rows), weights_of(self._run.progress, served, self._topics, stand)
        )

    # What is said of it

    def verdicts(self) -> dict[str, Verdict]:
        """What the gate says of each scenario that is learning."""
        return {
            name: "undecided"
            if verdict == "passed" and self._run.progress[name].tested < self._least_pairs
            else verdict
            for name, verdict in self._promotion.verdicts(self._run.progress).items()
        }

    def is_doubtful(self, name: str) -> bool:
        """Whether a scenario serves what newcomers have taught, though it had a good version before they came."""
        return self._promotion.is_doubtful(name, self._run.progress)

    def unfit(self) -> dict[str, str]:
        """Scenarios of which something must not be published, and what."""
        return self._promotion.unfit(self._news.suspected())

    def figures(self, name: str) -> dict[str, float]:
        """Numbers by which people tell versions of a scenario apart."""
        progress = self._run.progress[name]
        recall = {} if progress.recall is None else {"recall@10": progress.recall}
        return {**recall, "examples": progress.examples, "tested": progress.tested, "hits": progress.hits}

    # What becomes of it

    def pause(self, name: str) -> None:
        """Test on this scenario's examples and learn nothing from them."""
        self._promotion.pause(name, self._run.progress[name].through)

    def resume(self, name: str) -> None:
        """Learn from this scenario's examples again, from the next one on."""
        self._promotion.resume(name)

    def promote(self, name: str) -> int:
        """Take what a scenario has learnt for its good version, and serve it; returns that version's number."""
        number, progress = self._table.scenarios.index(name), self._run.progress[name]
        if number in self._promotion.good.held:
            self._news.touch(self._table.eligible[number].nonzero().flatten())
            self._news.weights = True
        self._promotion.promote(name, progress, self._run.clocks(name))
        return progress.version

    def roll_back(self, name: str, checkpoint: Checkpoint, version: int, *, learning: bool) -> Publication:
        """Go back to an earlier version of one scenario, which is served until another one is promoted.

        Args:
            checkpoint: of this lineage, that holds the version.
            version: its number.
            learning: whether to learn on from there.

        Returns:
            What is to be published, so that it is served.

        Raises:
            CheckpointMismatch: the settings describe another model; nothing has changed then.
            OtherVersion: another version of Headstream wrote the checkpoint; nothing has changed then.
            UnknownScenario: the checkpoint knows nothing of the scenario; nothing has changed then.
        """
        earlier = self._earlier(name, checkpoint)
        progress = self._run.progress[name]
        rows = self._promotion.roll_back(name, earlier, version, progress.newest, learning=learning)
        progress.clock = earlier.progress.clock
        return self._publication([row for row in rows.tolist() if self._table.id_of[row] is not None])

    # After all was loaded

    def load(self, standings: Mapping[str, Standing]) -> None:
        """Begin from these standings, with nothing published; `adopt_good` tells what their good versions are."""
        self._news.begin()
        self._news.weights = True
        self._promotion.load(standings)

    def adopt_good(self, name: str, checkpoint: Checkpoint) -> None:
        """What the scenario's standing calls its good version is in this checkpoint.

        Raises:
            CheckpointMismatch, OtherVersion, UnknownScenario: as `roll_back`.
        """
        self._promotion.adopt(name, self._earlier(name, checkpoint))

    def _earlier(self, name: str, checkpoint: Checkpoint) -> Earlier:
        facts = Facts.read(checkpoint.facts, self._made_for)
        if name not in facts.progress:
            raise UnknownScenario(name, facts.scenarios)
        return Earlier(checkpoint, facts, name)
