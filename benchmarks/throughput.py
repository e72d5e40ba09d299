"""Throughput per CPU second of the process: SERVE without and with recommendations, LEARN with replay.

The reference, in the same run: a bare confluent-kafka loop that decodes, counts in a dict, produces and commits.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from confluent_kafka import Consumer, Producer

from benchmarks.rig import Rig, running, wait_until

ITEMS = 1000
USERS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=60_000, help="events with the trigger off")
    parser.add_argument("--recommended", type=int, default=12_000, help="events that are recommended for")
    parser.add_argument("--examples", type=int, default=20_000, help="examples that are learnt")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bare", nargs=3, metavar=("BROKER", "TOPIC", "OUTPUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare_loop(*arguments.bare, arguments.events)
        return
    figures: dict[str, float] = {}
    # Each process is measured while the others stand still: its own cost is asked, not how two cores are shared.
    with running("[scenarios.shop]\ntriggers = []\n") as rig:
        publish_items(rig)
        with standing_still(rig, "learn"):
            figures["serve_trigger_off"] = rate(rig, "serve", arguments.events, rig.events)
            figures["bare_confluent_loop"] = bare(rig, arguments.events)
        with standing_still(rig, "serve"):
            began, cpu = rig.examples(), rig.cpu_seconds("learn")
            wait_until(lambda: rig.examples() >= began + arguments.examples, "learning")
            figures["learn_with_replay"] = (rig.examples() - began) / (rig.cpu_seconds("learn") - cpu)
    with running("[scenarios.shop]\n") as rig:
        publish_items(rig)
        publish_events(rig, 3000, USERS)
        wait_until(lambda: rig.examples() >= 3000, "something to recommend from")
        with standing_still(rig, "learn"):
            # So many users that each event of a batch is another one's, and is recommended for.
            figures["serve_recommending"] = rate(rig, "serve", arguments.recommended, rig.events, users=1_000_000)
    targets = {"serve_trigger_off": 20_000, "serve_recommending": 1_500, "learn_with_replay": 800}
    if arguments.json:
        print(json.dumps({"per_cpu_second": {k: round(v) for k, v in figures.items()}, "targets": targets}))
        return
    for name, value in figures.items():
        against = f"{value / figures['bare_confluent_loop']:.2f} of the bare loop"
        print(f"{name:22} {value:10,.0f} per CPU second   target {targets.get(name, 0):7,}   {against}")


@contextmanager
def standing_still(rig: Rig, name: str) -> Iterator[None]:
    process = rig.process(name)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def publish_items(rig: Rig) -> None:
    for number in range(ITEMS):
        body = {"item_id": f"i{number}", "title": f"Thing {number} of kind {number % 37}", "scenarios": ["shop"]}
        rig.publish(rig.topics.items, body, f"i{number}")
    rig.producer.flush()
    head = lambda: rig.store.heads().get("shop")  # noqa: E731
    wait_until(lambda: (found := head()) is not None and found.version > 0, "the first weights")
    time.sleep(10)  # texts are encoded and published


def publish_events(rig: Rig, count: int, users: int) -> None:
    topic = rig.topics.events("shop")
    for number in range(count):
        user = f"u{number * 7919 % users}"
        item = f"i{(number * 7919 % users * 31 + number // 97 * 13) % ITEMS}"
        rig.publish(topic, {"user_id": user, "item_id": item, "event": "view", "timestamp": 1.7e9 + number}, user)
    rig.producer.flush()


def rate(rig: Rig, process: str, count: int, done, users: int = USERS) -> float:  # type: ignore[no-untyped-def]
    """Events per CPU second while a backlog is worked off."""
    before = done()
    with standing_still(rig, process):  # the backlog is there before the work begins: batches are full, as under load
        publish_events(rig, count, users)
    cpu = rig.cpu_seconds(process)
    wait_until(lambda: done() >= before + count, f"{count} events")
    return count / (rig.cpu_seconds(process) - cpu)


def bare(rig: Rig, count: int) -> float:
    """The reference in a process of its own, over the same events."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--events", str(count), "--bare", rig.broker]
    process = subprocess.Popen(
        [*command, rig.topics.events("shop"), rig.topics.drift], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found = float(process.stdout.readline())
    process.wait()
    return found


def bare_loop(broker: str, topic: str, output: str, count: int) -> None:
    group = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": broker, **group})
    consumer.subscribe([topic])
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 5, "acks": "all"})
    counts: dict[str, int] = {}
    done, began = 0, 0.0
    while done < count:
        records = consumer.consume(500, 1.0)
        if records and not began:
            began = sum(psutil.Process().cpu_times()[:2])
        for record in records:
            value = record.value()
            assert value is not None
            event = json.loads(value)
            counts[event["user_id"]] = counts.get(event["user_id"], 0) + 1
            producer.produce(output, value, event["user_id"])
        producer.flush()
        consumer.commit(asynchronous=False)
        done += len(records)
    print(done / (sum(psutil.Process().cpu_times()[:2]) - began))
    consumer.close()


if __name__ == "__main__":
    main()
