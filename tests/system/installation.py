"""An installation under test: whole processes against a real Kafka, fed and asked as from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.recommendations import Recommendation, decode_recommendation
from schemas.settings import Kafka, Settings
from schemas.topics import Topics
from streams.administration import ensure_topics

PATIENCE_SECONDS = 180.0
COMMAND_SECONDS = 180.0

HEADSTREAM = [sys.executable, "-m", "streams.cli"]


def here(**more: str) -> dict[str, str]:
    """The environment in which a process of any folder runs this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}


def headstream(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which must come with this exit code."""
    done = subprocess.run(
        [*HEADSTREAM, *arguments],
        cwd=cwd,
        env=here(COLUMNS="200"),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
    )
    assert done.returncode == code, done.stderr
    return done


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until `condition` gives something true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Installation:
    """One installation: a data folder, a topic prefix, and the processes that work on them."""

    def __init__(self, broker: str, prefix: str, data: Path, environment: Mapping[str, str]) -> None:
        self.broker = broker
        self.data = data
        kafka = Kafka(broker=broker, prefix=prefix, partitions=4)
        self.settings = Settings(data=str(data), kafka=kafka)
        self.topics = Topics(self.settings)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        ensure_topics(broker, self.topics.all(), replication=1)
        self._environment = {
            **os.environ,
            "HEADSTREAM_DATA": str(data),
            "HEADSTREAM_KAFKA_BROKER": broker,
            "HEADSTREAM_KAFKA_PREFIX": prefix,
            "HEADSTREAM_KAFKA_PARTITIONS": "4",
            **environment,
        }
        self._producer = Producer({"bootstrap.servers": broker, "linger.ms": 5, "message.max.bytes": 8_000_000})

    # Processes

    def start(self, command: str, name: str | None = None) -> None:
        name = name or command
        with (self.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*HEADSTREAM, command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(20)

    def log(self, name: str) -> str:
        return (self.data / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self, *arguments: str) -> str:
        done = subprocess.run([*HEADSTREAM, *arguments], env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # Publishing

    def send(self, topic: str, value: bytes | dict[str, Any] | None, key: str | None = None, **more: Any) -> None:
        if isinstance(value, dict):
            value = json.dumps(value).encode()
        self._producer.produce(topic, value, key, **more)
        self._producer.poll(0)

    def event(self, scenario: str, user: str, item: str, event: str = "click", **more: Any) -> None:
        self.send(self.topics.events(scenario), {"user_id": user, "item_id": item, "event": event, **more}, user)

    def item(self, item: str, title: str, **more: Any) -> None:
        self.send(self.topics.items, {"item_id": item, "title": title, **more}, item)

    def request(self, scenario: str, user: str, request: str, **more: Any) -> None:
        body = {"request_id": request, "user_id": user, "scenario": scenario, **more}
        self.send(self.topics.requests, body, user)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    # Asking

    def status(self) -> Any:
        return json.loads(self.command("status", "--json"))

    def records(self, topic: str) -> list[Any]:
        """All committed records that a topic holds now."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": "test-reader",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.message.max.bytes": 10_000_000,
            }
        )
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            found, at_end = [], set()
            while len(at_end) < len(partitions):
                record = consumer.poll(10)
                assert record is not None
                if record.error():
                    at_end.add(record.partition())
                else:
                    found.append(record)
            return found
        finally:
            consumer.close()

    def recommendations(self, scenario: str) -> list[Recommendation]:
        topic = self.topics.recommendations(scenario)
        return [decode_recommendation(record.value()) for record in self.records(topic)]

    def answer(self, scenario: str, user: str, **more: Any) -> Recommendation:
        """Ask, and wait for the answer."""
        request = uuid.uuid4().hex
        self.request(scenario, user, request, **more)
        self.flush()
        found = until(
            lambda: [each for each in self.recommendations(scenario) if each.request_id == request],
            f"an answer to {request}",
        )
        return found[0]

    def examples(self, scenario: str) -> list[Any]:
        from schemas.records import decode_example

        return [decode_example(record.value()) for record in self.records(self.topics.examples(scenario))]
