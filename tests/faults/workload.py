"""The workload: numbered events of known users, some delivered twice, late, without a key, or unreadable on purpose."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import deque

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tests.faults.system import System

SCENARIOS = ("shop", "video", "news")
ITEMS = 300
USERS = 40
EVENTS_PER_USER = 200
"""Fewer than there are items: no user meets an item twice, so a user's history says which events made it."""
STEP = 7
KINDS = ("view", "click", "like", "purchase", "dislike")
KIND_WEIGHTS = (40, 40, 10, 7, 3)
TICK_SECONDS = 0.05
PROBE_SECONDS = 0.5


class Workload:
    """Sends from a thread of its own until it is paused.

    Attributes:
        acknowledged: numbers of events that Kafka has taken for certain.
        asked: ids of requests that it has taken for certain.
        last_acknowledged: when a record was sent that Kafka has acknowledged, monotonic seconds; the newest such time.
        rate: events a second.
    """

    def __init__(self, system: System, rate: float, seed: int) -> None:
        """Publish the catalogue; no event is sent yet."""
        self._system = system
        self._random = random.Random(seed)
        self.rate = rate
        self.acknowledged: set[int] = set()
        self.asked: set[str] = set()
        self.last_acknowledged = 0.0
        self._sent = 0
        self._probes = 0
        self._bad = 0
        self._late: deque[tuple[int, tuple[str, bytes, str | None]]] = deque()
        self._shuffled = 0.03
        self._twice = 0.05
        self._producer = Producer(
            {
                "bootstrap.servers": system.broker.address,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 2,
                "partitioner": "murmur2_random",
                "reconnect.backoff.max.ms": 500,
                "topic.metadata.refresh.interval.ms": 2000,
            }
        )
        for number in range(ITEMS):
            item = {"item_id": f"i{number}", "title": f"Thing number {number}", "categories": [f"c{number % 7}"]}
            self._producer.produce(system.topics.items, json.dumps(item), f"i{number}")
        assert self._producer.flush(60) == 0
        self._running = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._send, name="workload")
        self._thread.start()

    @property
    def sent(self) -> int:
        return self._sent

    def resume(self) -> None:
        self._running.set()

    def pause(self) -> None:
        self._running.clear()

    def settled(self) -> bool:
        """Whether it is paused and Kafka has answered for all that was sent."""
        assert self._thread.is_alive(), "the workload itself has failed"
        return not self._running.is_set() and not self._late and len(self._producer) == 0

    def disturb(self, share: float) -> None:
        """From now on deliver this share of the events late, and as many twice."""
        self._shuffled = self._twice = share

    def close(self) -> None:
        self._running.clear()
        self._closing.set()
        self._thread.join()
        self._producer.flush(5)

    # On the thread

    def _send(self) -> None:
        owed, before, probed = 0.0, time.monotonic(), 0.0
        while not self._closing.is_set():
            self._producer.poll(TICK_SECONDS)
            now = time.monotonic()
            owed, before = min(owed + (now - before) * self.rate, self.rate), now
            if not self._running.is_set():
                owed = 0.0
                while self._late:
                    self._deliver(*self._late.popleft()[1])
                continue
            while owed >= 1:
                owed -= 1
                self._event()
            if now - probed > PROBE_SECONDS:
                probed = now
                self._probe()

    def _event(self) -> None:
        chance, number = self._random, self._sent
        self._sent += 1
        # Users come and go: forty at a time, each for so many events.
        generation, seat = divmod(number, USERS * EVENTS_PER_USER)
        turn, seat = divmod(seat, USERS)
        user = f"u{generation * USERS + seat}"
        item = f"i{(seat * 31 + turn * STEP) % ITEMS}"
        scenario = chance.choice(SCENARIOS)
        kind = chance.choices(KINDS, KIND_WEIGHTS)[0]
        body = {"user_id": user, "item_id": item, "event": kind, "context": {"number": number}}
        named = chance.random() < 0.5
        if named:
            body["event_id"] = f"e{number}"
        if chance.random() < 0.5:
            body["timestamp"] = time.time()
        key = None if chance.random() < 0.1 else user
        delivery = self._system.topics.events(scenario), json.dumps(body).encode(), key
        if chance.random() < self._shuffled:
            self._late.append((number + chance.randint(1, 20), delivery))
        else:
            self._deliver(*delivery)
        # Repeats keep their key: which of two records of one event counts is then decided by their order.
        if named and key is not None and chance.random() < self._twice:
            self._late.append((number + chance.randint(1, 40), delivery))
        if chance.random() < 0.01:
            self._send_bad(scenario, user)
        for due, late in [each for each in self._late if each[0] <= number]:
            self._late.remove((due, late))
            self._deliver(*late)

    def _deliver(self, topic: str, value: bytes, key: str | None) -> None:
        number, at = json.loads(value)["context"]["number"], time.monotonic()

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.acknowledged.add(number)
                self.last_acknowledged = max(self.last_acknowledged, at)

        self._produce(topic, value, key, on_delivery=delivered)

    def _send_bad(self, scenario: str, user: str) -> None:
        self._bad += 1
        value = self._random.choice(
            (b"no json", b'{"user_id": "u", "item_id": "i", "event": "unheard of"}', b"{}", b"")
        )
        self._produce(self._system.topics.events(scenario), value, user)

    def _probe(self) -> None:
        """A request to each partition, so that it shows which of them are served."""
        for partition in range(self._system.partitions):
            self._probes += 1
            request = f"{partition}:{self._probes}:{time.monotonic()}"
            scenario = SCENARIOS[self._probes % len(SCENARIOS)]
            body = {"request_id": request, "user_id": f"u{self._probes % USERS}", "scenario": scenario, "k": 3}

            def delivered(error: KafkaError | None, _message: Message, request: str = request) -> None:
                if error is None:
                    self.asked.add(request)

            self._produce(self._system.topics.requests, json.dumps(body).encode(), None, partition, delivered)

    def _produce(
        self, topic: str, value: bytes, key: str | None, partition: int = -1, on_delivery: object = None
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=on_delivery)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                # A partition that was added is known to the producer only after its next look.
                if error.args[0].code() != KafkaError._UNKNOWN_PARTITION or self._closing.is_set():
                    raise
                self._producer.poll(0.1)
