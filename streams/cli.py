"""The command line: `headstream COMMAND`."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from schemas.configuration import render
from schemas.errors import ExplainedError
from streams.cli_actions import ACTIONS
from streams.cli_demo import demo
from streams.cli_erase import erase
from streams.cli_learning import evaluate, warm
from streams.columns import COLUMNS_HELP
from streams.logs import log_to_file, log_to_terminal
from streams.terminal import (
    Broker,
    Config,
    Data,
    Json,
    errors,
    fail,
    find_broker,
    handed_on,
    out,
    read_settings,
    say_error,
    step_printer,
    stopping,
)

app = typer.Typer(
    name="headstream",
    help="Behaviour events in from Kafka, a model that learns from each of them, fresh recommendations out to Kafka.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

app.command()(demo)


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("headstream.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented headstream.toml with every setting and its default.

    Example: [cyan]headstream init && headstream up[/]
    """
    if path.exists() and not force:
        fail(f"{path} exists; --force replaces it")
    path.write_text(render())
    out.print(f"wrote {path}: every setting with its default. Next: [cyan]headstream up[/]")


@app.command()
def up(config: Config = None, data: Data = None, broker: Broker = None) -> None:
    """Run Kafka, SERVE, LEARN and GATEWAY on this machine until Ctrl-C; restart what dies.

    Writes DATA/endpoints.json with the addresses of broker and gateway and each process once all are ready.

    Example: [cyan]headstream up --data /var/lib/headstream[/]
    """
    from streams.supervisor import Supervisor

    log_to_terminal(errors)
    settings = read_settings(config, data, broker)
    began = time.monotonic()
    everything = Supervisor(settings, arguments=handed_on(config, Path(settings.data)), on_step=step_printer(began))
    with stopping() as stop, everything as supervisor:
        if supervisor.wait_ready(stop):
            prefix, first = settings.kafka.prefix, next(iter(settings.scenarios))
            errors.print(
                f"[green]ready[/] after {time.monotonic() - began:.0f} s: Kafka on [bold]{supervisor.broker}[/]. "
                f"Publish to {prefix}events.{first}, consume {prefix}recommendations.{first}. "
                f"Dashboard and API: [bold]{supervisor.gateway}[/]. Ctrl-C stops."
            )
            supervisor.run(stop)
        errors.print("stopping")


@app.command()
def broker(config: Config = None, data: Data = None) -> None:
    """Run only the embedded Kafka until Ctrl-C, with all topics made.

    Example: [cyan]headstream broker --data /tmp/kafka[/]
    """
    from streams.supervisor import Supervisor

    log_to_terminal(errors)
    settings = read_settings(config, data, None)
    only_kafka = Supervisor(settings, processes=(), on_step=step_printer(time.monotonic()))
    with stopping() as stop, only_kafka as supervisor:
        errors.print(f"[green]ready[/]: Kafka on [bold]{supervisor.broker}[/]. Ctrl-C stops.")
        supervisor.run(stop)


@app.command()
def serve(config: Config = None, data: Data = None, broker: Broker = None) -> None:
    """Run one SERVE: events to user states, examples and recommendations. Start several to scale.

    Example: [cyan]headstream serve --broker kafka:9092[/]
    """
    run_process("serve", config, data, broker)


@app.command()
def learn(config: Config = None, data: Data = None, broker: Broker = None) -> None:
    """Run LEARN: examples to weights, item texts to vectors. A second one stands by.

    Example: [cyan]headstream learn --broker kafka:9092[/]
    """
    run_process("learn", config, data, broker)


@app.command()
def gateway(config: Config = None, data: Data = None, broker: Broker = None) -> None:
    """Run one GATEWAY: HTTP API and dashboard, by default on http://127.0.0.1:6070. Any number may run.

    What changes state asks for a token: gateway.token, or the one in DATA/gateway.token.

    Example: [cyan]headstream gateway --broker kafka:9092[/]
    """
    run_process("gateway", config, data, broker)


def run_process(name: str, config: Path | None, data: Path | None, broker: str | None) -> NoReturn:
    from streams.signals import StopSignals

    stops = StopSignals()  # first of all: every later thread inherits the blocked signals

    from sqlalchemy.exc import OperationalError

    from schemas.migrations import upgrade
    from schemas.topics import Topics
    from streams import metrics
    from streams.administration import check_rights, ensure_topics
    from streams.patience import Patience
    from streams.rights import rights_of
    from streams.store import Store, database_url, open_engine
    from streams.supervisor import line_to_supervisor

    tell_supervisor = line_to_supervisor()

    def on_ready(address: str) -> None:
        metrics.ready.set(1)
        tell_supervisor(address)

    log_to_file()
    settings = read_settings(config, data, broker)
    address = find_broker(settings)
    offered = "" if name == "gateway" else metrics.offer(settings, name)
    Path(settings.data).mkdir(parents=True, exist_ok=True)
    topics = Topics(settings).all()
    ensure_topics(address, topics, settings.kafka.replication)
    check_rights(address, list(rights_of(name, settings.kafka.prefix)), [topic.name for topic in topics])
    patience = Patience(settings.database.patience_seconds)
    # GATEWAY says at once that the database is away; the others wait, as all do now.
    engine = open_engine(database_url(settings), None if name == "gateway" else patience)
    patience.wait_for(lambda: upgrade(engine), OperationalError)
    owner = f"{socket.gethostname()}:{os.getpid()}"
    if name == "gateway":
        from streams.gateway.process import run_gateway

        run_gateway(settings, address, engine, owner, stops, on_ready)
    store = Store(engine, f"{settings.kafka.prefix}{name}", owner)
    if name == "serve":
        from streams.serve import run_serve

        run_serve(settings, address, store, patience, stops, lambda: on_ready(offered))
    from streams.learn import run_learn

    run_learn(settings, address, store, patience, stops, lambda: on_ready(offered))


