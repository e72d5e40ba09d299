"""The command that erases: `headstream erase USER`."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from streams.logs import log_to_terminal
from streams.terminal import Broker, Config, Data, Json, errors, fail, find_broker, out, read_settings, stopping

if TYPE_CHECKING:
    from streams.receipts import Receipt

DEFAULT_TIMEOUT_SECONDS = 120.0
BROKER_SECONDS = 10.0


def erase(
    user: Annotated[str, typer.Argument(help="The user's id, as events name it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why, for the receipt; do not name the user.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the receipt.")] = True,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = DEFAULT_TIMEOUT_SECONDS,
    config: Config = None,
    data: Data = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Remove everything of a user: state, examples, replay, probe sets, from every kept checkpoint too.

    From then on the user is unknown; what they do later begins a new past. The receipt counts what went, and says what
    Kafka itself holds until its retention. What the weights have learnt stays in them, in sum with everybody else's.

    Example: [cyan]headstream erase u-42 --reason "ticket 981"[/]
    """
    import msgspec

    from schemas.decoding import Invalid
    from schemas.migrations import upgrade
    from schemas.reports import decode_erasure, encode_erasure
    from schemas.topics import Topics
    from streams.administration import BrokerUnreachable, end_offsets
    from streams.client import Client
    from streams.erasures import Erasures
    from streams.receipts import await_receipt, held_by_kafka
    from streams.store import database_url, open_engine

    log_to_terminal(errors)
    settings = read_settings(config, data, broker)
    topics, address, erasure_id, now = Topics(settings), find_broker(settings), uuid.uuid4().hex, time.time()
    fields = {"user_id": user, "requested_at": now, "erasure_id": erasure_id, "reason": reason}
    wish = decode_erasure(json.dumps(fields).encode(), now, Counter())
    if isinstance(wish, Invalid):
        fail(wish.message)
    if not end_offsets(address, [topics.erasures], BROKER_SECONDS):
        fail(f"{address} has no topic {topics.erasures}. Start `headstream up` there first, or check kafka.prefix.")
    client = Client(address)
    try:
        client.send(topics.erasures, "", json.loads(encode_erasure(wish)))
        client.flush()
    finally:
        client.close()
    if not wait:
        typer.echo(json.dumps({"erasure_id": erasure_id}) if as_json else f"wished: {erasure_id}")
        return
    engine = open_engine(database_url(settings))
    try:
        upgrade(engine)
        with stopping() as stop, errors.status(f"erasure {erasure_id}") as line:
            said = ""

            def tell(receipt: Receipt) -> None:
                nonlocal said
                news = _progress(receipt)
                line.update(news)
                if news != said and not errors.is_terminal:  # there the line that changes is not to be seen
                    errors.print(news, soft_wrap=True)
                said = news

            found = await_receipt(Erasures(engine), erasure_id, timeout, stop, tell)
    finally:
        engine.dispose()
    unsaid = ""
    try:
        found = msgspec.structs.replace(found, held=held_by_kafka(address, topics, time.time()))
    except BrokerUnreachable as unreachable:
        unsaid = f"What Kafka still holds is not known: {unreachable}"
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _print(found)
    if found.status != "done":
        missing = _missing(found)
        why = "you waited no longer" if stop.is_set() else f"not running, or busy for {timeout:g} s"
        fail(
            f"{missing} not through: {why}. The wish stands in Kafka and is carried out once {missing} come to it "
            f"(`headstream status` says what runs); GET /api/erasures/{erasure_id} says how far it is. {unsaid}"
        )
    if unsaid:
        fail(unsaid)


def _missing(receipt: Receipt) -> str:
    return " and ".join(part.upper() for part, at in receipt.parts.items() if at is None)


def _progress(receipt: Receipt) -> str:
    """In a line, for whoever waits."""
    rewritten = receipt.removed.get("checkpoints", 0)
    done = f"; {rewritten} checkpoints rewritten" if rewritten else ""
    return f"erasure {receipt.erasure_id}: waiting for {_missing(receipt) or 'nothing'}{done}"


def _print(receipt: Receipt) -> None:
    from rich.table import Table

    from schemas.reports import PLACES
    from schemas.times import say_time

    table = Table("removed", "what", title=f"erasure {receipt.erasure_id}: {receipt.status}", title_justify="left")
    for place, count in receipt.removed.items():
        table.add_row(f"{count:,}", PLACES[place])
    out.print(table)
    held = Table("Kafka still holds", "gone by, at the latest")
    for each in receipt.held:
        held.add_row(each.topic, "never" if each.until is None else say_time(each.until))
    out.print(held)
    for sentence in receipt.left:
        out.print(sentence)
    out.print("What the weights have learnt from the user stays in them, in sum with everybody else's.")
