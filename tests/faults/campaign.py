"""The campaign: rounds of seeded faults on a running system, several at once, each round followed by a check."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from streams.worker import EXIT_CONFIGURATION
from tests.faults.checker import Checker
from tests.faults.faults import FAULTS, Fault, Field
from tests.faults.recovery import Recovery, percentiles
from tests.faults.system import STOPPING, NotWithin, System, until
from tests.faults.workload import SCENARIOS, Workload
from tests.postgres import PostgresServer

log = logging.getLogger(__name__)

RATE = 25.0
PACE_SECONDS = 5.0
"""Between the starts of two faults, in the mean."""
TURN_SECONDS = 0.2
EVENTS_OF_ANOTHER_TOPIC = 20


@dataclass
class Outcome:
    """What was seen so far.

    Attributes:
        by_kind: faults that really struck.
        missed: those that struck nothing.
        events: of all systems so far, less those of the present one before its first check.
        problems: each with the seed and the round in which it was found.
    """

    by_kind: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    problems: list[str] = field(default_factory=list)
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    endings: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> int:
        return self.by_kind.total()

    @property
    def good(self) -> bool:
        return not (self.lost or self.duplicated or self.problems)

    def as_dict(self) -> dict[str, object]:
        return {
            "faults": self.faults,
            "events": self.events,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "by_kind": dict(sorted(self.by_kind.items())),
            "recovery_seconds": percentiles(self.recovery),
            "missed": dict(sorted(self.missed.items())),
            "problems": self.problems,
        }


def deck(chance: random.Random, faults: Sequence[Fault]) -> Iterator[Fault]:
    """All kinds in some order, again and again."""
    while True:
        shuffled = list(faults)
        chance.shuffle(shuffled)
        yield from shuffled


class Siege:
    """One system under attack, from its start to its end; as a context manager.

    A seed decides which faults come in which order, and the events; how they fall together is up to the machine.

    Attributes:
        system, checker: what is attacked, and who looks at it.
    """

    def __init__(self, folder: Path, seed: int, database: str, outcome: Outcome, rate: float = RATE) -> None:
        self._seed = seed
        self._outcome = outcome
        self._round = 0
        self._random = random.Random(seed)
        self._postgres = PostgresServer().__enter__() if database == "postgresql" else None
        self._events = 0
        self._deaths = 0
        try:
            self.system = System(folder, self._postgres)
            self.system.__enter__()
        except BaseException:
            if self._postgres is not None:
                self._postgres.__exit__(None, None, None)
            raise
        self._workload = Workload(self.system, rate, seed)
        self._recovery = Recovery(self.system, self._workload)
        self.checker = Checker(self.system, self._workload)
        self._field = Field(self.system, self._workload, self._recovery, self.checker, self._random)

    def __enter__(self) -> Siege:
        return self

    def __exit__(self, *_: object) -> None:
        self._workload.close()
        self._recovery.close()
        self.checker.close()
        self.system.__exit__(None, None, None)
        if self._postgres is not None:
            self._postgres.__exit__(None, None, None)

    def run_round(
        self, faults: Sequence[Fault], tell: Callable[[str], None] = lambda _: None, pace: float = PACE_SECONDS
    ) -> bool:
        """Let these faults strike, at once where they do not meet, then check; returns whether all is well."""
        self._round += 1
        self._workload.resume()
        taken: set[str] = set()
        turn = threading.Condition()
        threads = []
        for fault in faults:
            with turn:
                while taken & fault.needs and not STOPPING.is_set():
                    turn.wait(TURN_SECONDS)
                taken |= fault.needs
            thread = threading.Thread(target=self._strike, args=(fault, taken, turn, tell), name=fault.kind)
            thread.start()
            threads.append(thread)
            if STOPPING.wait(self._random.uniform(0.5 * pace, 1.5 * pace)):
                break
        for thread in threads:
            thread.join()
        return not STOPPING.is_set() and self._check(tell)

    def make_topic_anew(self) -> None:
        """Delete an events topic and make it again: SERVE must end, saying why, and work nothing of the new one.

        Only a fresh data folder gets on from there, so this is the last that befalls a system.
        """
        system, topic = self.system, self.system.topics.events(self._random.choice(SCENARIOS))
        log.info("the end: %s is made anew", topic)
        before, deaths = system.serve_store.tallies(), len(system.deaths)
        client = AdminClient({"bootstrap.servers": system.broker.address, "log_level": 2})
        client.delete_topics([topic])[topic].result(30)
        until(lambda: topic not in client.list_topics(timeout=30).topics, f"{topic} is gone")
        client.create_topics([NewTopic(topic, system.partitions, 1)])[topic].result(30)
        producer = Producer({"bootstrap.servers": system.broker.address, "log_level": 2})
        for number in range(EVENTS_OF_ANOTHER_TOPIC):
            producer.produce(topic, b'{"user_id": "u%d", "item_id": "i1", "event": "view"}' % number, b"u%d" % number)
        assert producer.flush(60) == 0
        try:
            until(lambda: system.deaths[deaths + 1 :], "SERVE ends, and once more after its new start")
        except NotWithin as never:
            self._problem(f"{topic} was made anew: {never}")
            return
        self._outcome.by_kind["topic made anew"] += 1
        for death in system.deaths[deaths:]:
            self._outcome.endings[f"{death.name} {death.code}"] += 1
            if death.code != EXIT_CONFIGURATION or topic not in death.last_words:
                self._problem(f"{topic} was made anew, and {death.name} ended with {death.code}: {death.last_words}")
        after = system.serve_store.tallies()
        if after != before:
            self._outcome.duplicated += (after - before).total()
            self._problem(f"of {topic}, which was made anew, events were worked: {after - before}")

    def _strike(self, fault: Fault, taken: set[str], turn: threading.Condition, tell: Callable[[str], None]) -> None:
        tell(fault.kind)
        log.info("round %d: %s", self._round, fault.kind)
        try:
            fault.strike(self._field)
            self._outcome.by_kind[fault.kind] += 1
        except NotWithin as missed:
            log.info("round %d: %s struck nothing: %s", self._round, fault.kind, missed)
            self._outcome.missed[fault.kind] += 1
        except Exception as error:
            log.exception("round %d: %s", self._round, fault.kind)
            self._problem(f"the fault itself failed: {fault.kind}: {error!r}")
        finally:
            with turn:
                taken -= fault.needs
                turn.notify_all()

    def _check(self, tell: Callable[[str], None]) -> bool:
        tell("check")
        self._workload.pause()
        try:
            self.checker.settle()
        except NotWithin as never:
            if STOPPING.is_set():
                return False
            self._problem(f"it does not come to rest: {never}")
            return False
        self._recovery.forget()
        for name, seconds in self._recovery.seconds.items():
            self._outcome.recovery[name] += seconds
        self._recovery.seconds.clear()
        for death in self.system.deaths[self._deaths :]:
            self._outcome.endings[f"{death.name} {death.code}"] += 1
        self._deaths = len(self.system.deaths)
        findings = self.checker.check()
        self._outcome.events += findings.events - self._events
        self._events = findings.events
        self._outcome.lost += findings.lost
        self._outcome.duplicated += findings.duplicated
        for problem in findings.problems:
            self._problem(problem)
        log.info("round %d: %d events so far, %s", self._round, self._events, "good" if findings.good else "NOT GOOD")
        return findings.good

    def _problem(self, problem: str) -> None:
        place = f"seed {self._seed}, round {self._round} (logs in {self.system.logs})"
        log.error("%s: %s", place, problem)
        self._outcome.problems.append(f"{place}: {problem}")


def fitting(database: str, kinds: Sequence[str] = ()) -> list[Fault]:
    """The faults that there are on this database, or those of them that are named."""
    wanted = [fault for fault in FAULTS if fault.on in ("", database)]
    return [fault for fault in wanted if not kinds or fault.kind in kinds]
