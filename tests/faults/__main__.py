"""The long form: `python -m tests.faults --minutes 60 --seed 1 --json`."""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tests.faults.campaign import Outcome, Siege, deck, fitting
from tests.faults.faults import FAULTS
from tests.faults.recovery import percentiles
from tests.faults.system import STOPPING, NotWithin

SIEGE_SECONDS = 900.0
"""After which a fresh system takes the place of the old one."""
FAULTS_A_ROUND = 12
DATABASES = ("sqlite", "postgresql", "sqlite")

console = Console(stderr=True)


def main() -> int:
    options = read_options()
    folder = Path(options.folder or tempfile.mkdtemp(prefix="headstream-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO, filename=folder / "campaign.log", format="%(asctime)s %(levelname)s %(message)s"
    )
    for chatty in ("kafka", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where a shell has told us to ignore them
        signal.signal(number, lambda *_: STOPPING.set())
    outcome, seconds = Outcome(), options.minutes * 60
    with Progress(
        TextColumn("{task.fields[faults]} faults, {task.fields[lost]} lost, {task.fields[duplicated]} duplicated"),
        BarColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
        console=console,
    ) as progress:  # fmt: skip
        began = time.monotonic()
        task = progress.add_task("starting", total=seconds, faults=0, lost=0, duplicated=0)

        def tell(step: str) -> None:
            figures = {"faults": outcome.faults, "lost": outcome.lost, "duplicated": outcome.duplicated}
            done = min(seconds, time.monotonic() - began)
            progress.update(task, completed=done, description=step, **figures)

        number = 0
        while time.monotonic() - began < seconds and not STOPPING.is_set():
            database = options.database or DATABASES[number % len(DATABASES)]
            lay_siege(folder / f"system {number}", options.seed + number, database, outcome, options, began, tell)
            number += 1
    if STOPPING.is_set():
        console.print("stopped; this is what was seen so far")
    report(outcome, folder, options.json)
    if outcome.good and not options.folder:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if outcome.good else 1


def lay_siege(  # type: ignore[no-untyped-def]
    folder: Path, seed: int, database: str, outcome: Outcome, options: argparse.Namespace, began: float, tell
) -> None:
    chance = random.Random(seed)
    cards = deck(chance, fitting(database, options.kind))
    until = min(began + options.minutes * 60, time.monotonic() + SIEGE_SECONDS)
    tell(f"starting on {database}")
    try:
        siege = Siege(folder, seed, database, outcome, options.rate)
    except NotWithin as never:
        if not STOPPING.is_set():
            outcome.problems.append(f"seed {seed}: the system does not start (logs in {folder}): {never}")
        return
    with siege:
        while time.monotonic() < until and not STOPPING.is_set():
            if not siege.run_round(list(islice(cards, options.faults)), tell, options.pace):
                return  # a system that is not right any more says nothing about the next fault
        if not options.kind and not STOPPING.is_set():
            tell("topic made anew")
            siege.make_topic_anew()


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=1, help="of the faults' order and of the events")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one; else both, by turns")
    parser.add_argument("--kind", action="append", default=[], choices=[fault.kind for fault in FAULTS])
    parser.add_argument("--faults", type=int, default=FAULTS_A_ROUND, help="faults between two checks")
    parser.add_argument("--pace", type=float, default=5.0, help="seconds between two faults, in the mean")
    parser.add_argument("--rate", type=float, default=25.0, help="events a second")
    parser.add_argument("--folder", help="where logs and data go; kept, as they are after any failure")
    return parser.parse_args()


def report(outcome: Outcome, folder: Path, as_json: bool) -> None:
    if as_json:
        print(json.dumps(outcome.as_dict()))  # noqa: T201
    else:
        table = Table("fault", "struck", "missed")
        for kind in sorted(outcome.by_kind | outcome.missed):
            table.add_row(kind, str(outcome.by_kind[kind]), str(outcome.missed[kind] or ""))
        times = Table("process", "recoveries", "p50, s", "p99, s")
        for name, found in percentiles(outcome.recovery).items():
            times.add_row(name, str(len(outcome.recovery[name])), str(found["p50"]), str(found["p99"]))
        out = Console()
        out.print(table, times)
        out.print(
            f"{outcome.faults} faults, {outcome.events} events, {outcome.lost} lost, {outcome.duplicated} duplicated"
        )
        endings = ", ".join(f"{what}: {count}" for what, count in sorted(outcome.endings.items()))
        out.print(f"ends of processes, with their exit codes: {endings}")
    for problem in outcome.problems:
        console.print(problem, markup=False)
    if not outcome.good:
        console.print(f"logs are kept in {folder}")


if __name__ == "__main__":
    sys.exit(main())
