"""Evaluation of a history on disk: its rows become what SERVE would send to LEARN, and models are tested on them."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from learner.encoder import TextEncoder
from learner.evaluation import MODELS, Results, Stream, coverage, evaluate
from learner.outcomes import Report, figures, ratio
from learner.stress import forgetting, in_blocks
from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from schemas.items import Item
from schemas.records import Example
from schemas.settings import Scenario, Settings
from streams.evaluation_sheets import OURS
from streams.intake import Intake
from streams.route import choose_route, look_through
from streams.sources import History, open_history
from streams.users import User

WARM_SHARE = 0.3
"""Of the events, from the first: learnt from, and no test."""

WARM_EPOCHS = 5

TEXTS_AT_ONCE = 256


class UnknownModels(ExplainedError):
    """A model was asked for that does not exist."""

    def __init__(self, asked: Sequence[str]) -> None:
        self.asked = tuple(asked)
        unknown = ", ".join(name for name in asked if name not in MODELS)
        super().__init__(f"--models: {unknown}; allowed are {', '.join(MODELS)}")


class NothingToTest(ExplainedError):
    """The source has no event that could be a test."""

    def __init__(self, source: str, refused: Counter[str]) -> None:
        self.source, self.refused = source, dict(refused)
        reasons = ", ".join(f"{count:,} {code}" for code, count in refused.most_common()) or "none was refused"
        super().__init__(f"{source}: no event is left to test on ({reasons})")


@dataclass(frozen=True)
class Examples:
    """A history as SERVE would have passed it on.

    Attributes:
        settings: with the scenarios that the examples are of.
        refused: rows by the code of what was wrong with them.
    """

    settings: Settings
    items: list[Item]
    examples: list[tuple[str, Example]]
    refused: Counter[str]


def evaluate_source(
    settings: Settings,
    source: str,
    *,
    scenario: str | None = None,
    event: str | None = None,
    items: Path | None = None,
    limit: int | None = None,
    models: Sequence[str] = MODELS,
    seeds: int = 1,
    order: Literal["time", "stress"] = "time",
    progress: Console | None = None,
) -> Report:
    """Test models on a history, each event before it is learnt from.

    Args:
        source: as `open_history` takes it.
        scenario: put everything into this one.
        event: take all events for this kind.
        limit: rows of events to read at most.
        models: some of `MODELS`.
        order: of the events after the warm-up; "stress" is that of `in_blocks`.
        seeds: runs, from seed 0; the figures are means over them. All have the same probe sets.

    Raises:
        ExplainedError: it cannot be done.
    """
    if set(models) - set(MODELS):
        raise UnknownModels(models)
    torch.set_num_threads(1)
    history = open_history(source, items=items, event=event)
    with progress_bar(progress) as track:
        read = read_examples(settings, history, scenario, limit)
        if not read.examples:
            raise NothingToTest(history.name, read.refused)
        texts = encode_texts(TextEncoder(settings.model.encoder), read.items, track)
        stream = Stream(read.items, texts, read.examples, round(WARM_SHARE * len(read.examples)))
        if order == "stress":
            stream = in_blocks(stream)
        count = len(stream.examples)
        runs = [
            evaluate(read.settings, stream, models, seed, WARM_EPOCHS, _tracker(track, seed, seeds, count))
            for seed in range(seeds)
        ]
    if not len(runs[0].tested.user):
        raise NothingToTest(history.name, read.refused)
    return _report(history.name, list(read.settings.scenarios), stream, models, runs)


def read_examples(settings: Settings, history: History, scenario: str | None, limit: int | None) -> Examples:
    """Pass a history through the functions that SERVE runs: the same histories, the same exclusions."""
    survey = look_through(islice(history.events(), limit))
    found = survey.scenarios()
    if scenario is None and found and not found.keys() & settings.scenarios.keys():
        # Nothing is published, so a history may bring its own scenarios.
        settings = msgspec.structs.replace(settings, scenarios={name: Scenario() for name in sorted(found)})
    route = choose_route(history, survey, settings, scenario)
    intake = Intake(settings, route, survey)
    refused: Counter[str] = Counter()
    items: dict[str, Item] = {}
    for row in history.items():
        taken = intake.item(row)
        if isinstance(taken, Invalid):
            refused[taken.code] += 1
        else:
            items[taken.item.item_id] = taken.item
    users: dict[str, User] = {}
    examples: list[tuple[str, Example]] = []
    for row in islice(history.events(), limit):
        met = intake.event(row)
        if isinstance(met, Invalid):
            refused[met.code] += 1
            continue
        name, one = met.scenario, met.event
        user = users.setdefault(one.user_id, User())
        repeat = settings.scenarios[name].repeat
        examples.append((name, user.example(one, name, 0, len(examples), repeat=repeat)))
        user.apply(one, name, settings.serve, settings.model.history)
        if one.item_id not in items:
            items[one.item_id] = Item(item_id=one.item_id)
    return Examples(settings, list(items.values()), examples, refused)


def encode_texts(encoder: TextEncoder, items: Sequence[Item], track: Progress) -> torch.Tensor:
    """Vectors of the items' texts; (items, encoder dimension)."""
    task = track.add_task("reading item texts", total=len(items))
    parts = [torch.zeros(0, encoder.dimension)]
    for start in range(0, len(items), TEXTS_AT_ONCE):
        some = items[start : start + TEXTS_AT_ONCE]
        parts.append(encoder.encode([item.prose for item in some]))
        track.advance(task, len(some))
    return torch.cat(parts)


