"""The commands that learn from a history on disk: `headstream evaluate` and `headstream warm`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from streams.logs import log_to_terminal
from streams.terminal import Config, Data, Json, errors, fail, out, read_settings, stopping


def evaluate(
    source: Annotated[str, typer.Argument(help="movielens:FOLDER, or a .jsonl, .csv or .parquet file (also .gz).")],
    models: Annotated[str | None, typer.Option(help="Some of them only, with commas between; else all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs, whose figures are averaged.")] = 1,
    order: Annotated[
        Literal["time", "stress"], typer.Option(help="As it happened, or one scenario after the other.")
    ] = "time",
    scenario: Annotated[str | None, typer.Option(help="Put all events into this scenario.")] = None,
    event: Annotated[str | None, typer.Option(help="Take all events for this kind.")] = None,
    items: Annotated[Path | None, typer.Option(help="File of items; else items.* beside the events.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read this many events at most.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for a page with pictures.")] = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Compare Headstream with its rivals on a history: every event is first a test, then a lesson.

    The history passes through the functions that SERVE and LEARN run. No broker
    is needed. The first 30 % of the events are learnt from and are no test.

    Models: headstream, popularity, decayed-popularity, item-knn, item-knn-tuned,
    ease, sasrec-warm, static, naive, static-mixed, naive-mixed, no-mixer.

    With --order stress the scenarios come in one block each after the first 30 %,
    the smallest first; a tenth of each is held out, and ranked after every block.

    Example: [cyan]headstream evaluate movielens:ml-100k --models headstream,popularity,item-knn[/]
    """
    import msgspec

    from learner.evaluation import MODELS
    from streams.evaluate import evaluate_source
    from streams.evaluation_page import write_page
    from streams.evaluation_pictures import write_pictures
    from streams.evaluation_table import print_report

    log_to_terminal(errors)
    if output is not None:
        make_folder(output)  # before the work, so that it's not in vain
    report = evaluate_source(
        read_settings(config, None, None),
        source,
        scenario=scenario,
        event=event,
        items=items,
        limit=limit,
        models=MODELS if models is None else [name.strip() for name in models.split(",")],
        seeds=seeds,
        order=order,
        progress=errors,
    )
    if output is not None:
        write_pictures(report, output)
        write_page(report, output / "report.html")
        errors.print(f"the page is {output / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        print_report(report, out)


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        fail(f"--output {folder}: a folder is wanted, but it cannot be made: {error.strerror}")


def warm(
    source: Annotated[str, typer.Argument(help="movielens:FOLDER, or a .jsonl, .csv or .parquet file (also .gz).")],
    epochs: Annotated[int, typer.Option(min=0, help="Passes over the history after the first, at most.")] = 20,
    patience: Annotated[int, typer.Option(min=1, help="Passes that may bring nothing better before the end.")] = 3,
    validation: Annotated[
        float, typer.Option(min=0.01, max=0.5, help="Share of the events, the newest, to choose the best pass by.")
    ] = 0.1,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random; learn.seed if left out.")] = None,
    scenario: Annotated[str | None, typer.Option(help="Put all events into this scenario.")] = None,
    event: Annotated[str | None, typer.Option(help="Take all events for this kind.")] = None,
    items: Annotated[Path | None, typer.Option(help="File of items; else items.* beside the events.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Read this many events at most.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a model that the data folder holds already.")
    ] = False,
    config: Config = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Learn from a history before the first start: `headstream up` on the same data folder begins from the result.

    The first pass learns in the order of the events, as LEARN does. Further ones
    train the network alone, while they help: each is tested on the newest events,
    which are learnt only after the best pass is chosen. Ctrl-C keeps the best so
    far. No broker is needed, and LEARN must not run on the data folder.

    Only the model is made. Users begin without a past, and an item is recommended
    once its record is on the items topic. With --replace, LEARN goes on after the
    events that the earlier model had learnt; its checkpoints stay until LEARN's
    own take their places.

    Example: [cyan]headstream warm movielens:ml-100k && headstream up[/]
    """
    import msgspec

    from learner.warm import Schedule
    from streams.warm import warm_source
    from streams.warm_table import print_warm_report

    log_to_terminal(errors)
    settings = read_settings(config, data, None)
    if seed is not None:
        settings = msgspec.structs.replace(settings, learn=msgspec.structs.replace(settings.learn, seed=seed))
    report = warm_source(
        settings,
        source,
        Schedule(epochs, patience, validation),
        stopping(),
        scenario=scenario,
        event=event,
        items=items,
        limit=limit,
        replace=replace,
        progress=errors,
    )
    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
    else:
        print_warm_report(report, out)
