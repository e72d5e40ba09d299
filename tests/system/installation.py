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
from functools import cached_property
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.configuration import load
from schemas.migrations import upgrade
from schemas.recommendations import Recommendation, decode_recommendation
from schemas.records import Example, decode_example
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.erasures import Erasures
from streams.receipts import Receipt, read_receipt
from streams.status import ScenarioStatus, read_scenarios
from streams.store import Store, database_url, open_engine

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
    """One installation: what its environment variables say, and the processes that work on it."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, own_broker: str = "") -> None:
        """Make its topics; nothing runs yet.

        Args:
            folder: for the processes' logs.
            environment: `HEADSTREAM_…` variables, the whole configuration.
            own_broker: where the test itself meets the same cluster, if it is not there where the processes do.
        """
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self.settings = load(None, environment, {})
        self.broker = own_broker or self.settings.kafka.broker
        self.topics = Topics(self.settings)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        ensure_topics(self.broker, self.topics.all(), replication=1)
        self._producer = Producer({"bootstrap.servers": self.broker, "linger.ms": 5, "message.max.bytes": 8_000_000})

    # Processes

    def start(self, command: str, name: str | None = None, **environment: str) -> None:
        """Start a command as a process, called `name` from now on, with variables of its own."""
        name = name or command
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*HEADSTREAM, command],
                env={**self._environment, **environment},
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
        return (self._folder / f"{name}.log").read_text()

    def close(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if "_store" in self.__dict__:
            self._store.close()

    def command(self, *arguments: str) -> str:
        done = subprocess.run([*HEADSTREAM, *arguments], env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def fails(self, *arguments: str) -> str:
        """What a command says that ends with exit code 1."""
        done = subprocess.run([*HEADSTREAM, *arguments], env=self._environment, capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        return done.stdout + done.stderr

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

    def request_similar(self, scenario: str, item: str, request: str, **more: Any) -> None:
        body = {"request_id": request, "item_id": item, "scenario": scenario, **more}
        self.send(self.topics.requests, body, item)

    def flush(self) -> None:
        assert self._producer.flush(30) == 0

    # Asking

    @cached_property
    def _store(self) -> Store:
        engine = open_engine(database_url(self.settings))
        upgrade(engine)
        return Store(engine, f"{self.settings.kafka.prefix}serve", "test")

    def scenarios(self) -> dict[str, ScenarioStatus]:
        """What the database says of each scenario: quicker to ask than `status`, but it knows no lag."""
        return read_scenarios(self.settings, self._store)

    def receipt(self, erasure_id: str) -> Receipt:
        """How far an erasure is, but for what Kafka holds."""
        return read_receipt(Erasures(self._store.engine), erasure_id, ())

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
        return self._answer_to(scenario, request)

    def similar(self, scenario: str, item: str, **more: Any) -> Recommendation:
        """Ask what is similar to an item, and wait for the answer."""
        request = uuid.uuid4().hex
        self.request_similar(scenario, item, request, **more)
        return self._answer_to(scenario, request)

    def _answer_to(self, scenario: str, request: str) -> Recommendation:
        self.flush()
        found = until(
            lambda: [each for each in self.recommendations(scenario) if each.request_id == request],
            f"an answer to {request}",
        )
        return found[0]

    def examples(self, scenario: str) -> list[Example]:
        return [decode_example(record.value()) for record in self.records(self.topics.examples(scenario))]
