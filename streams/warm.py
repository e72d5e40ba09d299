"""A warm start from a history on disk: its rows become examples, these a model, and that LEARN's first checkpoint."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import msgspec
import torch
from rich.console import Console
from rich.progress import Progress, TaskID

from learner.checkpoint import DamagedCheckpoint, read_checkpoint
from learner.encoder import TextEncoder
from learner.online import OnlineLearner
from learner.warm import Audience, Schedule, Validation, WarmStart, warm_up
from schemas.errors import ExplainedError
from schemas.items import Item
from schemas.migrations import upgrade
from schemas.settings import Settings
from streams.checkpoint_lock import checkpoints_alone
from streams.checkpoints import number_of
from streams.device import choose_device
from streams.evaluate import Examples, encode_texts, progress_bar, read_examples
from streams.route import ScenarioUnclear, choose_route, look_through
from streams.sources import open_history
from streams.store import Store, database_url, open_engine


class ModelExists(ExplainedError):
    """The data folder holds a model already."""

    def __init__(self, data: Path, newest: Path) -> None:
        self.data, self.newest = data, newest
        super().__init__(
            f"the data folder {data} already holds a model (its newest checkpoint is {newest}). Name another folder "
            "with --data, or say --replace to have LEARN begin from the history in place of it."
        )


class ScenariosNotRun(ExplainedError):
    """The history is of scenarios that `headstream up` would not run."""

    def __init__(self, unclear: ScenarioUnclear) -> None:
        self.found, self.configured = unclear.found, unclear.configured
        names = ", ".join(f'"{name}"' for name in self.found)
        says = f"its events are of the scenarios {names}" if names else "its events name no scenario"
        add = ", or add its scenarios to headstream.toml, each as a section scenarios.NAME" if names else ""
        super().__init__(
            f"{unclear.source}: {says}, and a model is warmed only for the scenarios that `headstream up` will run: "
            f"{', '.join(self.configured)}. Say --scenario NAME to put everything into one of these{add}."
        )


class NothingToLearn(ExplainedError):
    """The source has no event that could be learnt from."""

    def __init__(self, source: str, refused: Counter[str]) -> None:
        self.source, self.refused = source, dict(refused)
        reasons = ", ".join(f"{count:,} {code}" for code, count in refused.most_common()) or "none was refused"
        super().__init__(f"{source}: no event is left to learn from ({reasons})")


class NothingLearnt(ExplainedError):
    """It was stopped before there was anything to keep."""

    def __init__(self) -> None:
        super().__init__("stopped before anything was learnt: nothing was written")


class EpochReport(msgspec.Struct, frozen=True, kw_only=True):
    """The recall on the newest examples after so many epochs; None if none of them was a test."""

    epoch: int
    recall: float | None = msgspec.field(name="recall@10")


class ScenarioReport(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario's share: its events, how many of the newest were a test, and their recall at the best epoch."""

    events: int
    tested: int
    recall: float | None = msgspec.field(name="recall@10")


class WarmReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a warm start did.

    Attributes:
        events: that could be taken; `learnt` of them were learnt from, all unless it was stopped.
        refused: rows by the code of what was wrong with them.
        best_epoch: whose tower was kept; None if there was no validation. `recall` is its.
        step: gradient steps that the model has taken.
        stopped: whether it ended early because it was asked to.
        checkpoint: the folder that LEARN begins from.
        notices: what a person should know of; shown when it began.
    """

    source: str
    events: int
    learnt: int
    items: int
    refused: dict[str, int]
    scenarios: dict[str, ScenarioReport]
    epochs: list[EpochReport]
    best_epoch: int | None
    recall: float | None = msgspec.field(name="recall@10")
    step: int
    stopped: bool
    checkpoint: str
    seconds: float
    notices: list[str]


@dataclass(frozen=True)
class Past:
    """A history as it is learnt from.

    Attributes:
        texts: vectors of the items' texts; (items, encoder dimension).
    """

    source: str
    read: Examples
    texts: torch.Tensor
    notices: list[str]


def warm_source(
    settings: Settings,
    source: str,
    schedule: Schedule,
    stopping: AbstractContextManager[threading.Event],
    *,
    scenario: str | None = None,
    event: str | None = None,
    items: Path | None = None,
    limit: int | None = None,
    replace: bool = False,
    progress: Console | None = None,
) -> WarmReport:
    """look what is there → read → learn → save.

    Args:
        source: as `open_history` takes it.
        stopping: entered once there is something to keep; its event ends the learning in good order.
        scenario: put everything into this one.
        event: take all events for this kind.
        limit: rows of events to read at most.
        replace: go ahead where there is a model already. Its checkpoints stay beside the new one, which is newer.

    Raises:
        ExplainedError: it cannot be done; nothing was written.
    """
    torch.set_num_threads(settings.learn.threads)
    data = Path(settings.data).resolve()
    with checkpoints_alone(data):
        engine = open_engine(database_url(settings))
        try:
            upgrade(engine)
            store = Store(engine, f"{settings.kafka.prefix}learn", "warm")
            known = _known(store, data)
            if known and not replace:
                raise ModelExists(data, known[max(known)])
            began = time.monotonic()
            device = choose_device(settings.learn.device)
            with progress_bar(progress) as bar:
                past = _read(settings, source, scenario, event, items, limit, device, bar)
                learner = OnlineLearner(settings, past.texts.shape[1], device)
                with stopping as stop:
                    found = _learn(learner, past, schedule, settings.learn.seed, stop, bar)
                    if not found.learnt:
                        raise NothingLearnt
                    folder = _save(learner, past, store, data)
            return _report(past, found, learner, folder, time.monotonic() - began)
        finally:
            engine.dispose()


def _known(store: Store, data: Path) -> dict[int, Path]:
    """Folders of checkpoints by number: those that the database names, and those that lie there without its knowing."""
    named = {each.number: Path(each.folder) for each in store.checkpoints()}
    lying = {number_of(path): path for path in (data / "checkpoints").glob("*") if not path.suffix}
    return {number: path for number, path in lying.items() if number is not None} | named


def _read(
    settings: Settings,
    source: str,
    scenario: str | None,
    event: str | None,
    items: Path | None,
    limit: int | None,
    device: torch.device,
    bar: Progress,
) -> Past:
    history = open_history(source, items=items, event=event)
    try:
        route = choose_route(history, look_through(islice(history.events(), limit)), settings, scenario)
    except ScenarioUnclear as unclear:
        raise ScenariosNotRun(unclear) from None
    read = read_examples(settings, history, route.scenario, limit)
    if not read.examples:
        raise NothingToLearn(history.name, read.refused)
    notices = [*route.notices, *_disorder(read)]
    for notice in notices:
        bar.console.print(notice, markup=False, highlight=False, soft_wrap=True)
    return Past(history.name, read, encode_texts(TextEncoder(settings.model.encoder, device), read.items, bar), notices)


def _disorder(read: Examples) -> list[str]:
    """A notice if the rows are not in the order of their times: what is newest is then not what comes last."""
    back = sum(later.time < earlier.time for (_, earlier), (_, later) in pairwise(read.examples))
    if not back:
        return []
    return [
        f"{back:,} of {len(read.examples):,} events are older than the one before them. They are learnt in the order "
        "in which they stand, as they would be from Kafka; sort them by time if that is not the order of the past."
    ]


def _learn(
    learner: OnlineLearner, past: Past, schedule: Schedule, seed: int, stop: threading.Event, bar: Progress
) -> WarmStart:
    learner.put_items(past.read.items, past.texts)
    tasks: dict[str, TaskID] = {}
    best = -1.0

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done)

    def tell(validation: Validation) -> None:
        nonlocal best
        recall = validation.recall
        after = f"after epoch {validation.epoch}" if validation.epoch else "after the pass in order"
        says = "nothing could be a test" if recall is None else f"recall@10 {recall:.4f}"
        mark = " (best so far)" if recall is not None and recall > best else ""
        best = max(best, -1.0 if recall is None else recall)
        tested = sum(validation.tested.values())
        line = f"{after}: {says} on {tested:,} of the newest events{mark}"
        bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    shuffles = torch.Generator().manual_seed(seed)
    return warm_up(learner, past.read.examples, schedule, shuffles, Audience(show, tell, stop.is_set))


def _save(learner: OnlineLearner, past: Past, store: Store, data: Path) -> Path:
    """Write the checkpoint, then point the database at it, as LEARN does; no offset of Kafka is covered by it.

    Where a model was there before, the database knows what of the examples topics it has learnt, and LEARN goes on
    after that.
    """
    for item in past.read.items:
        # What the history only names in events may be recommended once the items topic has brought its record.
        if item == Item(item_id=item.item_id) and item.item_id in learner.table.row_of:
            learner.table.set_eligible(item.item_id, ())
    for row in store.checkpoints()[:1]:
        with suppress(DamagedCheckpoint):
            learner.run.succeed(read_checkpoint(Path(row.folder)))
    number = max(_known(store, data), default=0) + 1
    folder = data / "checkpoints" / f"{number:08d}"
    sha256 = learner.save(folder, {"examples": [], "items": []})
    with store.engine.begin() as connection:
        store.add_checkpoint(connection, number, folder, sha256, learner.run.step)
    return folder


def _report(past: Past, found: WarmStart, learner: OnlineLearner, folder: Path, seconds: float) -> WarmReport:
    events = Counter(scenario for scenario, _ in past.read.examples)
    best = found.best
    return WarmReport(
        source=past.source,
        events=len(past.read.examples),
        learnt=found.learnt,
        items=len(learner.table),
        refused=dict(past.read.refused),
        scenarios={
            name: _of_scenario(events[name], best.tested.get(name, 0), best.hits.get(name, 0))
            if best
            else _of_scenario(events[name], 0, 0)
            for name in past.read.settings.scenarios
        },
        epochs=[EpochReport(epoch=each.epoch, recall=each.recall) for each in found.validations],
        best_epoch=best.epoch if best else None,
        recall=best.recall if best else None,
        step=learner.run.step,
        stopped=found.stopped,
        checkpoint=str(folder),
        seconds=round(seconds, 3),
        notices=past.notices,
    )


def _of_scenario(events: int, tested: int, hits: int) -> ScenarioReport:
    return ScenarioReport(events=events, tested=tested, recall=hits / tested if tested else None)