def _tracker(track: Progress, seed: int, seeds: int, examples: int) -> Callable[[str, int], None]:
    tasks = {}

    def progress(name: str, done: int) -> None:
        if name not in tasks:
            title = name if seeds == 1 else f"{name}, seed {seed}"
            tasks[name] = track.add_task(title, total=examples)
        track.update(tasks[name], completed=done)

    return progress


def _report(
    source: str, names: Sequence[str], stream: Stream, models: Sequence[str], runs: Sequence[Results]
) -> Report:
    tested, events = runs[0].tested, len(stream.examples)
    blocks = [block.name for block in stream.blocks]
    found, kept, ratios = {}, {}, {}
    places = {model: [np.concatenate(run.marks[model].places) for run in runs] for model in MODELS if model in models}
    for model in places:
        marks = [run.marks[model] for run in runs]
        speed = events * len(marks) / max(1e-9, sum(each.seconds for each in marks))
        found[model] = figures(
            tested,
            places[model],
            names,
            sum(coverage(each, run.items) for each, run in zip(marks, runs, strict=True)) / len(runs),
            speed,
            [np.concatenate(each.refused) for each in marks],
        )
        if OURS in places and model != OURS and (against := ratio(places[OURS], places[model], tested.user)):
            ratios[model] = against
        if blocks:
            kept[model] = forgetting([each.retention for each in marks], [names.index(block) for block in blocks])
    return Report(
        source=source,
        events=events,
        tested=len(tested.user),
        seeds=list(range(len(runs))),
        models=found,
        memory_megabytes=_peak_memory_bytes() / 2**20,
        ratios=ratios,
        refused=int(tested.disliked.sum()) + sum(map(len, runs[0].marks[models[0]].refused)),
        held_out=runs[0].probes,
        blocks=blocks,
        forgetting=kept,
        weights={name: [run.fingerprints[name] for run in runs] for name in runs[0].fingerprints},
    )


def _peak_memory_bytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # getrusage(2) counts in KiB, but in bytes on macOS


@contextmanager
def progress_bar(console: Console | None) -> Iterator[Progress]:
    """How much of each task is done, and when it will be; nowhere without a console."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console or Console(quiet=True),
        disable=console is None,
    ) as bar:
        yield bar
