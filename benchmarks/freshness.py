"""Freshness on an idle system, by an outside client.

Event → the recommendation that it caused; event → gradient → the first recommendation by a model that has learnt from
it; item → the first recommendation that holds it; an order to take a scenario back → the first recommendation by the
version that it went back to.

The reference, in the same run: the same client's records through the same Kafka and back, with nothing between.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import uuid
from collections import defaultdict, deque
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from benchmarks.rig import Rig, percentiles, running, wait_until
from streams.history import History

TITLES = ("Trail shoe", "Rain jacket", "Bread knife", "Desk lamp", "Travel mug", "Wool socks", "Tent", "Garden hose")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to send events")
    parser.add_argument("--rate", type=float, default=50.0, help="events per second")
    parser.add_argument("--new-items", type=int, default=20)
    parser.add_argument("--rollbacks", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with running() as rig:
        client = Client(rig)
        for number in range(400):
            title = f"{TITLES[number % len(TITLES)]} number {number}"
            rig.publish(
                rig.topics.items, {"item_id": f"i{number}", "title": title, "scenarios": ["shop"]}, f"i{number}"
            )
        rig.producer.flush()
        client.wait_for_items(400)
        client.events(arguments.rate, 5.0)  # warm
        event, learnt = client.events(arguments.rate, arguments.seconds)
        bare = client.echo(arguments.rate, min(10.0, arguments.seconds))
        items = [client.new_item(number) for number in range(arguments.new_items)]
        versions = []
        for _ in range(2):
            client.events(arguments.rate, 5.0)
            versions.append(client.promote())
        rollbacks = [client.roll_back(versions[number % 2]) for number in range(arguments.rollbacks)]
        client.close()
    figures = {
        "event_to_recommendation_ms": percentiles(event),
        "event_to_learnt_recommendation_ms": percentiles(learnt),
        "bare_kafka_round_trip_ms": percentiles(bare),
        "item_to_recommendation_ms": percentiles(items),
        "rollback_to_recommendation_ms": percentiles(rollbacks),
        "targets": {"event p50": 25, "event p99": 100, "learnt p99": 1000, "item": 1000, "rollback": 2000},
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:34} {value}")


class Client:
    """An outside client on librdkafka."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._producer = Producer({"bootstrap.servers": rig.broker, "linger.ms": 0})
        self._consumer = Consumer(
            {
                "bootstrap.servers": rig.broker,
                "group.id": uuid.uuid4().hex,
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "fetch.wait.max.ms": 50,
            }
        )
        self._read(rig.topics.recommendations("shop"))

    def _read(self, topic: str) -> None:
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = []
        for number in partitions:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10)
            ends.append(TopicPartition(topic, number, end))
        self._consumer.assign(ends)
        self._consumer.poll(1.0)

    def close(self) -> None:
        self._consumer.close()

    def events(self, rate: float, seconds: float) -> tuple[list[float], list[float]]:
        """Latencies in milliseconds: by the trigger that each recommendation names, and by what it was trained through.

        Of the last two seconds' events the latter is not asked: nothing is sent after them that would show it.
        """
        topic = self._rig.topics.events("shop")
        sent: dict[tuple[int, int], float] = {}
        received: dict[tuple[int, int], float] = {}
        unlearnt: dict[int, deque[int]] = defaultdict(deque)
        learnt: dict[tuple[int, int], float] = {}

        def deliver(began: float) -> Any:
            def note(_error: object, message: Message) -> None:
                partition, offset = message.partition(), message.offset()
                assert partition is not None and offset is not None
                sent[partition, offset] = began
                unlearnt[partition].append(offset)

            return note

        begin, total = time.perf_counter(), int(rate * seconds)
        number = 0
        while len(received) < total and time.perf_counter() - begin < seconds + 10:
            while number < total and time.perf_counter() >= begin + number / rate:
                body = {"user_id": f"u{number % 500}", "item_id": f"i{number * 7919 % 400}", "event": "view"}
                self._producer.produce(
                    topic, json.dumps(body).encode(), body["user_id"], on_delivery=deliver(time.perf_counter())
                )
                number += 1
            self._producer.poll(0)
            record = self._consumer.poll(0.001)
            value = record.value() if record is not None and not record.error() else None
            if value is not None:
                recommendation = json.loads(value)
                trigger, now = recommendation["trigger"], time.perf_counter()
                received[trigger["partition"], trigger["offset"]] = now
                for partition, offsets in unlearnt.items():
                    through = recommendation["trained_through"].get(f"{topic}:{partition}", -1)
                    while offsets and offsets[0] <= through:
                        learnt[partition, offsets.popleft()] = now
        self._producer.flush()
        asked = [key for key, at in sent.items() if at < begin + seconds - 2.0]
        if missing := [key for key in asked if key not in learnt]:
            print(f"{len(missing)} of {len(asked)} events were not learnt in time", file=sys.stderr)
        return (
            [1000 * (at - sent[key]) for key, at in received.items() if key in sent],
            [1000 * (learnt[key] - sent[key]) for key in asked if key in learnt],
        )

    def echo(self, rate: float, seconds: float) -> list[float]:
        """The same records through a topic that nobody works on."""
        topic = self._rig.topics.drift
        self._read(topic)
        latencies: list[float] = []
        begin, number, total = time.perf_counter(), 0, int(rate * seconds)
        while len(latencies) < total and time.perf_counter() - begin < seconds + 10:
            if number < total and time.perf_counter() >= begin + number / rate:
                self._producer.produce(topic, repr(time.perf_counter()).encode())
                number += 1
            self._producer.poll(0)
            record = self._consumer.poll(0.001)
            value = record.value() if record is not None and not record.error() else None
            if value is not None:
                latencies.append(1000 * (time.perf_counter() - float(value)))
        self._read(self._rig.topics.recommendations("shop"))
        return latencies

    def ask(self, user: str, k: int) -> Any:
        """The answer to a request, as it stands in the topic."""
        request = uuid.uuid4().hex
        body = {"request_id": request, "user_id": user, "scenario": "shop", "k": k}
        self._producer.produce(self._rig.topics.requests, json.dumps(body).encode(), user)
        self._producer.poll(0)
        while True:
            record = self._consumer.poll(5.0)
            assert record is not None
            value = record.value()
            if value is not None and (found := json.loads(value)).get("request_id") == request:
                return found

    def wait_for_items(self, count: int) -> None:
        while len(self.ask("nobody", 1000)["items"]) < count:
            time.sleep(0.2)

    def new_item(self, number: int) -> float:
        """Milliseconds from sending a new item to the first list of ten that holds it."""
        name = f"new-{number}"
        body = {"item_id": name, "title": f"{TITLES[number % len(TITLES)]}, newly arrived", "scenarios": ["shop"]}
        began = time.perf_counter()
        self._producer.produce(self._rig.topics.items, json.dumps(body).encode(), name)
        self._producer.flush()
        while name not in {item["item_id"] for item in self.ask(f"u{number}", 10)["items"]}:
            if time.perf_counter() - began > 30:
                raise TimeoutError(f"{name} was not recommended within 30 s")
        return 1000 * (time.perf_counter() - began)

    def promote(self) -> int:
        """Have the present version kept as a good one; returns its number."""
        history = History(self._rig.store.engine)
        action = self._order("promote")
        wait_until(lambda: history.action(action) is not None, "it is promoted", 60)
        return history.versions("shop")[0].version

    def roll_back(self, version: int) -> float:
        """Milliseconds from the order to the first list by this version."""
        began = time.perf_counter()
        self._order("rollback", version=version)
        while self.ask("u0", 10)["model"].get("restores") != version:
            if time.perf_counter() - began > 30:
                raise TimeoutError(f"version {version} was not served within 30 s")
        return 1000 * (time.perf_counter() - began)

    def _order(self, action: str, **more: int) -> str:
        body = {"action_id": uuid.uuid4().hex, "action": action, "author": "benchmark", "reason": "measured", **more}
        self._producer.produce(self._rig.topics.control, json.dumps({**body, "scenario": "shop"}).encode())
        self._producer.flush()
        return str(body["action_id"])


if __name__ == "__main__":
    main()
