"""SERVE's snapshot at a million items: what writing it costs rankings, and what starting from it saves.

    python -m benchmarks.snapshot                    # a million items, of which a fifth have neighbours
    python -m benchmarks.snapshot --items 50000      # in seconds
    python -m benchmarks.snapshot --json             # one line for scripts

The reference is what a start without a snapshot does with the same items: every record of the items and the vectors
topic is decoded and placed. Kafka is left out on both sides, so a real start takes longer still. Beside the seconds on
the clock stand those of the CPU, which depend less on what else the machine does.

Rankings are those of one user at a time, one after the other; they run first alone, then beside a snapshot being
written. Their nearest items are given and not searched for: at this size a search takes long enough to hide a pause.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.rig import percentiles
from learner.ranking import Question, rank, warm_up
from schemas.records import ItemVector, encode
from schemas.settings import Model, Scenario, Settings
from schemas.topics import Topics
from streams.background import give_way
from streams.following import PAUSE_SECONDS
from streams.mirror import Mirror, Noted
from streams.snapshot import made_for, read_snapshot, write_snapshot
from streams.worker import SWITCH_SECONDS

RECORDS_AT_ONCE = 500
"""As many as SERVE takes of one poll."""
CATEGORIES = 200
TEXT = "Waterproof, for muddy hills; with a sole that grips. " * 4


@dataclass(frozen=True)
class Record:
    """What an aiokafka record has."""

    key: bytes
    value: bytes
    timestamp: int


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--paired", type=float, default=0.2, help="share of the items that have neighbours")
    parser.add_argument("--scenarios", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of ranking without a snapshot being written")
    parser.add_argument("--folder", type=Path, help="where to write it; a temporary folder if left out")
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_SECONDS)  # as SERVE does
    with TemporaryDirectory(dir=arguments.folder, prefix="headstream-") as folder:
        figures = measure(arguments, Path(folder) / "snapshot")
    if arguments.json:
        print(json.dumps(figures))
    else:
        table = Table(title=f"SERVE's snapshot, {arguments.items:,} items, {arguments.scenarios} scenarios")
        table.add_column("what")
        table.add_column("figure", justify="right")
        for name, figure in figures.items():
            table.add_row(name, f"{figure:,}")
        Console(width=100).print(table)


def measure(arguments: argparse.Namespace, file: Path) -> dict[str, float]:
    """All figures; times in seconds unless their names say milliseconds."""
    settings = Settings(
        scenarios={f"scenario-{number}": Scenario() for number in range(arguments.scenarios)},
        model=Model(items=max(arguments.items, 1000)),
    )
    figures: dict[str, float] = {"items": arguments.items}
    mirror = Mirror(settings, torch.device("cpu"))
    figures |= place(mirror, settings, arguments.items, arguments.paired)
    figures["resident MB of the process, all placed"] = resident()
    warm_up(settings.model)
    figures |= {f"ranking alone, ms, {name}": value for name, value in ranked(mirror, arguments.seconds).items()}

    topics = Topics(settings)
    purpose = made_for(settings, {})
    positions = {(topics.items, 0): arguments.items, (topics.vectors, 0): arguments.items}

    def write(noted: Noted) -> int:
        pause = partial(time.sleep, PAUSE_SECONDS)
        return write_snapshot(file, purpose, noted, positions, time.time(), pause=pause)

    before = resident()
    began = time.perf_counter()
    noted = mirror.note()
    figures["noting, on the worker thread, ms"] = round(1e3 * (time.perf_counter() - began), 1)
    with ThreadPoolExecutor(1, initializer=give_way) as writer:
        writing = writer.submit(timed_write, partial(write, noted))
        beside = ranked(mirror, float("inf"), until=writing)
        size, seconds, peak = writing.result()
    figures |= {f"ranking beside the writing, ms, {name}": value for name, value in beside.items()}
    figures["writing beside rankings"] = seconds
    figures["more resident MB while writing"] = round(peak - before, 1)
    figures["writing alone"] = timed_write(partial(write, mirror.note()))[1]
    figures["file, MB"] = round(size / 1e6, 1)

    clock = Clock()
    found = read_snapshot(file, purpose, settings, positions, time.time())
    figures["restoring, until it can answer"], figures["restoring, CPU"] = clock.seconds()
    assert found is not None
    assert len(found.mirror.table) == arguments.items
    return figures


def place(mirror: Mirror, settings: Settings, items: int, paired: float) -> dict[str, float]:
    """Fill the mirror from encoded records of both topics; what is measured is taking them in, not making them."""
    generator = torch.Generator().manual_seed(0)
    took = [0.0, 0.0]
    for start in range(1, items + 1, RECORDS_AT_ONCE):
        rows = range(start, min(start + RECORDS_AT_ONCE, items + 1))
        published, vectors = list(item_records(rows)), list(vector_records(rows, settings, items, paired, generator))
        clock = Clock()
        mirror.take_items(published)
        mirror.take_vectors(vectors, rows[-1])
        took = [sum(each) for each in zip(took, clock.seconds(), strict=True)]
    mirror.settle()
    return {"placing all from encoded records": round(took[0], 2), "placing, CPU": round(took[1], 2)}


def item_records(rows: range) -> Iterator[Record]:
    for row in rows:
        body = {
            "item_id": f"item-{row}",
            "title": f"Thing {row}",
            "text": TEXT,
            "categories": [f"c-{row % CATEGORIES}"],
        }
        yield Record(f"item-{row}".encode(), json.dumps(body).encode(), int(time.time() * 1000))


def vector_records(
    rows: range, settings: Settings, items: int, paired: float, generator: torch.Generator
) -> Iterator[Record]:
    """As LEARN publishes them; each is put to use at once, which is the quicker way to take them in."""
    count, scenarios, width = len(rows), len(settings.scenarios), settings.model.neighbours
    vectors = torch.randn(count, settings.model.dimension, generator=generator)
    bias = torch.randn(count, scenarios, generator=generator)
    used = torch.rand(count, generator=generator) < paired
    # What is popular of late is mostly what is popular: were it not so, rankings would look at every row for it.
    keys = torch.rand(count, scenarios, 1, generator=generator, dtype=torch.float64).expand(-1, -1, 2)
    keys = keys.masked_fill(~used[:, None, None], -torch.inf)
    neighbours = torch.randint(1, items + 1, (count, width), generator=generator, dtype=torch.int32) * used[:, None]
    together = torch.rand(count, width, generator=generator) * used[:, None]
    for number, row in enumerate(rows):
        record = ItemVector(
            item_id=f"item-{row}", row=row, fresh=True, vector=vectors[number].numpy().tobytes(),
            scenarios=list(settings.scenarios), bias=bias[number].numpy().tobytes(),
            popularity=keys[number].numpy().tobytes(),
            neighbours=neighbours[number].numpy().tobytes(), together=together[number].numpy().tobytes(),
            forward=together[number].numpy().tobytes(), count=1.0, touched=1.0, events=int(used[number]),
        )  # fmt: skip
        yield Record(record.item_id.encode(), encode(record), 0)


def ranked(mirror: Mirror, seconds: float, until: Future[Any] | None = None) -> dict[str, float]:
    """Milliseconds of a ranking, one after the other, for so long or until something is done."""
    scenario, spans = mirror.scenarios[0], []
    generator = torch.Generator().manual_seed(1)
    nearest = torch.randint(1, len(mirror.table), (1, 200), generator=generator)

    def given(*_: object) -> tuple[Tensor, Tensor]:
        return nearest, torch.zeros(1, 200)

    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not (until and until.done()):
        history = torch.randint(1, len(mirror.table), (20,), generator=generator).tolist()
        question = Question(history=history, times=[0.0] * 20, now=1.0, excluded=history)
        began = time.perf_counter()
        rank(mirror.head(scenario).model, mirror.table, 0, mirror.clocks(scenario), [question], mirror.search(scenario))
        spans.append(1e3 * (time.perf_counter() - began))
    return {**percentiles(spans), "count": len(spans)}


def timed_write(write: Callable[[], int]) -> tuple[int, float, float]:
    """Write; the size in bytes, the seconds it took, and how many MB were resident at most."""
    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], resident())

    watching = threading.Thread(target=watch)
    watching.start()
    began = time.perf_counter()
    size = write()
    seconds = round(time.perf_counter() - began, 2)
    done.set()
    watching.join()
    return size, seconds, peak[0]


class Clock:
    """Seconds since it was made, on the clock and of the CPU."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        return round(time.perf_counter() - self._began[0], 4), round(time.process_time() - self._began[1], 4)


def resident() -> float:
    return round(psutil.Process().memory_info().rss / 2**20, 1)


if __name__ == "__main__":
    main()
