"""What is forgotten, with replay and without: the stress order on MovieLens, and a silence in the simulated world.

    python -m benchmarks.forgetting movielens FOLDER    # each scenario's events in one block, one after the other
    python -m benchmarks.forgetting silence             # one scenario silent for 50,000 events of the others

The learner runs as in LEARN, without Kafka. `headstream` replays; `naive-mixed` is the same without replay,
`static-mixed` the same with a tower that stands still after the warm-up; `no-mixer`, `naive` and `static` are their
towers alone. All recalls are @10, on events that no model learns from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
import torch

from benchmarks.silence import SCENARIOS, SILENT, Lengths, Silence
from learner.encoder import TextEncoder
from learner.evaluation import Block, Results, Stream, evaluate
from learner.outcomes import DEPTH, Forgetting
from learner.stress import forgetting, in_blocks
from schemas.packed import holds
from schemas.records import Example
from schemas.settings import Scenario, Settings
from streams.evaluate import WARM_EPOCHS, WARM_SHARE, Examples, read_examples
from streams.sources import open_history

MODELS = ("headstream", "naive-mixed", "static-mixed", "no-mixer", "naive", "static", "item-knn", "popularity")
OURS, WITHOUT = "headstream", "naive-mixed"
REPLAY_SHARE = 0.14
"""Of the stream, kept for replay."""

FORGETTING_LIMIT, BEHIND_LIMIT = 0.005, 0.01
SILENCES = 5
"""Tests during the silence."""
PROBES = 1000
"""Of each scenario, before the silence."""
AWAKE = 1000
"""Events of the scenario that was silent, just before and just after."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shift = parser.add_subparsers(dest="shift", required=True)
    movielens = shift.add_parser("movielens", help="the stress order on MovieLens 100k in five genre shelves")
    movielens.add_argument("folder", help="ml-100k, as GroupLens or RecBole pack it")
    movielens.add_argument("--limit", type=int, help="read so many events at most")
    silence = shift.add_parser("silence", help="a scenario that is silent while others use its items")
    silence.add_argument("--before", type=int, default=30_000, help="events of all scenarios before the silence")
    silence.add_argument("--silent", type=int, default=50_000, help="events of the others in the silence")
    silence.add_argument("--after", type=int, default=9_000, help="events of all scenarios after it")
    for each in (movielens, silence):
        each.add_argument("--seeds", type=int, default=1, help="runs, from seed 0")
        each.add_argument("--models", default=",".join(MODELS))
        each.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = [OURS, WITHOUT, *(name for name in arguments.models.split(",") if name not in (OURS, WITHOUT))]
    if arguments.shift == "movielens":
        if not Path(arguments.folder).is_dir():
            sys.exit(f"{arguments.folder} is not a folder: no data, no figure")
        found = stress_order(arguments.folder, arguments.limit, models, arguments.seeds)
    else:
        found = one_silence(Lengths(arguments.before, arguments.silent, arguments.after), models, arguments.seeds)
    if arguments.json:
        print(msgspec.json.encode(found).decode())
    else:
        show(found)


@dataclass(frozen=True)
class Found:
    """What came of a shift.

    Attributes:
        blocks: names of the matrices' rows.
        scenarios: names of their columns.
        held_out: examples of all probe sets.
        replay_rows: per scenario.
        models: means over the seeds, by name.
        by_seed: for each model and each seed, the mean forgetting and the final average.
        awake: by model, recall on the silent scenario's last events before, and on its first ones after.
    """

    events: int
    held_out: int
    replay_rows: int
    blocks: list[str]
    scenarios: list[str]
    models: dict[str, Forgetting]
    by_seed: dict[str, list[tuple[float | None, float | None]]]
    awake: dict[str, tuple[float, float]]


def stress_order(folder: str, limit: int | None, models: Sequence[str], seeds: int) -> Found:
    read = read_examples(Settings(), open_history(f"movielens:{folder}", items=None, event=None), None, limit)
    stream = in_blocks(Stream(read.items, encoded(read), read.examples, round(WARM_SHARE * len(read.examples))))
    settings = with_replay(read.settings, len(read.examples))
    runs = [evaluate(settings, stream, models, seed, WARM_EPOCHS, tell) for seed in range(seeds)]
    return summed_up(settings, stream, [block.name for block in stream.blocks], runs, {})


def one_silence(lengths: Lengths, models: Sequence[str], seeds: int) -> Found:
    configured = msgspec.structs.replace(Settings(), scenarios={name: Scenario() for name in SCENARIOS})
    read = read_examples(configured, Silence(lengths, seed=0), None, None)
    stream = with_silence(Stream(read.items, encoded(read), read.examples, round(WARM_SHARE * lengths.before)), lengths)
    settings = with_replay(read.settings, len(read.examples))
    runs = [evaluate(settings, stream, models, seed, WARM_EPOCHS, tell) for seed in range(seeds)]
    woken = sum(scenario == SILENT for scenario, _ in read.examples[lengths.before + lengths.silent :])
    awake = {model: before_and_after(runs, model, woken) for model in models}
    return summed_up(settings, stream, list(SCENARIOS), runs, awake)


