"""What the end-to-end benchmarks share: a running system in a temporary folder, and its CPU and memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from confluent_kafka import Producer

from schemas.configuration import load
from schemas.settings import Settings
from schemas.topics import Topics
from streams.store import Store, database_url, open_engine
from streams.supervisor import Supervisor


class Rig:
    """A running system: where it listens, how far it is, what it costs."""

    def __init__(self, settings: Settings, supervisor: Supervisor) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.broker = supervisor.broker
        self._supervisor = supervisor
        self.store = Store(open_engine(database_url(settings)), f"{settings.kafka.prefix}serve", "benchmark")
        self.producer = Producer({"bootstrap.servers": self.broker, "linger.ms": 1})

    def process(self, name: str) -> psutil.Process:
        endpoints = json.loads((Path(self.settings.data) / "endpoints.json").read_text())
        return psutil.Process(endpoints["processes"][name]["pid"])

    def cpu_seconds(self, name: str) -> float:
        times = self.process(name).cpu_times()
        return float(times.user + times.system)

    def memory_mb(self, name: str) -> tuple[float, float]:
        """What is resident, and the process's share of it: libraries that several processes map are there once."""
        memory = self.process(name).memory_full_info()
        return memory.rss / 2**20, memory.pss / 2**20

    def events(self) -> int:
        return sum(count for (_, code), count in self.store.tallies().items() if code == "events")

    def examples(self) -> int:
        return sum(head.examples for head in self.store.heads().values())

    def publish(self, topic: str, body: dict[str, Any], key: str) -> None:
        while True:
            try:
                self.producer.produce(topic, json.dumps(body).encode(), key)
                return
            except BufferError:
                self.producer.poll(0.1)


@contextmanager
def running(toml: str = "", processes: tuple[str, ...] = ("serve", "learn"), data: Path | None = None) -> Iterator[Rig]:
    """Boot a system from this configuration in a temporary folder (or `data`, which is kept), and stop it."""
    with TemporaryDirectory(prefix="headstream-") as temporary:
        folder = data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "headstream.toml").write_text(toml)
        settings = load(folder / "headstream.toml", {}, {"data": str(folder)})
        arguments = ["--config", str(folder / "headstream.toml"), "--data", str(folder)]
        with Supervisor(settings, arguments=arguments, processes=processes) as supervisor:
            stop = threading.Event()
            supervisor.wait_ready(stop)
            watching = threading.Thread(target=supervisor.run, args=(stop,), daemon=True)
            watching.start()
            rig = Rig(settings, supervisor)
            try:
                yield rig
            finally:
                stop.set()
                watching.join()
                rig.store.close()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 1)
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    }
