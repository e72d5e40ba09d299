"""The faults: each strikes a running system, and returns only when it really has."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from learner.checkpoint import TENSORS
from schemas.failpoints import Failpoint
from streams.following import snapshot_file
from streams.store import Partition
from tests.faults.checker import Checker
from tests.faults.recovery import Recovery
from tests.faults.system import STOPPING, NotWithin, System, until
from tests.faults.topic_reader import TopicReader
from tests.faults.workload import SCENARIOS, Workload

FAILPOINT_SECONDS = 60.0
TAKEOVER_SECONDS = 30.0
"""A consumer's session lasts 6 s. Who stands still within a transaction on SQLite holds off everybody, and no other one
takes over before it goes on: that is a freeze, and no zombie comes of it."""
BROKER_SECONDS = 20.0
LOCK_SECONDS = 10.0
DISK_SECONDS = 6.0
CLOCK_SECONDS = (-86_400, -3600, 3600, 86_400)
AWAY_SECONDS = 3.0
MORE_PARTITIONS = 2
MOST_PARTITIONS = 8


@dataclass(frozen=True)
class Field:
    """Where a fault takes place."""

    system: System
    workload: Workload
    recovery: Recovery
    checker: Checker
    random: random.Random


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        needs: what no other fault may touch meanwhile.
        strike: returns once it has struck, and is over; raises `NotWithin` if it has struck nothing.
        on: "sqlite" or "postgresql" where it exists on one of them only; "" for both.
    """

    kind: str
    needs: frozenset[str]
    strike: Callable[[Field], None]
    on: str = ""


def _kill(name: str, at: Field) -> None:
    at.recovery.struck(name, _signalled(at, name, signal.SIGKILL))


def _terminate(name: str, at: Field) -> None:
    at.recovery.struck(name, _signalled(at, name, signal.SIGTERM))


def _signalled(at: Field, name: str, number: signal.Signals) -> float:
    at.system.signal(name, number)
    return time.monotonic()


def _kill_broker(at: Field) -> None:
    until(lambda: at.system.broker.pid, "the broker runs")
    os.kill(at.system.broker.pid, signal.SIGKILL)
    since = time.monotonic()
    at.recovery.struck("broker", since)
    at.recovery.struck("serve", since)
    until(lambda: at.system.broker.running, "the broker runs again")


def _broker_away(at: Field) -> None:
    since = time.monotonic()
    at.system.stop_broker()
    STOPPING.wait(BROKER_SECONDS)
    at.system.resume_broker()
    at.recovery.struck("broker", since)
    at.recovery.struck("serve", since)


def _freeze_broker(at: Field) -> None:
    until(lambda: at.system.broker.pid, "the broker runs")
    pid = at.system.broker.pid
    os.kill(pid, signal.SIGSTOP)
    STOPPING.wait(8)
    os.kill(pid, signal.SIGCONT)


def _failpoint(name: Failpoint, order: str, process: str, at: Field) -> None:
    at.system.wait_ready(process)
    at.system.arm(name, order, FAILPOINT_SECONDS)
    if order == "kill":
        at.recovery.struck(process, time.monotonic())


def _clock(name: Failpoint, process: str, at: Field) -> None:
    _failpoint(name, f"clock {at.random.choice(CLOCK_SECONDS)}", process, at)


def _freeze(name: str, seconds: float, at: Field) -> None:
    at.system.signal(name, signal.SIGSTOP)
    STOPPING.wait(seconds)
    at.system.signal(name, signal.SIGCONT)


def _zombie(name: str, failpoint: Failpoint | None, at: Field) -> None:
    """A process stands still for longer than its session, another one takes over, and then it goes on."""
    system, second = at.system, f"{name} 2"
    store = system.serve_store if name == "serve" else system.learn_store
    system.wait_ready(name)
    log_before = len(system.log_file(second).read_text()) if system.log_file(second).exists() else 0
    system.start(second)
    try:
        # A LEARN that stands by is never ready, and which of two stands by is up to Kafka.
        until(lambda: "Worker ready" in system.log_file(second).read_text()[log_before:], f"{second} has joined")
        until(lambda: system.ready(name) or system.ready(second), f"a {name} works")
        victim = name if system.ready(name) else second
        before = {key: each.claim for key, each in store.positions().items()}
        if failpoint is None:
            pid = system.signal(victim, signal.SIGSTOP)
        else:
            pid = system.arm(failpoint, "stop", FAILPOINT_SECONDS)
        since = time.monotonic()
        try:
            until(lambda: _taken_over(before, store.positions()), f"another {name} takes over", TAKEOVER_SECONDS)
            STOPPING.wait(1)
        finally:
            if not _continued(pid):
                raise NotWithin(f"{victim} had handed over and ended by itself")
        at.recovery.struck(name, since)
    finally:
        system.end(second)