def with_silence(stream: Stream, lengths: Lengths) -> Stream:
    """The stream less some of each scenario's last examples before the silence, with tests before and in it."""
    places: dict[str, list[int]] = {name: [] for name in SCENARIOS}
    for place, (scenario, each) in enumerate(stream.examples[: lengths.before]):
        if place >= stream.warm and each.weight >= 0 and not holds(each.excluded, each.item_id):
            places[scenario].append(place)
    # Every other one of the newest: what is asked is what has just been learnt.
    held = {scenario: some[-2 * PROBES :: 2] for scenario, some in places.items()}
    out = {place for some in held.values() for place in some}
    examples = [each for place, each in enumerate(stream.examples) if place not in out]
    began = lengths.before - len(out)
    silences = [round(lengths.silent * (part + 1) / SILENCES) for part in range(SILENCES)]
    blocks = [
        Block("before", began, [SILENT]),
        *(Block(f"{silent:,} silent", began + silent, ()) for silent in silences),
    ]
    probes: Mapping[str, Sequence[Example]] = {
        scenario: [stream.examples[place][1] for place in some] for scenario, some in held.items()
    }
    return replace(stream, examples=examples, blocks=blocks, probes=probes)


def before_and_after(runs: Sequence[Results], model: str, woken: int) -> tuple[float, float]:
    """Recall on the silent scenario's last tests before the silence, and on its first ones after it."""
    before, after = [], []
    for run in runs:
        own = run.tested.scenario == SCENARIOS.index(SILENT)
        hit = np.concatenate(run.marks[model].places)[own] < DEPTH
        # An event on an item that its user had met is no test; in this world there is next to none.
        before.append(float(hit[: len(hit) - woken][-AWAKE:].mean()))
        after.append(float(hit[len(hit) - woken :][:AWAKE].mean()))
    return fmean(before), fmean(after)


def with_replay(settings: Settings, events: int) -> Settings:
    """Settings that keep `REPLAY_SHARE` of so many events for replay, in equal parts of all scenarios."""
    rows = round(REPLAY_SHARE * events / len(settings.scenarios))
    return msgspec.structs.replace(settings, learn=msgspec.structs.replace(settings.learn, replay_rows=rows))


def encoded(read: Examples) -> torch.Tensor:
    encoder = TextEncoder(read.settings.model.encoder)
    proses = [item.prose for item in read.items]
    return torch.cat([encoder.encode(proses[start : start + 256]) for start in range(0, len(proses), 256)])


def tell(name: str, done: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{name} {done:,}   ", end="", file=sys.stderr)


def summed_up(
    settings: Settings,
    stream: Stream,
    scenarios: list[str],
    runs: Sequence[Results],
    awake: dict[str, tuple[float, float]],
) -> Found:
    numbers = [list(settings.scenarios).index(name) for name in scenarios]
    alone = {name: [forgetting([run.marks[name].retention], numbers) for run in runs] for name in runs[0].marks}
    return Found(
        events=len(stream.examples),
        held_out=runs[0].probes,
        replay_rows=settings.learn.replay_rows,
        blocks=[block.name for block in stream.blocks],
        scenarios=scenarios,
        models={name: forgetting([run.marks[name].retention for run in runs], numbers) for name in runs[0].marks},
        by_seed={name: [(each.forgetting, each.final_average) for each in some] for name, some in alone.items()},
        awake=awake,
    )


def show(found: Found) -> None:
    print(
        f"{found.events:,} events, {found.held_out:,} more held out; {found.replay_rows:,} rows of replay per scenario"
    )
    for name, kept in found.models.items():
        print(f"\n{name}: recall after each block (rows) on each scenario")
        print(" " * 16 + "".join(f"{scenario:>10}" for scenario in found.scenarios))
        for block, row in zip(found.blocks, kept.matrix, strict=True):
            print(f"{block:16}" + "".join(f"{figure(recall):>10}" for recall in row))
    print(f"\n{'':16}{'forgetting':>12}{'BWT':>10}{'final':>10}   forgetting, final of each seed")
    for name, kept in found.models.items():
        seeds = "  ".join(f"{figure(lost)}, {figure(final)}" for lost, final in found.by_seed[name])
        measures = f"{figure(kept.backward_transfer):>10}{figure(kept.final_average):>10}"
        print(f"{name:16}{figure(kept.forgetting):>12}{measures}   {seeds}")
    if found.awake:
        print(f"\n{SILENT}, tested before learnt: last {AWAKE:,} events before its silence, first {AWAKE:,} after it")
        for name, (before, after) in found.awake.items():
            print(f"{name:16}{figure(before):>12}{figure(after):>10}")
    ours, without = found.models[OURS], found.models[WITHOUT]
    behind = (without.final_average or 0.0) - (ours.final_average or 0.0)
    print(f"\nforgetting of {OURS}: {figure(ours.forgetting)}, wanted at most {FORGETTING_LIMIT}")
    print(f"final average of {WITHOUT} less that of {OURS}: {figure(behind)}, wanted at most {BEHIND_LIMIT}")


def figure(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.4f}"


if __name__ == "__main__":
    main()
