"""The commands that order: `headstream pause`, `resume`, `promote`, `rollback` and `consolidate`."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from streams.logs import log_to_terminal
from streams.terminal import Broker, Config, Data, Json, errors, fail, find_broker, read_settings, stopping

Scenario = Annotated[str, typer.Argument(help="Which scenario.")]
Reason = Annotated[str, typer.Option(help="Why, for whoever looks at it later.")]
Author = Annotated[str | None, typer.Option(help="Who orders it; else the name of your account.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is known what came of it.")]
Timeout = Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")]

DEFAULT_TIMEOUT_SECONDS = 60.0


class Options(NamedTuple):
    """What all orders are given with."""

    reason: str
    author: str | None
    wait: bool
    timeout: float
    config: Path | None
    data: Path | None
    broker: str | None
    as_json: bool


def ordering(action: str, words: str, because: str) -> Callable[..., None]:
    """The command of an action that takes a scenario and nothing else."""

    def order(
        scenario: Scenario,
        reason: Reason,
        author: Author = None,
        wait: Wait = True,
        timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
        config: Config = None,
        data: Data = None,
        broker: Broker = None,
        as_json: Json = False,
    ) -> None:
        give(action, scenario, None, Options(reason, author, wait, timeout, config, data, broker, as_json))

    order.__name__ = action
    order.__doc__ = f"""{words}

    Example: [cyan]headstream {action} shop --reason "{because}"[/]
    """
    return order


pause = ordering("pause", "Stop a scenario from learning; it is served on with what it has learnt.", "bots since 9:00")
resume = ordering("resume", "Let a scenario learn on.", "the bots are blocked")
promote = ordering("promote", "Take what a scenario has learnt for good, and serve it.", "looked at it, it is right")


def rollback(
    scenario: Scenario,
    reason: Reason,
    version: Annotated[int | None, typer.Option(min=1, help="To which version; else the last good one.")] = None,
    author: Author = None,
    wait: Wait = True,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    config: Config = None,
    data: Data = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Serve an earlier version of a scenario again, and learn no more in it until `resume`.

    Example: [cyan]headstream rollback shop --version 117 --reason "false purchases"[/]
    """
    give("rollback", scenario, version, Options(reason, author, wait, timeout, config, data, broker, as_json))


def consolidate(
    reason: Reason,
    author: Author = None,
    wait: Wait = True,
    timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,
    config: Config = None,
    data: Data = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Fine-tune what all scenarios share, and publish a new generation of all vectors.

    Example: [cyan]headstream consolidate --reason "before the season"[/]
    """
    give("consolidate", None, None, Options(reason, author, wait, timeout, config, data, broker, as_json))


ACTIONS = (pause, resume, promote, rollback, consolidate)


def give(action: str, scenario: str | None, version: int | None, options: Options) -> None:
    """Publish the order, and say what came of it."""
    from schemas.control import encode_control
    from schemas.migrations import upgrade
    from schemas.topics import Topics
    from streams.client import Client
    from streams.history import History
    from streams.orders import await_outcome, make_order
    from streams.store import database_url, open_engine

    log_to_terminal(errors)
    settings = read_settings(options.config, options.data, options.broker)
    order = make_order(
        action,
        scenario,
        version=version,
        author=options.author or getpass.getuser(),
        reason=options.reason,
        scenarios=tuple(settings.scenarios),
    )
    client = Client(find_broker(settings))
    try:
        client.send(Topics(settings).control, order.scenario or "", json.loads(encode_control(order)))
        client.flush()
    finally:
        client.close()
    if not options.wait:
        typer.echo(json.dumps({"action_id": order.action_id}) if options.as_json else f"ordered: {order.action_id}")
        return
    engine = open_engine(database_url(settings))
    try:
        upgrade(engine)
        with stopping() as stop:
            found = await_outcome(History(engine), order.action_id, options.timeout, stop)
    finally:
        engine.dispose()
    if found is None:
        fail(
            f"nothing is known yet of {order.action_id} after {options.timeout:g} s: LEARN is not running, or busy. "
            "The order stands in Kafka and is carried out once LEARN comes to it."
        )
    if options.as_json:
        keys = ("action_id", "action", "scenario", "version", "outcome", "detail")
        typer.echo(json.dumps({key: getattr(found, key) for key in keys}))
    else:
        typer.echo(f"{action} of {scenario or 'all scenarios'}: {found.outcome}. {found.detail}".strip())
    if found.outcome != "done":
        raise typer.Exit(1)
