"""What each part of the learner is worth: recall with it and without it, on the same stream.

    python -m benchmarks.ablations movielens:FOLDER --seeds 3 --jobs 2

The reference is the whole learner in the same run. Parts are taken away from outside: by a setting where there is one,
else by putting something else in their place while the run lasts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from learner import online, ranking
from learner.encoder import TextEncoder
from learner.evaluation import Stream, evaluate
from learner.mixer import FEATURES, Mixer
from learner.outcomes import DEPTH
from learner.ranking import Candidates
from schemas.errors import ExplainedError
from schemas.settings import Settings
from streams.evaluate import WARM_EPOCHS, WARM_SHARE, read_examples
from streams.sources import open_history


@contextmanager
def put(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Something else in this place, for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def blind_to(*features: str) -> AbstractContextManager[None]:
    """The mixer sees nothing of these features."""
    columns, find = [FEATURES.index(name) for name in features], online.find

    def blinded(*arguments: Any, **named: Any) -> Candidates:
        candidates = find(*arguments, **named)
        seen = candidates.features.clone()
        seen[..., columns] = 0.0
        return replace(candidates, features=seen)

    return put(online, "find", blinded)


def linear() -> AbstractContextManager[None]:
    def forward(self: Mixer, features: Tensor, scenario: int) -> Tensor:
        return features @ self.linear[scenario] + 0.0 * self.outward.sum()

    return put(Mixer, "forward", forward)


def timeless() -> AbstractContextManager[None]:
    return put(ranking, "gap_buckets", lambda ages: torch.ones_like(ages, dtype=torch.long))


@dataclass(frozen=True)
class Variant:
    """A learner that lacks something, or has more of it.

    Attributes:
        settings: changed, by section and key.
        without: what is put in the place of what it lacks, while it runs.
    """

    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without: Callable[[], AbstractContextManager[None]] = nullcontext


VARIANTS = {
    "all of it": Variant(),
    "without replay": Variant({"learn": {"replay_batch": 0}}),
    "twice the replay at each step": Variant({"learn": {"replay_batch": 128}}),
    "replay weighs as much as what is new": Variant({"learn": {"replay_weight": 1.0}}),
    "twice the replay, as heavy": Variant({"learn": {"replay_batch": 128, "replay_weight": 1.0}}),
    "half as much replay again": Variant({"learn": {"replay_batch": 96}}),
    "twice the memory": Variant({"learn": {"replay_rows": 8000}}),
    "half the learning rate": Variant({"learn": {"learning_rate": 1.5e-3}}),
    "twice the learning rate": Variant({"learn": {"learning_rate": 6e-3}}),
    "mixer: linear only": Variant(without=linear),
    "mixer: blind to the tower": Variant(without=partial(blind_to, "neural", "similarity")),
    "mixer: blind to co-visitation": Variant(
        without=partial(blind_to, "knn", "forward", "taste", "strongest", "in_row")
    ),
    "mixer: blind to popularity": Variant(without=partial(blind_to, "popular", "popular_lately", "count")),
    "without time gaps": Variant(without=timeless),
    "32 neighbours of an item": Variant({"model": {"neighbours": 32}}),
    "128 neighbours of an item": Variant({"model": {"neighbours": 128}}),
    "256 neighbours of an item": Variant({"model": {"neighbours": 256}}),
    "10 items of history": Variant({"model": {"history": 10}}),
}


@dataclass(frozen=True)
class Outcome:
    """Recall@10 of one run: whole, of the second half, of cold items, and of the tower by itself; and its speed."""

    recall: float
    second_half: float
    cold: float
    tower: float
    examples_per_second: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="movielens:FOLDER, or a .jsonl, .csv or .parquet file (also .gz)")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each on one thread")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = list(dict.fromkeys(["all of it", *arguments.variants]))
    try:
        settings, stream = prepare(arguments.source, arguments.limit)
    except ExplainedError as error:
        sys.exit(f"no data, no figure: {error}")
    runs = [(name, seed) for name in names for seed in range(arguments.seeds)]
    found: dict[str, list[Outcome]] = {name: [] for name in names}
    with ProcessPoolExecutor(arguments.jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        outcomes = pool.map(partial(run, settings, stream), *zip(*runs, strict=True))
        for (name, seed), outcome in zip(runs, outcomes, strict=True):
            found[name].append(outcome)
            print(f"{name}, seed {seed}: {outcome.recall:.4f}", file=sys.stderr, flush=True)
    figures = {name: mean(each) for name, each in found.items()}
    if arguments.json:
        print(json.dumps({name: vars(each) for name, each in figures.items()}))
        return
    whole = figures["all of it"]
    print(f"{'':40}{'recall@10':>10}{'less':>8}{'2nd half':>10}{'cold':>8}{'tower':>8}{'learnt':>9}")
    for name, each in figures.items():
        print(
            f"{name:40}{each.recall:>10.4f}{100 * (each.recall - whole.recall):>+8.2f}{each.second_half:>10.4f}"
            f"{each.cold:>8.4f}{each.tower:>8.4f}{each.examples_per_second:>7.0f}/s"
        )


def prepare(source: str, limit: int | None) -> tuple[Settings, Stream]:
    settings = Settings()
    read = read_examples(settings, open_history(source, items=None, event=None), None, limit)
    texts = TextEncoder(settings.model.encoder).encode([item.prose for item in read.items])
    return read.settings, Stream(read.items, texts, read.examples, round(WARM_SHARE * len(read.examples)))


def run(settings: Settings, stream: Stream, name: str, seed: int) -> Outcome:
    variant = VARIANTS[name]
    changed = {
        section: msgspec.structs.replace(getattr(settings, section), **keys)
        for section, keys in variant.settings.items()
    }
    began = time.perf_counter()
    with variant.without():
        results = evaluate(
            msgspec.structs.replace(settings, **changed),
            stream,
            ["headstream", "no-mixer"],
            seed,
            WARM_EPOCHS,
            lambda *_: None,
        )
    seconds = time.perf_counter() - began
    hit, tower = (np.concatenate(results.marks[model].places) < DEPTH for model in ("headstream", "no-mixer"))
    return Outcome(
        recall=float(hit.mean()),
        second_half=float(hit[len(hit) // 2 :].mean()),
        cold=float(hit[results.tested.cold].mean()),
        tower=float(tower.mean()),
        examples_per_second=len(stream.examples) / seconds,
    )


def mean(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*np.mean([list(vars(each).values()) for each in outcomes], axis=0).tolist())


if __name__ == "__main__":
    main()
