"""Back-pressure end to end: a producer far too fast, one user with far too many events, one scenario flooded.

Each prints what became of memory, of the lag and of the others, and fails if an event did not count exactly once. The
reference for the waits of the others, in the same run: the same events before the flood.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from benchmarks.rig import Rig, percentiles, running, wait_until

ITEMS = 400
OTHERS = ("news", "travel")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the flood")
    parser.add_argument("--hot", type=int, default=100_000, help="events of the one user")
    parser.add_argument("--backlog", type=int, default=50_000, help="events of the flooded scenario")
    arguments = parser.parse_args()
    with running() as rig:
        for number in range(ITEMS):
            rig.publish(rig.topics.items, {"item_id": f"i{number}", "title": f"Thing {number}"}, f"i{number}")
        rig.producer.flush()
        feed(rig, "shop", 2000, lambda number: f"u{number % 500}")
        worked(rig, 2000)
        began = time.monotonic()
        feed(rig, "shop", 5000, lambda number: f"u{number % 500}")
        worked(rig, 7000)
        rate = 5000 / (time.monotonic() - began)
        print(
            f"works {rate:.0f} events/s, a recommendation for each user of a batch; the producer sends ten times that"
        )
        flood(rig, rate * 10, arguments.seconds)
        hot_user(rig, arguments.hot)
        starvation(rig, arguments.backlog)


def feed(rig: Rig, scenario: str, count: int, user: Any) -> None:
    for number in range(count):
        name = user(number)
        body = {"user_id": name, "item_id": f"i{number * 7919 % ITEMS}", "event": "click"}
        rig.publish(rig.topics.events(scenario), body, name)
    rig.producer.flush()


def worked(rig: Rig, events: int) -> None:
    wait_until(lambda: rig.events() >= events, f"{events} events are worked", 1800)
    if (found := rig.events()) != events:
        raise SystemExit(f"{found} events counted, {events} were sent")


def line(rig: Rig, at: float, sent: int, before: int) -> None:
    serve, learn = (rig.memory_mb(name)[0] for name in ("serve", "learn"))
    lag, unlearnt = sent - (rig.events() - before), rig.events() - rig.examples()
    print(
        f"{at:6.0f} s  sent {sent:8,}  lag {lag:8,}  to learn {unlearnt:8,}  SERVE {serve:5.0f} LEARN {learn:5.0f} MiB"
    )


def flood(rig: Rig, rate: float, seconds: float) -> None:
    print("a producer ten times too fast:")
    before, began, sent, said = rig.events(), time.monotonic(), 0, 0.0
    while (passed := time.monotonic() - began) < seconds:
        while sent < rate * passed:
            name = f"u{sent % 5000}"
            body = {"user_id": name, "item_id": f"i{sent * 7919 % ITEMS}", "event": "click"}
            rig.publish(rig.topics.events("shop"), body, name)
            sent += 1
        rig.producer.poll(0)
        if passed >= said:
            line(rig, passed, sent, before)
            said += 10
        time.sleep(0.01)
    rig.producer.flush()
    while rig.events() - before < sent:
        line(rig, time.monotonic() - began, sent, before)
        time.sleep(20)
    worked(rig, before + sent)
    line(rig, time.monotonic() - began, sent, before)


def hot_user(rig: Rig, events: int) -> None:
    before, began, last = rig.events(), time.monotonic(), 0.0
    with ThreadPoolExecutor(2) as beside:
        beside.submit(feed, rig, "video", events, lambda _: "hot")
        waits = beside.submit(others, rig, OTHERS[0], 100, 10.0)
        for quarter in (1, 2, 3, 4):
            while rig.events() - before < events * quarter / 4:
                time.sleep(0.1)
            passed = time.monotonic() - began
            print(
                f"one user, {quarter}/4 of {events:,} events after {passed:.1f} s, this quarter {passed - last:.1f} s"
            )
            last = passed
        print(f"meanwhile another scenario waits, ms: {percentiles(waits.result())}")
    worked(rig, before + events + 100)


def starvation(rig: Rig, backlog: int) -> None:
    before = rig.events() + 200
    print(f"others in quiet, ms: {percentiles(others(rig, OTHERS[0], 200, 50.0))}")
    worked(rig, before)  # a recommendation is published before the event that caused it is committed
    feed(rig, "social", backlog, lambda number: f"u{number % 5000}")
    waits = others(rig, OTHERS[1], 400, 50.0)
    left = backlog + 400 - (rig.events() - before)
    print(f"others beside a backlog of {backlog:,}, of which {left:,} are left at the end, ms: {percentiles(waits)}")
    worked(rig, before + backlog + 400)


def others(rig: Rig, scenario: str, count: int, rate: float) -> list[float]:
    """Milliseconds from sending an event to the recommendation that it caused."""
    consumer = Consumer({"bootstrap.servers": rig.broker, "group.id": "benchmark", "fetch.wait.max.ms": 20})
    topic = rig.topics.recommendations(scenario)
    partitions = [TopicPartition(topic, number) for number in consumer.list_topics(topic).topics[topic].partitions]
    for partition in partitions:
        partition.offset = consumer.get_watermark_offsets(partition)[1]
    consumer.assign(partitions)
    consumer.poll(1.0)
    sent: dict[str, float] = {}
    waits: list[float] = []
    begin = time.perf_counter()
    while len(waits) < count and time.perf_counter() - begin < count / rate + 120:
        if len(sent) < count and time.perf_counter() >= begin + len(sent) / rate:
            name = f"{scenario}-{len(sent)}"
            sent[name] = time.perf_counter()
            rig.publish(rig.topics.events(scenario), {"user_id": name, "item_id": "i1", "event": "click"}, name)
        rig.producer.poll(0)
        record = consumer.poll(0.001)
        value = record.value() if record is not None and not record.error() else None
        if value is not None and (user := json.loads(value)["user_id"]) in sent:
            waits.append(1000 * (time.perf_counter() - sent[user]))
    consumer.close()
    return waits


if __name__ == "__main__":
    main()