def _continued(pid: int) -> bool:
    """Let a process go on that was stopped; False if there is none."""
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def _taken_over(before: dict[Partition, int], now: dict[Partition, tuple[object, int]]) -> bool:
    return any(now[key][1] > claim for key, claim in before.items())


def _second_comes_and_goes(at: Field) -> None:
    at.system.start("serve 2")
    try:
        at.system.wait_ready("serve 2")
        STOPPING.wait(at.random.uniform(0, 3))
    finally:
        at.system.end("serve 2")


def _lock_database(at: Field) -> None:
    at.system.lock_database(LOCK_SECONDS)


def _restart_database(at: Field) -> None:
    assert at.system.postgres is not None
    at.system.postgres.stop()
    at.system.postgres.start()


def _fill_disk(at: Field) -> None:
    if not at.system.full:
        raise NotWithin("no file system of its own may be mounted here")
    at.system.fill_disk(DISK_SECONDS)


def _disturb(at: Field) -> None:
    at.workload.disturb(0.5)
    STOPPING.wait(5)
    at.workload.disturb(0.05)


def _add_partitions(at: Field) -> None:
    """As an operator does it: first the configuration, then the topics."""
    system = at.system
    wanted = system.partitions + MORE_PARTITIONS
    if wanted > MOST_PARTITIONS:
        raise NotWithin("there are enough partitions")
    topics = [system.topics.requests, *(system.topics.events(name) for name in SCENARIOS)]
    topics += [system.topics.recommendations(name) for name in (*SCENARIOS, "unknown")]
    client = AdminClient({"bootstrap.servers": system.broker.address})
    for done in client.create_partitions([NewPartitions(topic, wanted) for topic in topics]).values():
        done.result(30)
    system.configure(wanted)


