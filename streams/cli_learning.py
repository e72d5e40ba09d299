"""The commands that learn from a history on disk: `headstream evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.logs import log_to_terminal
from streams.terminal import Config, Json, errors, fail, out, read_settings


def evaluate(
    source: Annotated[str, typer.Argument(help="movielens:FOLDER, or a .jsonl, .csv or .parquet file (also .gz).")],
    models: Annotated[str | None, typer.Option(help="Some of them only, with commas between; else all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs, whose figures are averaged.")] = 1,
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
    ease, sasrec-warm, static, naive, static-mixed, no-mixer.

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
