"""How well the learner ranks on real data from a cold start: MovieLens 100k in five genre shelves, beside popularity.

All items are put first, with title, year and genres as text. Then all events pass in time order, each tested before it
is learnt from: recall@10 over the full shelf minus what the user has seen, averaged over the last 70 % of the events.

    python benchmarks/movielens_learner.py FOLDER    # with ml-100k.inter and ml-100k.item, in RecBole's format
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec
import torch

from learner.encoder import TextEncoder
from learner.online import OnlineLearner
from schemas.items import Item
from schemas.packed import pack, pack_times, unpack
from schemas.records import Example
from schemas.settings import Learn, Scenario, Settings

SHELVES = {
    "family": {"Children's", "Animation", "Musical", "Fantasy"},
    "thrill": {"Thriller", "Crime", "Mystery", "Horror", "Film-Noir"},
    "action": {"Action", "Adventure", "Sci-Fi", "War", "Western"},
    "comedy": {"Comedy"},
}
OTHER_SHELF = "drama"
SCENARIOS = (*SHELVES, OTHER_SHELF)
EVENTS_AT_ONCE = 256
HISTORY = 20
WARM_SHARE = 0.3
TOP = 10
HALF_LIFE = 3000.0


@dataclass(frozen=True)
class Event:
    user: str
    item: str
    time: float


class CountedPopularity:
    """What popularity alone would recommend: all counts alike, or halving every `HALF_LIFE` events of the shelf."""

    def __init__(self, shelf_of: dict[str, str], half_life: float) -> None:
        self._shelf_of = shelf_of
        self._growth = 2.0 ** (1.0 / half_life)
        self._counts: dict[str, dict[str, float]] = {name: {} for name in SCENARIOS}
        for item, shelf in shelf_of.items():
            self._counts[shelf][item] = 0.0
        self._unit = dict.fromkeys(SCENARIOS, 1.0)

    def hit(self, example: Example) -> bool:
        """Whether the target is in the top, of what the user has not seen."""
        counts = self._counts[self._shelf_of[example.item_id]]
        own, seen = counts[example.item_id], set(unpack(example.excluded))
        above = sum(count > own for item, count in counts.items() if item not in seen)
        tied = sum(count == own for item, count in counts.items() if item not in seen) - 1
        return above + tied / 2 < TOP

    def learn(self, example: Example) -> None:
        shelf = self._shelf_of[example.item_id]
        self._unit[shelf] *= self._growth
        self._counts[shelf][example.item_id] += self._unit[shelf]


def read_items(folder: Path) -> tuple[list[Item], dict[str, str]]:
    """All items, and the shelf of each."""
    with (folder / "ml-100k.item").open() as stream:
        rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    items, shelf_of = [], {}
    for item_id, title, year, genres in rows:
        shelf = next((name for name, named in SHELVES.items() if named & set(genres.split())), OTHER_SHELF)
        shelf_of[item_id] = shelf
        items.append(Item(item_id=item_id, title=f"{title} ({year})", text=genres, scenarios=(shelf,)))
    return items, shelf_of


def read_events(folder: Path) -> list[Event]:
    """All events in the order in which they happened."""
    with (folder / "ml-100k.inter").open() as stream:
        rows = list(csv.reader(stream, delimiter="\t"))[1:]
    return sorted((Event(user, item, float(at)) for user, item, _, at in rows), key=lambda event: event.time)


def as_examples(events: Sequence[Event], shelf_of: dict[str, str]) -> Iterator[tuple[str, Example]]:
    """Each event as serving would pass it on, with its shelf."""
    history: dict[str, deque[Event]] = defaultdict(lambda: deque(maxlen=HISTORY))
    seen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for offset, event in enumerate(events):
        shelf, past = shelf_of[event.item], history[event.user]
        yield (
            shelf,
            Example(
                partition=0,
                offset=offset,
                user_id=event.user,
                time=event.time,
                event="rating",
                item_id=event.item,
                weight=1.0,
                history=pack(before.item for before in past),
                history_times=pack_times(before.time for before in past),
                excluded=pack(seen[event.user, shelf]),
            ),
        )
        past.append(event)
        seen[event.user, shelf].append(event.item)


def run(folder: Path, limit: int | None, learn: Learn) -> dict[str, object]:
    """Pass the events through the learner and both popularities; figures by name."""
    torch.set_num_threads(1)
    items, shelf_of = read_items(folder)
    events = read_events(folder)[:limit]
    settings = Settings(
        scenarios={name: Scenario() for name in SCENARIOS},
        learn=msgspec.structs.replace(learn, recall_window=len(events)),
    )
    encoder = TextEncoder(settings.model.encoder)
    learner = OnlineLearner(settings, encoder.dimension, torch.device("cpu"))
    learner.put_items(items, encoder.encode([item.prose for item in items]))
    rivals = {
        "popularity": CountedPopularity(shelf_of, math.inf),
        "decayed popularity": CountedPopularity(shelf_of, HALF_LIFE),
    }
    examples = list(as_examples(events, shelf_of))
    warm = round(WARM_SHARE * len(examples))
    hits = dict.fromkeys(rivals, 0)
    curve = []
    spent, before = 0.0, dict.fromkeys(SCENARIOS, 0.0)
    counted_before = dict.fromkeys(SCENARIOS, 0)
    starts = sorted({*range(0, len(examples), EVENTS_AT_ONCE), warm})
    for start, end in zip(starts, [*starts[1:], len(examples)], strict=True):
        if start == warm:
            before, counted_before = hits_of(learner), dict(learner.examples)
        for _, example in examples[start:end]:
            for name, rival in rivals.items():
                hits[name] += start >= warm and rival.hit(example)
        for _, example in examples[start:end]:
            for rival in rivals.values():
                rival.learn(example)
        begun = time.thread_time()
        for scenario in SCENARIOS:
            learner.learn(scenario, [example for shelf, example in examples[start:end] if shelf == scenario])
        spent += time.thread_time() - begun
        curve.append(sum(hits_of(learner).values()))
    tested = len(examples) - warm
    after = hits_of(learner)
    recall = {name: count / tested for name, count in hits.items()}
    recall["headstream"] = (sum(after.values()) - sum(before.values())) / tested
    return {
        "events": len(examples),
        "recall@10": recall,
        "ratio": recall["headstream"] / max(recall["popularity"], recall["decayed popularity"]),
        "by_scenario": {
            name: (after[name] - before[name]) / max(1, learner.examples[name] - counted_before[name])
            for name in SCENARIOS
        },
        "by_tenth": tenths(curve, len(examples)),
        "examples_per_cpu_second": len(examples) / spent,
        "steps": learner.step,
    }


def hits_of(learner: OnlineLearner) -> dict[str, float]:
    """Hits of each scenario so far; the recall window holds every event of the run."""
    return {name: (learner.recall[name] or 0.0) * learner.examples[name] for name in SCENARIOS}


def tenths(curve: Sequence[float], events: int) -> list[float]:
    """Recall in each tenth of the stream, from the running number of hits."""
    marks = [0.0, *(curve[min(len(curve) - 1, round(len(curve) * tenth / 10) - 1)] for tenth in range(1, 11))]
    return [round((later - earlier) / (events / 10), 4) for earlier, later in pairwise(marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with ml-100k.inter and ml-100k.item")
    parser.add_argument("--limit", type=int, help="only the first so many events")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    arguments = parser.parse_args()
    figures = run(arguments.folder, arguments.limit, Learn())
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
