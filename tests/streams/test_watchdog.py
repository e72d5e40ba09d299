"""The watchdog on real processes: it ends one that hangs, says where it hung, and bites no other."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer

from schemas.topics import Topic
from streams.administration import ensure_topics
from streams.patience import Patience
from streams.store import Store, open_engine
from streams.watchdog import Watchdog
from streams.worker import EXIT_TRY_AGAIN
from tests.system.installation import here, until

PROGRAM = """
import json, sys, threading, time
from pathlib import Path
from schemas.migrations import upgrade
from streams.logs import log_to_file
from streams.patience import Patience
from streams.signals import StopSignals
from streams.store import Store, open_engine
from streams.worker import Worker

broker, topic, data, handles, watchdog = json.loads(sys.argv[1])
stops = StopSignals()
log_to_file()

class Handler:
    def assigned(self, at):
        return at

    def work(self, topic, parts, commit):
        values = [record.value for part in parts for record in part.records]
        if b"2" in values and handles == "hang":
            self.hang_here()
        if b"2" in values and handles == "work":
            until = time.monotonic() + 6
            while time.monotonic() < until:
                sum(range(10_000))
        commit(lambda connection: None)

    def hang_here(self):
        threading.Event().wait()

async def at_once():
    pass

patience = Patience(60)
engine = open_engine(f"sqlite:///{data}/a.db", patience)
upgrade(engine)
Worker("g", broker=broker, store=Store(engine, "g", "me"), handler=Handler(), topics=[topic],
       records_per_partition=10, coalesce_seconds=0.0, data=Path(data), admit=at_once, patience=patience,
       watchdog_seconds=watchdog).run(stops)
"""


class Worked:
    """A worker as a process, and what it does with the records 0, 1, 2 of its topic: hangs or works at the last."""

    def __init__(self, broker: str, topic: str, data: Path, handles: str, watchdog: float) -> None:
        self._broker, self._topic, self._log = broker, topic, data / "log"
        ensure_topics(broker, [Topic(topic, 1, {})], replication=1)
        arguments = json.dumps([broker, topic, str(data), handles, watchdog])
        with self._log.open("w") as log:
            command = [sys.executable, "-c", PROGRAM, arguments]
            self.process = subprocess.Popen(command, env=here(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._store = Store(open_engine(f"sqlite:///{data / 'a.db'}"), "g", "test")

    def publish(self, *values: int) -> None:
        producer = Producer({"bootstrap.servers": self._broker})
        for value in values:
            producer.produce(self._topic, str(value).encode(), partition=0)
        assert producer.flush(20) == 0

    def worked(self, count: int) -> bool:
        if "reading 1 partitions" not in self.log():
            return False
        return self.worked_up_to() == count

    def worked_up_to(self) -> int | None:
        return self._store.positions()[self._topic, 0].next

    def lost(self) -> int:
        """Records that were counted as lost."""
        return self._store.tallies()[self._topic, "lost"]

    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._store.close()


@contextmanager
def working(broker: str, topic: str, data: Path, handles: str, watchdog: float) -> Iterator[Worked]:
    worked = Worked(broker, topic, data, handles, watchdog)
    try:
        worked.publish(0, 1)
        until(lambda: worked.worked(2), "the first two are worked", 60)
        yield worked
    finally:
        worked.close()


def test_a_process_that_hangs_says_where_and_ends(broker: str, prefix: str, tmp_path: Path) -> None:
    with working(broker, f"{prefix}hang", tmp_path, "hang", 3.0) as worked:
        worked.publish(2)
        assert worked.process.wait(60) == EXIT_TRY_AGAIN
        log = worked.log()
        assert "in hang_here" in log  # the thread's stack
        assert "in Worker._take" in log  # the task that waits for it
        assert f"1 records of {prefix}hang wait, and none was worked for" in log.splitlines()[-1]
        assert worked.worked(2)  # and nothing of it is committed


def test_a_long_batch_that_works_and_a_suspended_process_are_left_alone(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    with working(broker, f"{prefix}work", tmp_path, "work", 2.0) as worked:
        worked.publish(2)
        until(lambda: worked.worked(3), "the long batch is committed", 60)
        worked.process.send_signal(signal.SIGSTOP)
        worked.publish(3, 4)
        with pytest.raises(subprocess.TimeoutExpired):
            worked.process.wait(8)
        worked.process.send_signal(signal.SIGCONT)
        until(lambda: worked.worked(5), "it goes on", 60)
        assert worked.process.poll() is None
        assert "hangs" not in worked.log()


def test_a_stop_that_hangs_is_cut_and_says_where(broker: str, prefix: str, tmp_path: Path) -> None:
    with working(broker, f"{prefix}stop", tmp_path, "hang", 0.0) as worked:
        worked.publish(2)
        with pytest.raises(subprocess.TimeoutExpired):
            worked.process.wait(2)  # it hangs by now
        worked.process.send_signal(signal.SIGTERM)
        assert worked.process.wait(30) == EXIT_TRY_AGAIN
        assert "in hang_here" in worked.log()
        assert "stopping took longer than 8 s" in worked.log().splitlines()[-1]


def test_it_begins_anew_while_the_database_is_waited_for_while_kafka_is_away_and_after_a_suspension(
    broker: str, prefix: str
) -> None:
    topic = f"{prefix}looks"
    ensure_topics(broker, [Topic(topic, 1, {})], replication=1)
    producer = Producer({"bootstrap.servers": broker})
    producer.produce(topic, b"", partition=0)
    assert producer.flush(20) == 0
    patience = Patience(600)
    dog = Watchdog(broker, 100.0, lambda: {(topic, 0): 0}, patience, lambda _: None)
    nobody = Watchdog("127.0.0.1:9", 100.0, lambda: {(topic, 0): 0}, Patience(600), lambda _: None)
    matter = f"1 records of {topic} wait, and none was worked for 100 s"
    times = [float(number) for number in range(1000, 1101, 10)]
    assert [dog.look(at, 0.0) for at in times] == [None] * 10 + [matter]
    assert dog.look(1300.0, 0.0) is None  # nobody looked for long: it was suspended
    assert [dog.look(at + 310, at / 2) for at in times] == [None] * 11  # it uses half a core
    patience.failed(OSError("away"))
    assert dog.look(1420.0, 0.0) is None
    patience.succeeded()
    assert [dog.look(at + 430, 0.0) for at in times] == [None] * 10 + [matter]
    assert nobody.look(1000.0, 0.0) is None
