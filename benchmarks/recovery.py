"""How long LEARN takes from kill -9 until its first publication, with a replay memory of a million rows.

    python -m benchmarks.recovery                      # a million rows, five kills
    python -m benchmarks.recovery --rows 50000         # in less than a minute
    python -m benchmarks.recovery --json               # one line for scripts

A checkpoint with a full memory is made, LEARN is started from it on a Kafka of its own, and killed as soon as it is
ready, again and again. The processes are supervised as `headstream up` does it; its pause before a restart counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.rig import percentiles
from learner.online import OnlineLearner
from learner.replay import TrainingBatch
from schemas.configuration import load
from schemas.migrations import upgrade
from schemas.settings import Settings
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.broker import EmbeddedBroker
from streams.store import Store, database_url, open_engine
from streams.supervisor import DEATHS_ALLOWED, DEATHS_WINDOW_SECONDS, Child

ENCODER_DIMENSION = 384
ROWS_AT_ONCE = 10_000
ITEMS = 1000
LOOK_SECONDS = 0.02
PATIENCE_SECONDS = 300.0

console = Console(stderr=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of replay, over all scenarios")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one line for scripts")
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        found = measure(Path(folder), options.rows, options.kills)
    if options.json:
        print(json.dumps(found))
        return
    table = Table("from kill -9 to the first publication", "")
    for name, value in found.items():
        table.add_row(name, str(value))
    Console().print(table)


def measure(folder: Path, rows: int, kills: int) -> dict[str, object]:
    with EmbeddedBroker(folder / "kafka", on_step=console.print) as broker:
        environment = {
            "HEADSTREAM_DATA": str(folder),
            "HEADSTREAM_KAFKA_BROKER": broker.address,
            "HEADSTREAM_LEARN_DEVICE": "cpu",
        }
        scenarios = len(load(None, environment, {}).scenarios)
        environment["HEADSTREAM_LEARN_REPLAY_ROWS"] = str(rows // scenarios)
        settings = load(None, environment, {})
        ensure_topics(broker.address, Topics(settings).all(), 1)
        size = make_checkpoint(settings, folder / "checkpoints" / "00000001")
        command = [sys.executable, "-m", "streams.cli", "learn"]
        child = Child("learn", command, {**os.environ, **environment}, folder / "learn.log")
        child.start()
        await_ready(child)
        seconds, deaths = [], 0
        try:
            for _ in range(kills):
                if deaths and deaths % (DEATHS_ALLOWED - 1) == 0:
                    time.sleep(DEATHS_WINDOW_SECONDS)  # a process that dies more often is given up
                assert child.process is not None
                child.process.kill()
                deaths += 1
                began = time.monotonic()
                child.process.wait()
                child.check()
                await_ready(child)
                seconds.append(time.monotonic() - began)
                console.print(f"kill {deaths}: {seconds[-1]:.1f} s")
        finally:
            child.terminate()
            child.reap(time.monotonic() + 20)
    found = percentiles(seconds)
    return {
        "replay_rows": rows,
        "checkpoint_mb": round(size / 1e6),
        "kills": kills,
        "p50_seconds": found["p50"],
        "p99_seconds": found["p99"],
    }


def make_checkpoint(settings: Settings, folder: Path) -> int:
    """A checkpoint whose replay memory is full, and the row that points at it; returns its size in bytes."""
    learner = OnlineLearner(settings, ENCODER_DIMENSION, torch.device("cpu"))
    for number in range(ITEMS):
        learner.table.add(f"i{number}")
    generator, length = torch.Generator().manual_seed(0), settings.model.history
    for scenario in range(len(settings.scenarios)):
        for start in range(0, settings.learn.replay_rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, settings.learn.replay_rows - start)
            batch = TrainingBatch(
                scenario=torch.full((count,), scenario),
                history=torch.randint(1, ITEMS, (count, length), generator=generator),
                gaps=torch.randint(1, 16, (count, length), generator=generator),
                target=torch.randint(1, ITEMS, (count,), generator=generator),
                weight=torch.ones(count),
            )
            learner._replay.add(scenario, batch, [1] * count, generator)  # nothing public fills it without learning
    covered = {"examples": [], "items": [], "control": [], "performed": [], "consolidating": None}
    sha256 = learner.save(folder, covered)
    engine = open_engine(database_url(settings))
    upgrade(engine)
    store = Store(engine, f"{settings.kafka.prefix}learn", "benchmark")
    with engine.begin() as connection:
        store.add_checkpoint(connection, 1, folder, sha256, 0)
    store.close()
    return sum(file.stat().st_size for file in folder.iterdir())


def await_ready(child: Child) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while child.state != "ready":
        if time.monotonic() > deadline:
            raise TimeoutError(f"LEARN is not ready after {PATIENCE_SECONDS:.0f} s:\n{child.last_words()}")
        child.check()
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
