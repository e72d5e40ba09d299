"""What the commands of a terminal share: consoles, options, settings, errors in a sentence, steps, and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from schemas.configuration import load
from schemas.errors import ExplainedError
from schemas.settings import Settings

if TYPE_CHECKING:
    from streams.access import Cluster

out = Console()
errors = Console(stderr=True)

Data = Annotated[Path | None, typer.Option("--data", help="Folder for Kafka, database, checkpoints and logs.")]
Config = Annotated[Path | None, typer.Option("--config", help="Configuration; ./headstream.toml if it exists.")]
Broker = Annotated[str | None, typer.Option("--broker", help="host:port of a Kafka cluster in place of our own.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class NoBroker(ExplainedError):
    """No broker is configured and none of ours is running."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            f"no broker: nothing runs on {Path(settings.data).resolve()}. Start `headstream up` first, "
            "or name a cluster with --broker host:port."
        )


def find_broker(settings: Settings) -> Cluster:
    from streams.access import cluster  # not at the top: they take time to import
    from streams.supervisor import known_broker

    broker = known_broker(settings)
    if broker is None:
        raise NoBroker(settings)
    return cluster(settings.kafka, broker)


def read_settings(
    config: Path | None, data: Path | None, broker: str | None, more: Mapping[str, Any] | None = None
) -> Settings:
    """The settings that hold for a command; `more` are values by dotted key, as its options are."""
    overrides: dict[str, Any] = dict(more or {})
    if data is not None:
        overrides["data"] = str(data)
    if broker is not None:
        overrides["kafka.broker"] = broker
    return load(config, os.environ, overrides)


def handed_on(config: Path | None, data: Path) -> list[str]:
    """What a child needs to read the same settings."""
    return [*(["--config", str(config.resolve())] if config else []), "--data", str(data.resolve())]


def step_printer(began: float) -> Callable[[str], None]:
    """Says what is done at each step, and how long after `began`; by the monotonic clock."""
    return lambda step: errors.print(f"[dim]{time.monotonic() - began:5.1f} s[/]  {step}")


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C or SIGTERM sets; a second one ends at once."""
    stop = threading.Event()

    def ask(_signal: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {each: signal.signal(each, ask) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def fail(reason: str) -> NoReturn:
    say_error(reason)
    raise typer.Exit(1)


def say_error(reason: str) -> None:
    errors.print(f"[red]error:[/] {escape(reason)}", highlight=False, soft_wrap=True)