def _remove_unread(at: Field) -> None:
    """Retention removes, from each partition of one scenario, half of what SERVE has not read yet."""
    system, topic = at.system, at.system.topics.events(at.random.choice(SCENARIOS))
    system.wait_ready("serve")
    system.end("serve")
    try:
        STOPPING.wait(AWAY_SECONDS)
        at.checker.read()
        unread = {
            number: (place.next, at.checker.read_up_to(topic, number))
            for (named, number), place in system.serve_store.positions().items()
            if named == topic and place.next is not None
        }
        until_offset = {number: (begin + end + 1) // 2 for number, (begin, end) in unread.items() if begin < end}
        if not until_offset:
            raise NotWithin(f"{topic} holds nothing that is unread")
        client = AdminClient({"bootstrap.servers": system.broker.address})
        places = [TopicPartition(topic, number, offset) for number, offset in until_offset.items()]
        for done in client.delete_records(places).values():
            done.result(30)
        for number, offset in until_offset.items():
            at.checker.removed(topic, number, unread[number][0], offset)
    finally:
        at.recovery.struck("serve", time.monotonic())
        system.start("serve")


def _damage_checkpoint(at: Field) -> None:
    """One bit of the newest one is another, as LEARN starts again."""
    at.system.wait_ready("learn")
    until(lambda: len(at.system.learn_store.checkpoints()) > 1, "there are two checkpoints")
    at.system.signal("learn", signal.SIGKILL)
    since = time.monotonic()
    _flip(Path(at.system.learn_store.checkpoints()[0].folder) / TENSORS, at.random)
    at.recovery.struck("learn", since)


def _truncate_snapshot(at: Field) -> None:
    file = snapshot_file(at.system.settings)
    until(file.exists, "a snapshot is there")
    at.system.signal("serve", signal.SIGKILL)
    since = time.monotonic()
    with file.open("r+b") as stream:
        stream.truncate(int(file.stat().st_size * at.random.random()))
    at.recovery.struck("serve", since)


def _damage_weights(at: Field) -> None:
    """A weights record that differs from the newest one in a bit is published."""
    reader = TopicReader(at.system.broker.address, [at.system.topics.weights])
    try:
        newest = [message for message in reader.read() if message.value()][-1]
    finally:
        reader.close()
    value = bytearray(newest.value() or b"")
    place = at.random.randrange(len(value))
    value[place] ^= 1 << at.random.randrange(8)
    producer = Producer({"bootstrap.servers": at.system.broker.address})
    producer.produce(at.system.topics.weights, bytes(value), newest.key(), 0, headers=newest.headers())
    assert producer.flush(30) == 0


def _flip(file: Path, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def _fault(kind: str, needs: str, strike: Callable[[Field], None], on: str = "") -> Fault:
    return Fault(kind, frozenset(needs.split()), strike, on)


def _at(name: Failpoint, order: str, process: str) -> Callable[[Field], None]:
    return partial(_failpoint, name, order, process)


FAULTS: tuple[Fault, ...] = (
    _fault("kill serve", "serve", partial(_kill, "serve")),
    _fault("kill learn", "learn", partial(_kill, "learn")),
    _fault("kill gateway", "gateway", partial(_kill, "gateway")),
    _fault("kill broker", "broker", _kill_broker),
    _fault("kill at serve.decoded", "serve", _at("serve.decoded", "kill", "serve")),
    _fault("kill at serve.published", "serve", _at("serve.published", "kill", "serve")),
    _fault("kill at serve.commit", "serve", _at("serve.commit", "kill", "serve")),
    _fault("kill at serve.committed", "serve", _at("serve.committed", "kill", "serve")),
    _fault("kill at index.compact", "serve", _at("index.compact", "kill", "serve")),
    _fault("kill at snapshot.write", "serve", _at("snapshot.write", "kill", "serve")),
    _fault("kill at learn.learnt", "learn", _at("learn.learnt", "kill", "learn")),
    _fault("kill at learn.publish", "learn", _at("learn.publish", "kill", "learn")),
    _fault("kill at checkpoint.write", "learn", _at("checkpoint.write", "kill", "learn")),
    _fault("kill at checkpoint.written", "learn", _at("checkpoint.written", "kill", "learn")),
    _fault("kill at checkpoint.committed", "learn", _at("checkpoint.committed", "kill", "learn")),
    _fault("terminate serve", "serve", partial(_terminate, "serve")),
    _fault("terminate learn", "learn", partial(_terminate, "learn")),
    _fault("terminate gateway", "gateway", partial(_terminate, "gateway")),
    _fault("zombie serve", "serve learn broker database", partial(_zombie, "serve", None)),
    _fault("zombie serve at serve.published", "serve broker database", partial(_zombie, "serve", "serve.published")),
    _fault("zombie learn", "learn broker database", partial(_zombie, "learn", None)),
    _fault("freeze gateway", "gateway", partial(_freeze, "gateway", 5.0)),
    _fault("freeze broker", "broker", _freeze_broker),
    _fault("broker away", "broker", _broker_away),
    _fault("second serve comes and goes", "serve", _second_comes_and_goes),
    _fault("database locked", "database", _lock_database, "sqlite"),
    _fault("database restarted", "database", _restart_database, "postgresql"),
    _fault("disk full", "database", _fill_disk),
    _fault("disk full at checkpoint.write", "learn", _at("checkpoint.write", "full", "learn")),
    _fault("disk full at snapshot.write", "serve", _at("snapshot.write", "full", "serve")),
    _fault("slow at serve.commit", "serve", _at("serve.commit", "sleep 3", "serve")),
    _fault("clock jump of serve", "serve", partial(_clock, "serve.decoded", "serve")),
    _fault("clock jump of learn", "learn", partial(_clock, "learn.learnt", "learn")),
    _fault("repeats and late deliveries", "workload", _disturb),
    _fault("partitions added", "broker serve learn gateway", _add_partitions),
    _fault("retention overtakes serve", "broker serve database", _remove_unread),
    _fault("checkpoint damaged", "learn", _damage_checkpoint),
    _fault("snapshot truncated", "serve", _truncate_snapshot),
    _fault("weights record damaged", "broker", _damage_weights),
    _fault("loss is no number", "learn", _at("learn.loss", "nan", "learn")),
)
