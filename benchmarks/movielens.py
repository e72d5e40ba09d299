"""All 100,000 MovieLens events through the running system at full speed: nothing lost, nothing twice, how good.


Recall@10 is LEARN's own prequential one: each example was ranked, among the full shelf less what its user has seen,
before anything learnt from it. The reference, over the same events in time order: popularity, ranked the same way.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from confluent_kafka import Consumer, TopicPartition
from rich.console import Console

from benchmarks.rig import Rig, running, wait_until
from schemas.records import decode_example
from streams.playback import play
from streams.sources import open_history

SHELVES = ("family", "thrill", "action", "comedy", "drama")
WARM = 0.3

TOGETHER = "together"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="ml-100k, as GroupLens or RecBole pack it")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not Path(arguments.folder).is_dir():
        sys.exit(f"{arguments.folder} is not a folder: no data, no figure")
    toml = "".join(f"[scenarios.{name}]\n" for name in SHELVES)
    with running(toml) as rig:
        began = time.monotonic()
        peak: dict[str, float] = defaultdict(float)
        stop = threading.Event()
        sampling = threading.Thread(target=sample_memory, args=(rig, peak, stop), daemon=True)
        sampling.start()
        source, console = f"movielens:{arguments.folder}", Console(stderr=True)
        report = play(
            rig.settings, rig.broker, source, scenario=None, event=None, items=None, speed=None, limit=None,
            progress=console, stop=threading.Event(),
        )  # fmt: skip
        wait_until(lambda: rig.examples() >= WARM * report.taken, "the first part is learnt", 900)
        warm = counts(rig)
        wait_until(lambda: rig.examples() >= report.taken, "everything is learnt", 1500)
        seconds = time.monotonic() - began
        whole = counts(rig)
        stop.set()
        sampling.join()
        sources, examples = distinct_sources(rig), rig.examples()
    learnt = (whole[0] - warm[0]) / max(1, whole[1] - warm[1])
    popularity = popularity_recall(arguments.folder)
    figures = {
        "events": report.taken,
        "examples_learnt": examples,
        "distinct_source_offsets": sources,
        "seconds": round(seconds, 1),
        "recall@10": round(learnt, 4),
        "popularity_recall@10": round(popularity, 4),
        "ratio": round(learnt / popularity, 3),
        "peak_resident_mb": {name: round(value) for name, value in peak.items() if name != TOGETHER},
        "peak_resident_mb_added_up": round(sum(value for name, value in peak.items() if name != TOGETHER)),
        "peak_memory_mb_together": round(peak[TOGETHER]),
        "targets": {"examples": 100_000, "ratio": 1.6, "memory_mb": 3000},
    }
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:26} {value}")


def counts(rig: Rig) -> tuple[int, int]:
    """Hits and tested examples so far, over all shelves."""
    heads = rig.store.heads().values()
    return sum(head.hits for head in heads), sum(head.tested for head in heads)


def sample_memory(rig: Rig, peak: dict[str, float], stop: threading.Event) -> None:
    """Note the most that each process had resident, and the most that all took together, shared pages once."""
    while not stop.wait(1.0):
        memory = {name: rig.memory_mb(name) for name in ("broker", "serve", "learn")}
        for name, (resident, _) in memory.items():
            peak[name] = max(peak[name], resident)
        peak[TOGETHER] = max(peak[TOGETHER], sum(share for _, share in memory.values()))


def distinct_sources(rig: Rig) -> int:
    consumer = Consumer({"bootstrap.servers": rig.broker, "group.id": "count", "enable.partition.eof": True})
    found: set[tuple[str, int, int]] = set()
    for name in SHELVES:
        consumer.assign([TopicPartition(rig.topics.examples(name), 0, 0)])
        while (record := consumer.poll(10.0)) is not None and not record.error():
            value = record.value()
            assert value is not None
            example = decode_example(value)
            found.add((name, example.partition, example.offset))
    consumer.close()
    return len(found)


def popularity_recall(folder: str) -> float:
    """Recall@10 of plain counts over the last 70 % of the events in time order; full shelf less seen."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    stream = []
    for row in open_history(f"movielens:{folder}", items=None, event=None).events():
        assert isinstance(row.record, dict)
        user = users.setdefault(row.record["user_id"], len(users))
        item = items.setdefault(row.record["item_id"], len(items))
        stream.append((user, item, SHELVES.index(str(row.scenario))))
    shelf = np.full(len(items), -1)
    for _, item, number in stream:
        shelf[item] = number
    popular, seen = np.zeros(len(items)), np.zeros((len(users), len(items)), dtype=bool)
    hits, tested, first = 0, 0, int(WARM * len(stream))
    for position, (user, item, number) in enumerate(stream):
        if position >= first:
            candidates = (shelf == number) & ~seen[user]
            above = (popular > popular[item]) & candidates
            level = (popular == popular[item]) & candidates
            hits += above.sum() + (level.sum() - 1) // 2 < 10
            tested += 1
        popular[item] += 1
        seen[user, item] = True
    return hits / tested


if __name__ == "__main__":
    main()