@app.command(epilog=COLUMNS_HELP)
def replay(
    source: Annotated[str, typer.Argument(help="movielens:FOLDER, or a .jsonl, .csv or .parquet file (also .gz).")],
    scenario: Annotated[str | None, typer.Option(help="Put all events into this scenario.")] = None,
    event: Annotated[str | None, typer.Option(help="Take all events for this kind.")] = None,
    items: Annotated[Path | None, typer.Option(help="Items to publish first; else items.* beside the events.")] = None,
    speed: Annotated[str, typer.Option(help="`max`, or a multiple of real time such as 60.")] = "max",
    limit: Annotated[int | None, typer.Option(min=1, help="Publish this many events at most.")] = None,
    config: Config = None,
    data: Data = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Publish real history into the topics.

    Example: [cyan]headstream replay movielens:ml-100k --speed max[/]
    """
    from streams.playback import play

    log_to_terminal(errors)
    settings = read_settings(config, data, broker)
    with stopping() as stop:
        report = play(
            settings,
            find_broker(settings),
            source,
            scenario=scenario,
            event=event,
            items=items,
            speed=read_speed(speed),
            limit=limit,
            progress=errors,
            stop=stop,
        )
    if as_json:
        typer.echo(json.dumps(report.as_dict()))
    else:
        report.print(out)


app.command(epilog=COLUMNS_HELP)(evaluate)
app.command(epilog=COLUMNS_HELP)(warm)
for action in ACTIONS:
    app.command()(action)
app.command()(erase)


def read_speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        fail(f"--speed {text}: `max` or a number above 0 is allowed")
    return speed


@app.command()
def watch(
    scenario: Annotated[str, typer.Argument(help="Whose recommendations.")],
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Also what is in the topic already.")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="End after this many.")] = None,
    config: Config = None,
    data: Data = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Show recommendations as they come.

    Example: [cyan]headstream watch shop --user 42[/]
    """
    from streams.watch import watch as follow

    log_to_terminal(errors)
    settings = read_settings(config, data, broker)
    if scenario not in settings.scenarios:
        fail(f'"{scenario}" is not one of {", ".join(settings.scenarios)}')
    with stopping() as stop:
        follow(
            settings,
            find_broker(settings),
            scenario,
            user=user,
            as_json=as_json,
            from_beginning=from_beginning,
            count=count,
            console=out,
            stop=stop,
        )


@app.command()
def status(config: Config = None, data: Data = None, broker: Broker = None, as_json: Json = False) -> None:
    """Show how far each process has come: offsets, lag, model versions, dead letters.

    Example: [cyan]headstream status --json[/]
    """
    from schemas.migrations import upgrade
    from streams.status import read_status
    from streams.status_table import print_status
    from streams.store import Store, database_url, open_engine

    log_to_terminal(errors)
    settings = read_settings(config, data, broker)
    address = find_broker(settings)
    Path(settings.data).mkdir(parents=True, exist_ok=True)
    engine = open_engine(database_url(settings))
    try:
        upgrade(engine)
        stores = [Store(engine, f"{settings.kafka.prefix}{name}", "status") for name in ("serve", "learn")]
        found = read_status(settings, address, *stores)
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_status(found, out)


@app.command()
def doctor(config: Config = None, data: Data = None, broker: Broker = None, as_json: Json = False) -> None:
    """Check Python, GPU, disk, memory, ports, broker and database, and say what a failing check means.

    Example: [cyan]headstream doctor[/]
    """
    from streams.doctor import examine
    from streams.doctor_table import print_findings

    log_to_terminal(errors)
    findings = examine(read_settings(config, data, broker))
    if as_json:
        keys = ("name", "status", "detail", "remedy")
        typer.echo(json.dumps([{key: getattr(each, key) for key in keys} for each in findings]))
    else:
        print_findings(findings, out)
    if any(each.status == "failed" for each in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run a command; a failure that we can explain is one sentence and exit code 1, any other one a traceback."""
    try:
        app()
    except ExplainedError as error:
        say_error(str(error))
        sys.exit(1)
    except Exception as error:
        from sqlalchemy.exc import OperationalError  # not at the top: commands without a database start faster

        if not isinstance(error, OperationalError):
            raise
        say_error(f"the database cannot be used: {str(error.orig).strip()}")
        sys.exit(1)


if __name__ == "__main__":
    main()
