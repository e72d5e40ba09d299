"""Recovery: how long each process takes from a fault until its work is seen to be done again, from outside."""

from __future__ import annotations

import math
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy.exc import DBAPIError

from schemas.recommendations import decode_recommendation
from tests.faults.system import System
from tests.faults.workload import SCENARIOS, Workload

LOOK_SECONDS = 0.1
HTTP_SECONDS = 1.0

# What a fault strikes, and what shows that it works again:
# - serve: a request that was sent since is answered, on every partition of the requests
# - learn: more examples are published as learnt than ever before
# - gateway: it answers over HTTP, and says that it is ready
# - broker: it acknowledges a record that was sent since
PROCESSES = ("serve", "learn", "gateway", "broker")


@dataclass(frozen=True)
class Waiting:
    """A process that was struck and is not seen at work yet; `since` is in monotonic seconds."""

    process: str
    since: float
    examples: int


class Recovery:
    """Watches from a thread of its own.

    Attributes:
        seconds: by process, of every recovery that was seen.
    """

    def __init__(self, system: System, workload: Workload) -> None:
        self._system = system
        self._workload = workload
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._waiting: list[Waiting] = []
        self._answered: dict[int, float] = {}
        self._most_examples = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=each, name=each.__name__) for each in (self._listen, self._look)]
        for thread in self._threads:
            thread.start()

    def struck(self, process: str, since: float) -> None:
        """A process stopped working at this moment."""
        if process == "learn":
            self._count_examples()
        with self._lock:
            self._waiting.append(Waiting(process, since, self._most_examples))

    def forget(self) -> None:
        """Whoever still waits does so because there is nothing to do; nothing can be seen of it."""
        with self._lock:
            self._waiting.clear()

    def close(self) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join()

    # On threads

    def _listen(self) -> None:
        """Hear answers to the workload's probes; each says which partition it went to, and when."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._system.broker.address,
                "group.id": "fault-campaign-recovery",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "reconnect.backoff.max.ms": 500,
                "log_level": 2,
            }
        )
        topics = [self._system.topics.recommendations(name) for name in SCENARIOS]
        # The partitions of recommendations never change; new ones of events and requests come with a fault.
        consumer.assign([TopicPartition(topic, number) for topic in topics for number in range(4)])
        while not self._closing.is_set():
            for message in consumer.consume(200, LOOK_SECONDS):
                value = message.value()
                if message.error() is None and value is not None and b'"request_id"' in value:
                    request = decode_recommendation(value).request_id or ""
                    partition, _, sent = request.split(":")
                    at = float(sent)
                    self._answered[int(partition)] = max(at, self._answered.get(int(partition), 0.0))
        consumer.close()

    def _look(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            with self._lock:
                waiting = list(self._waiting)
            if any(each.process == "learn" for each in waiting):
                self._count_examples()
            gateway = any(each.process == "gateway" for each in waiting) and self._gateway_ready()
            for each in waiting:
                if self._works(each, gateway):
                    self.seconds[each.process].append(time.monotonic() - each.since)
                    with self._lock, suppress(ValueError):
                        self._waiting.remove(each)

    def _count_examples(self) -> None:
        with suppress(DBAPIError):
            self._most_examples = max(self._most_examples, self._system.examples_published())

    def _works(self, waiting: Waiting, gateway: bool) -> bool:
        match waiting.process:
            case "serve":
                partitions = range(self._system.partitions)
                return all(self._answered.get(each, 0.0) > waiting.since for each in partitions)
            case "learn":
                return self._most_examples > waiting.examples and self._system.ready("learn")
            case "gateway":
                return gateway and self._system.ready("gateway")
            case _:
                return self._workload.last_acknowledged > waiting.since

    def _gateway_ready(self) -> bool:
        address = self._system.gateway
        if not address:
            return False
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=HTTP_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def percentiles(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Median and 99th percentile (the nearest rank) of each process that has any."""
    found = {}
    for name, values in seconds.items():
        if values:
            ranked = sorted(values)
            found[name] = {
                "p50": round(ranked[math.ceil(0.50 * len(ranked)) - 1], 2),
                "p99": round(ranked[math.ceil(0.99 * len(ranked)) - 1], 2),
            }
    return found
