"""A GATEWAY as a process of its own, for modules whose tests share one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas.configuration import load
from schemas.migrations import upgrade
from schemas.settings import Settings
from schemas.topics import Topics
from streams.history import History
from streams.store import Store, database_url, open_engine

TOKEN = "open sesame, open sesame"
READY_SECONDS = 60


@dataclass(frozen=True)
class Running:
    """Where it answers, and what lies behind it."""

    url: str
    broker: str
    settings: Settings
    history: History
    store: Store

    @property
    def topics(self) -> Topics:
        return Topics(self.settings)


@contextmanager
def running_gateway(broker: str, folder: Path, scenarios: Sequence[str]) -> Iterator[Running]:
    """With topics and a database of its own, both of them empty."""
    config = folder / "headstream.toml"
    shelves = "".join(f"[scenarios.{name}]\ncontrol = 0.1\n" for name in scenarios)
    kafka = f'[kafka]\nbroker = "{broker}"\npartitions = 2\nprefix = "b-{os.urandom(4).hex()}."\n'
    config.write_text(f'data = "{folder}"\n{kafka}[gateway]\nport = 0\ntoken = "{TOKEN}"\n{shelves}')
    settings = load(config, {}, {})
    engine = open_engine(database_url(settings))
    upgrade(engine)
    log = folder / "gateway.log"
    with log.open("w") as output:
        command = [sys.executable, "-m", "streams.cli", "gateway", "--config", str(config)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        url = _address(log, process)
        yield Running(url, broker, settings, History(engine), Store(engine, "test", "test"))
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()
        engine.dispose()


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if "answers on http" in line:
                return line.rsplit(" ", 1)[1].strip()
        time.sleep(0.05)
    raise AssertionError(f"GATEWAY did not start: {log.read_text()}")
