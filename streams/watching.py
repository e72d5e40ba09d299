"""Watching: what LEARN's monitor sees is written down every few seconds, and what changed for the worse is reported."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from confluent_kafka import KafkaException
from sqlalchemy.exc import DBAPIError

from learner.exam import Exam
from learner.finding import Verdict
from learner.online import OnlineLearner
from schemas.reports import DriftReport
from schemas.settings import Settings
from schemas.topics import Topics
from streams.history import History, Measured
from streams.outbox import Outbox, PublishFailed
from streams.reporting import Reporter
from streams.store import Store

log = logging.getLogger(__name__)

TALLY_SECONDS = 1.0
"""How often what SERVE counts is looked at."""

WRITE_SECONDS = 5.0
PRUNE_SECONDS = 600.0

UNWRITTEN_KEPT = 20_000
"""Of what could not be written, the newest so many are tried again the next time."""

DEAD = "dead:"

SERVED_LOADS = ("lag", "latency_milliseconds")
"""What SERVE measures of itself and writes down, and the monitor judges."""
SERVED_SECONDS = 2 * WRITE_SECONDS
"""How far back that is read: as often as it is looked at, SERVE has written once at least."""

Tallies = Mapping[tuple[str, str], int]
Cells = Sequence[Mapping[str, object]]
Loads = Mapping[str, Mapping[str, float]]


@dataclass
class Seen:
    """What was seen since the last time."""

    measured: list[Measured]
    reports: list[DriftReport]
    matrices: dict[str, Cells]
    verdicts: dict[tuple[str, str], Verdict]


class Watching:
    """Feeds the monitor of one LEARN with what only the shell can know, and passes on what it says.

    The monitor belongs to the thread that learns; database and broker are spoken to on another one. Whatever fails
    there is logged and tried again: LEARN goes on.

    Attributes:
        knows_avalanche: whether its metrics can be had without waiting for them.
    """

    def __init__(self, settings: Settings, broker: str, store: Store, learner: OnlineLearner) -> None:
        """Put together; before `run` nothing is written, and no exam is looked at."""
        self._topics = Topics(settings)
        self._scenarios = tuple(settings.scenarios)
        self._micro_batch = settings.learn.micro_batch
        self._store = store
        self._learner = learner
        self._history = History(store.engine)
        self._outbox = Outbox(broker)
        self._reporter = Reporter(self._outbox, self._topics.drift, self._history)
        self._counted: dict[tuple[str, str], int] = {}
        self._examples: Mapping[str, int] = learner.run.examples
        self._looked_at = time.time()
        self._tested: set[str] = set()
        self._unwritten: list[Measured] = []
        self._matrices: dict[str, Cells] = {}
        self._verdicts: dict[tuple[str, str], Verdict] = {}
        self._pruned_at = 0.0
        self.knows_avalanche = False

    async def run(self, thread: Executor) -> None:
        """Go on for ever; the monitor is spoken to on `thread`."""
        loop = asyncio.get_running_loop()
        looks = 0
        with ThreadPoolExecutor(1, thread_name_prefix="watching") as writing:
            await loop.run_in_executor(writing, _load_adwin)
            self._learner.on_exam = self.examine
            while True:
                await asyncio.sleep(TALLY_SECONDS)
                if tallies := await loop.run_in_executor(writing, self.read):
                    await loop.run_in_executor(thread, self.count, tallies, time.time())
                looks += 1
                if looks * TALLY_SECONDS >= WRITE_SECONDS:
                    looks = 0
                    loads = await loop.run_in_executor(writing, self.read_loads, time.time())
                    await loop.run_in_executor(thread, self.hear, loads)
                    seen = await loop.run_in_executor(thread, self.look, time.time())
                    written = await loop.run_in_executor(writing, self.write, seen, time.time())
                    await loop.run_in_executor(thread, self._learner.monitor.written, written)

    # On the thread that learns

    def examine(self, exam: Exam) -> None:
        """Give an exam to the monitor."""
        self._learner.monitor.examine(exam, time.time())

    def worked(self, scenario: str, examples: int, seconds: float) -> None:
        """So long it took to test on so many new examples, and to learn from them."""
        steps = -(-examples // self._micro_batch)
        self._learner.monitor.observe(scenario, "step_milliseconds", steps, 1000 * seconds, time.time())

    def test_probes(self) -> None:
        """Test a scenario on its probe sets, before a checkpoint; the next look takes its matrix along."""
        name = self._learner.hold_out.test(time.time())
        if name is not None:
            self._tested.add(name)

    def count(self, tallies: Tallies, now: float) -> None:
        """Take in what SERVE has counted since the last time; what came before the first time is no news."""
        if not self._counted:
            self._counted = dict(tallies)
        monitor, learnt = self._learner.monitor, self._learner.run.examples
        for name in self._scenarios:
            topic = self._topics.events(name)
            for signal, many, few in (
                ("click_rate", "lists", "clicks"),
                ("control_click_rate", "control_lists", "control_clicks"),
            ):
                lists = self._new(tallies, topic, many)
                if lists > 0:  # clicks on lists of before wait for the next ones
                    clicks = self._new(tallies, topic, few)
                    monitor.observe(name, signal, lists, max(0, clicks), now)
                    self._keep(tallies, topic, many, few)
            events = self._new(tallies, topic, "events")
            dead = [code for where, code in tallies if where == topic and code.startswith(DEAD)]
            lost = sum(self._new(tallies, topic, code) for code in dead)
            monitor.observe(name, "dead_letter_rate", events + lost, lost, now)
            self._keep(tallies, topic, "events", *dead)
            behind = max(0, tallies.get((topic, "events"), 0) - learnt[name])
            monitor.observe(name, "learning_lag", 1, behind, now)

    def hear(self, loads: Loads) -> None:
        """Take in what SERVE has measured of itself, by scenario and signal."""
        for name, values in loads.items():
            for signal, value in values.items():
                self._learner.monitor.hear(name, signal, value)

    def look(self, now: float) -> Seen:
        """Ask the monitor what it has seen."""
        learner, monitor = self._learner, self._learner.monitor
        passed, examples = max(1e-3, now - self._looked_at), learner.run.examples
        for name, count in examples.items():
            monitor.observe(name, "examples", 1, max(0, count - self._examples.get(name, count)) / passed, now)
        self._examples, self._looked_at = examples, now
        monitor.tick(now)
        matrices: dict[str, Cells] = {}
        for name in self._tested:
            course = learner.forgetting.courses[name]
            matrices[name] = [cell._asdict() for cell in course.cells()]
            if self.knows_avalanche:
                for signal, value in (
                    ("forgetting", course.forgetting()),
                    ("backward_transfer", course.backward_transfer()),
                ):
                    if value is not None:
                        monitor.observe(name, signal, 1, value, now)
        self._tested = set()
        measured = [Measured(each[0], each[1], now, *each[2:]) for each in monitor.take_observed()]
        verdicts = {
            (name, signal): verdict for name in self._scenarios for signal, verdict in monitor.verdicts(name).items()
        }
        return Seen(measured, monitor.reports, matrices, verdicts)

    # Beside it

    def read(self) -> Tallies:
        """What SERVE has counted; nothing if the database does not say."""
        try:
            return self._store.tallies()
        except DBAPIError as error:
            log.warning("what SERVE counts is not known: %s", _said(error))
            return {}

    def read_loads(self, now: float) -> Loads:
        """What SERVE has measured of itself lately; nothing if it does not run, or the database does not say."""
        try:
            found = self._history.newest(self._scenarios, SERVED_LOADS, now - SERVED_SECONDS)
        except DBAPIError as error:
            log.warning("what SERVE measures is not known: %s", _said(error))
            return {}
        return {name: {signal: point.mean for signal, point in points.items()} for name, points in found.items()}

    def write(self, seen: Seen, now: float) -> list[DriftReport]:
        """Write down what was seen, and what could not be written before; returns the reports that are on their way."""
        self._unwritten = [*self._unwritten, *seen.measured][-UNWRITTEN_KEPT:]
        self._matrices |= seen.matrices
        try:
            self._history.add(self._unwritten)
            self._unwritten = []
            for name in list(self._matrices):
                self._history.replace_probe_recalls(name, self._matrices[name])
                del self._matrices[name]
            changed = {key: verdict for key, verdict in seen.verdicts.items() if self._verdicts.get(key) != verdict}
            self._history.save_verdicts(
                [{"scenario": name, "signal": signal, **each._asdict()} for (name, signal), each in changed.items()]
            )
            self._verdicts |= changed
            if now - self._pruned_at >= PRUNE_SECONDS:
                self._history.prune(now)
                self._pruned_at = now
        except DBAPIError as error:
            log.warning("what was measured is not written yet: %s", _said(error))
        try:
            self._reporter.say(seen.reports)
        except (PublishFailed, KafkaException) as error:
            log.warning("%d reports are not sent yet: %s", len(seen.reports), error)
            return []
        return seen.reports

    def close(self) -> None:
        self._outbox.close()

    def _new(self, tallies: Tallies, topic: str, code: str) -> int:
        """How many there are more than were kept."""
        return tallies.get((topic, code), 0) - self._counted.get((topic, code), 0)

    def _keep(self, tallies: Tallies, topic: str, *codes: str) -> None:
        for code in codes:
            self._counted[topic, code] = tallies.get((topic, code), 0)


def _load_adwin() -> None:
    """It takes a second or two, which nobody who waits for what is learnt shall notice."""
    import river.drift  # noqa: F401


def _said(error: DBAPIError) -> str:
    """What the database said, in a line."""
    return str(error.orig or error).splitlines()[0]
