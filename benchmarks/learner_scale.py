"""How learning scales: time of a step, speed and memory against the size of the catalogue, and what Avalanche adds.

A step is a micro-batch of new examples and as many replayed ones. Items are synthetic: random texts around topics, a
heavy-tailed popularity, half of them used before. The reference is the smallest catalogue of the same run;
Avalanche's is the plain strategy on the same examples, taken in turns.

    python -m benchmarks.learner_scale                        # 10,000, 100,000 and 1,000,000 items, one CPU thread
    python -m benchmarks.learner_scale --device cuda --micro-batch 2048 --items 1000000

`rank` looks at every item of a scenario up to `index.exact_items`, and beyond that into an index of what was published,
as LEARN does; `tell` is what it takes to keep that index, at a publication every 16 steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from learner.online import OnlineLearner
from learner.strategy import MakeStrategy, PlainStrategy
from schemas.items import Item
from schemas.packed import pack, pack_times
from schemas.records import Example
from schemas.settings import Index, Learn, Model, Scenario, Settings
from streams.shortlists import Shortlists

SCENARIOS = ("shop", "video", "news", "travel", "social")
TEXT_DIMENSION = 384
ITEMS_AT_ONCE = 50_000
ITEMS_OF_A_TOPIC = 250
USED_SHARE = 0.5
PARTS = {"rank": "examiner.test", "step": "_train", "mix": "_mix", "count": "_count"}
COLUMNS = (*PARTS, "tell")
PUBLISHED_EVERY = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--micro-batch", type=int, default=64, help="examples in a step, and as many replayed")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--without-avalanche", action="store_true", help="where avalanche-lib is not installed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rig = Rig(torch.device(arguments.device), arguments.micro_batch, arguments.steps)
    curve = {items: rig.parts(items) for items in arguments.items}
    overhead = None if arguments.without_avalanche else rig.avalanche(arguments.items[0])
    if arguments.json:
        print(json.dumps({"device": arguments.device, "milliseconds": curve, "avalanche": overhead}))
        return
    first = next(iter(curve.values()))
    print(f"{'items':>10}" + "".join(f"{part:>17}" for part in COLUMNS) + f"{'learnt':>14}{'ranked':>14}{'peak':>11}")
    for items, parts in curve.items():
        row = "".join(f"{parts[part]:>8.2f} ms {parts[part] / first[part]:>4.2f}x" for part in COLUMNS)
        learnt, ranked, peak = parts["examples/s"], parts["rankings/s"], parts["peak_mib"]
        print(f"{items:>10,}{row}{learnt:>12,.0f}/s{ranked:>12,.0f}/s{peak:>7,.0f} MiB")
    if overhead is not None:
        print("avalanche " + " ".join(f"{name} {value}" for name, value in overhead.items()))


@dataclass(frozen=True)
class Rig:
    """Where to learn, how many examples at once, and how many steps to time."""

    device: torch.device
    micro_batch: int
    steps: int

    def parts(self, items: int) -> dict[str, float]:
        """Median milliseconds of each part of a step, what they come to, and the most memory until then."""
        learner = self.taught(items)
        shortlists = Shortlists(learner.table, Index())
        learner.examiner.search_of = shortlists.search_of
        shortlists.tell(range(1, items + 1))
        while any(index.due for index in shortlists.indexes):
            time.sleep(0.1)
        spent: dict[str, list[float]] = defaultdict(list)
        with timed(learner, spent):
            for number in range(self.steps):
                learner.learn(SCENARIOS[number % len(SCENARIOS)], self.examples(items, number))
                if number % PUBLISHED_EVERY == PUBLISHED_EVERY - 1 and (publication := learner.versions.publish()):
                    told = publication.vectors.rows
                    stopwatch(shortlists.tell, spent["tell"])(told)
        shortlists.close()
        spent["tell"] = [seconds / PUBLISHED_EVERY for seconds in spent["tell"]]
        milliseconds = {part: round(1000 * statistics.median(spent[part]), 3) for part in COLUMNS}
        per_second = 1000 * self.micro_batch
        return {
            **milliseconds,
            "examples/s": round(per_second / sum(milliseconds.values())),
            "rankings/s": round(per_second / milliseconds["rank"]),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }

    def avalanche(self, items: int) -> dict[str, float]:
        """Milliseconds of a gradient step by the plain strategy and by Avalanche's, in turns on the same examples."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from learner.avalanche import AvalancheStrategy
        makers: dict[str, MakeStrategy] = {"plain": PlainStrategy, "avalanche": AvalancheStrategy}
        learners = {name: self.taught(items) for name in makers}
        spent: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in makers}
        for name, learner in learners.items():
            learner.adopt(makers[name])
        for number in range(self.steps):
            for name, learner in learners.items():
                with timed(learner, spent[name]):
                    learner.learn(SCENARIOS[number % len(SCENARIOS)], self.examples(items, number))
        milliseconds = {name: 1000 * statistics.median(spent[name]["step"]) for name in makers}
        return {
            **{f"{name}_ms": round(value, 3) for name, value in milliseconds.items()},
            "overhead": round(milliseconds["avalanche"] / milliseconds["plain"] - 1, 4),
        }

    def taught(self, items: int) -> OnlineLearner:
        """A learner that knows so many items, of which a share was used and thirty micro-batches were learnt."""
        settings = Settings(
            scenarios={name: Scenario() for name in SCENARIOS},
            model=Model(items=items + 1),
            learn=Learn(micro_batch=self.micro_batch, replay_batch=self.micro_batch, probe_rows=0),
        )
        learner = OnlineLearner(settings, TEXT_DIMENSION, self.device)
        generator = torch.Generator().manual_seed(0)
        topics = torch.randn(max(1, items // ITEMS_OF_A_TOPIC), TEXT_DIMENSION, generator=generator)
        for start in range(0, items, ITEMS_AT_ONCE):
            some = range(start, min(start + ITEMS_AT_ONCE, items))
            known = [Item(item_id=f"i{number}", scenarios=[SCENARIOS[number % len(SCENARIOS)]]) for number in some]
            topic = torch.randint(len(topics), (len(known),), generator=generator)
            learner.put_items(known, topics[topic] + torch.randn(len(known), TEXT_DIMENSION, generator=generator))
        rows = torch.arange(1, items + 1)
        for number in range(len(SCENARIOS)):
            shelf = rows[(rows - 1) % len(SCENARIOS) == number]
            used = shelf[torch.rand(len(shelf), generator=generator) < USED_SHARE]
            learner.table.popularity.update(number, used.to(self.device), 0.0)
        for number in range(30):
            learner.learn(SCENARIOS[number % len(SCENARIOS)], self.examples(items, number, seed=1))
        return learner

    def examples(self, items: int, number: int, seed: int = 2) -> Sequence[Example]:
        """A micro-batch of one scenario."""
        scenario, size = number % len(SCENARIOS), self.micro_batch
        generator = torch.Generator().manual_seed(1000 * seed + number)
        # Rank r is drawn about 1 / r as often as the first one.
        ranks = (items / len(SCENARIOS)) ** torch.rand(size, 21, generator=generator)
        ids = [[f"i{len(SCENARIOS) * (int(rank) - 1) + scenario}" for rank in user] for user in ranks]
        now = 1_700_000_000.0 + 100.0 * number
        return [
            Example(
                partition=seed,
                offset=size * number + user,
                user_id=f"u{number}-{user}",
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


@contextmanager
def timed(learner: OnlineLearner, spent: dict[str, list[float]]) -> Iterator[None]:
    """Note the seconds of each part of learning."""
    for part, path in PARTS.items():
        owner, name = owner_of(learner, path)
        setattr(owner, name, stopwatch(getattr(owner, name), spent[part]))
    yield
    for path in PARTS.values():
        owner, name = owner_of(learner, path)
        delattr(owner, name)


def owner_of(learner: OnlineLearner, path: str) -> tuple[Any, str]:
    """Whose attribute a part is, and its name."""
    owner, _, name = path.rpartition(".")
    return (getattr(learner, owner) if owner else learner), name


def stopwatch(call: Callable[..., Any], seconds: list[float]) -> Callable[..., Any]:
    def timed_call(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    return timed_call


if __name__ == "__main__":
    main()
