"""Time of one learning step against the size of the catalogue, and what Avalanche adds to it.

A step is a micro-batch of new examples and as many replayed ones. Items are synthetic: random vectors, a heavy-tailed
popularity, a share of them used before. The reference is the smallest catalogue of the same run; Avalanche's is the
plain strategy on the same examples, taken in turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from learner.online import OnlineLearner
from learner.strategy import MakeStrategy, PlainStrategy
from schemas.items import Item
from schemas.packed import pack, pack_times
from schemas.records import Example
from schemas.settings import Learn, Model, Scenario, Settings

SCENARIOS = ("shop", "video", "news", "travel", "social")
TEXT_DIMENSION = 64
ITEMS_AT_ONCE = 50_000
USED_SHARE = 0.5
PARTS = {"rank": "_test", "step": "_train", "mix": "_mix", "count": "_count"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    curve = {items: steps(items, arguments.steps) for items in arguments.items}
    overhead = avalanche(arguments.items[0], arguments.steps)
    if arguments.json:
        print(json.dumps({"milliseconds": curve, "avalanche": overhead}))
        return
    first = next(iter(curve.values()))
    print(f"{'items':>10}" + "".join(f"{part:>17}" for part in first))
    for items, parts in curve.items():
        row = "".join(f"{value:>8.2f} ms {value / first[part]:>4.2f}x" for part, value in parts.items())
        print(f"{items:>10,}{row}")
    print("avalanche " + " ".join(f"{name} {value}" for name, value in overhead.items()))


def steps(items: int, count: int) -> dict[str, float]:
    """Median milliseconds of each part of a step."""
    learner = taught(items)
    spent: dict[str, list[float]] = defaultdict(list)
    with timed(learner, spent):
        for number in range(count):
            learner.learn(SCENARIOS[number % len(SCENARIOS)], examples(items, number))
    return {part: round(1000 * statistics.median(spent[part]), 3) for part in spent}


def avalanche(items: int, count: int) -> dict[str, float]:
    """Milliseconds of a gradient step by the plain strategy and by Avalanche's, in turns on the same examples."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from learner.avalanche import AvalancheStrategy
    makers: dict[str, MakeStrategy] = {"plain": PlainStrategy, "avalanche": AvalancheStrategy}
    learners = {name: taught(items) for name in makers}
    spent: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in makers}
    for name, learner in learners.items():
        learner.adopt(makers[name])
    for number in range(count):
        for name, learner in learners.items():
            with timed(learner, spent[name]):
                learner.learn(SCENARIOS[number % len(SCENARIOS)], examples(items, number))
    milliseconds = {name: 1000 * statistics.median(spent[name]["step"]) for name in makers}
    return {
        **{f"{name}_ms": round(value, 3) for name, value in milliseconds.items()},
        "overhead": round(milliseconds["avalanche"] / milliseconds["plain"] - 1, 4),
    }


@contextmanager
def timed(learner: OnlineLearner, spent: dict[str, list[float]]) -> Iterator[None]:
    """Note the seconds of each part of learning."""
    for part, name in PARTS.items():
        setattr(learner, name, stopwatch(getattr(learner, name), spent[part]))
    yield
    for name in PARTS.values():
        delattr(learner, name)


def stopwatch(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed_call(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    return timed_call


def taught(items: int) -> OnlineLearner:
    """A learner that knows so many items, of which a share was used and thirty micro-batches were learnt."""
    settings = Settings(scenarios={name: Scenario() for name in SCENARIOS}, model=Model(items=items + 1), learn=Learn())
    learner = OnlineLearner(settings, TEXT_DIMENSION, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for start in range(0, items, ITEMS_AT_ONCE):
        some = range(start, min(start + ITEMS_AT_ONCE, items))
        known = [Item(item_id=f"i{number}", scenarios=[SCENARIOS[number % len(SCENARIOS)]]) for number in some]
        learner.put_items(known, torch.randn(len(known), TEXT_DIMENSION, generator=generator))
    rows = torch.arange(1, items + 1)
    for number in range(len(SCENARIOS)):
        shelf = rows[(rows - 1) % len(SCENARIOS) == number]
        used = shelf[torch.rand(len(shelf), generator=generator) < USED_SHARE]
        learner.table.popularity.update(number, used, 0.0)
    for number in range(30):
        learner.learn(SCENARIOS[number % len(SCENARIOS)], examples(items, number, seed=1))
    return learner


def examples(items: int, number: int, seed: int = 2) -> Sequence[Example]:
    """A micro-batch of one scenario."""
    scenario, size = number % len(SCENARIOS), 64
    generator = torch.Generator().manual_seed(1000 * seed + number)
    # Rank r is drawn about 1 / r as often as the first one.
    ranks = (items / len(SCENARIOS)) ** torch.rand(size, 21, generator=generator)
    ids = [[f"i{len(SCENARIOS) * (int(rank) - 1) + scenario}" for rank in user] for user in ranks]
    now = 1_700_000_000.0 + 100.0 * number
    return [
        Example(
            partition=seed,
            offset=size * number + user,
            user_id=f"u{user}",
            time=now,
            event="view",
            item_id=own[-1],
            weight=1.0,
            history=pack(own[:-1]),
            history_times=pack_times([now - 60.0 * back for back in range(20, 0, -1)]),
            excluded=pack(own[:-1]),
        )
        for user, own in enumerate(ids)
    ]


if __name__ == "__main__":
    main()
