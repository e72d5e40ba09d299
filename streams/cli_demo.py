"""The command that shows everything: `headstream demo`."""

from __future__ import annotations

import json
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.configuration import variable_of
from streams.logs import log_to_terminal
from streams.terminal import Data, Json, errors, handed_on, out, read_settings, say_error, step_printer, stopping


class StoryName(StrEnum):
    """Stories that the demo can play."""

    drift = "drift"


def demo(
    seconds: Annotated[
        float | None, typer.Option(min=1, help="End after this many seconds; for ever if left out.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Events per second of the simulated audience; 25, in a story 150.")
    ] = None,
    story: Annotated[
        StoryName | None,
        typer.Option(help="Play a story: `drift` shifts tastes, floods a shelf with items, and poisons a scenario."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the simulated world.")] = 0,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Start everything and let a simulated audience use five scenarios, on a live table.

    Examples: [cyan]headstream demo --seconds 60 --json[/], [cyan]headstream demo --story drift[/]
    """
    from streams.demo import CONTROL_SHARE, run_demo
    from streams.kafka_files import port_is_free
    from streams.status import read_scenarios
    from streams.store import Store, database_url, open_engine
    from streams.story import SETTINGS, Script
    from streams.supervisor import Supervisor

    log_to_terminal(errors)
    began = time.monotonic()
    folder = data or Path(".headstream") / "demo"
    script = Script() if story is not None else None
    scenarios = read_settings(None, folder, None).scenarios
    more: dict[str, Any] = {f"scenarios.{name}.control": CONTROL_SHARE for name in scenarios}
    more |= {} if script is None else SETTINGS
    settings = read_settings(None, folder, None, more)
    if not port_is_free(settings.gateway.port):
        # Another `up` or demo has the usual port, and this one is only looked at.
        more["gateway.port"] = 0
        settings = read_settings(None, folder, None, more)
    everything = Supervisor(
        settings,
        arguments=handed_on(None, folder),
        environment={variable_of(key): str(value) for key, value in more.items()},
        on_step=step_printer(began),
    )
    with stopping() as stop:
        with everything as supervisor:
            if not supervisor.wait_ready(stop):
                return
            errors.print(f"dashboard and API: [bold]{supervisor.gateway}[/]")
            ready_after = time.monotonic() - began
            watching = threading.Thread(target=supervise, args=(supervisor, stop), daemon=True)
            watching.start()
            engine = open_engine(database_url(settings))
            store = Store(engine, f"{settings.kafka.prefix}serve", "demo")
            try:
                summary = run_demo(
                    settings,
                    supervisor.broker,
                    seconds=seconds,
                    events_per_second=rate or (25.0 if script is None else script.events_per_second),
                    json_output=as_json,
                    seed=seed,
                    read_status=lambda: read_scenarios(settings, store),
                    console=errors if as_json else out,
                    stop=stop,
                    ready_after=ready_after,
                    script=script,
                )
            finally:
                stop.set()
                watching.join(5)
                engine.dispose()
        if as_json:
            typer.echo(json.dumps(summary))


def supervise(supervisor: Any, stop: threading.Event) -> None:
    try:
        supervisor.run(stop)
    except Exception as error:
        say_error(str(error))
        stop.set()
