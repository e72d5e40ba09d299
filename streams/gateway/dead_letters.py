"""Dead letters: what could not be taken, newest first, with the reason; and the way back for one that was put right."""

from __future__ import annotations

import base64
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from confluent_kafka import Message
from msgspec import Meta

from schemas.control import decode_control, parse_text
from schemas.decoding import Invalid, Refused
from schemas.events import Event, decode_event
from schemas.items import Item, decode_item
from schemas.recommendations import decode_request
from schemas.reports import decode_erasure
from schemas.times import say_time
from streams.gateway.backwards import newest_first, reading
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.publisher import Outgoing
from streams.gateway.refusal import Refusal, bad_request
from streams.history import History
from streams.receipts import is_erased, named_in

MOST_LOOKED_THROUGH = 2000
"""Records that one call looks through for those that it filters by."""
LOOKED_UP_AT_ONCE = 100
SHOWN_BYTES = 2000
SOURCE_TIMESTAMP = "source.timestamp"
OUR_HEADERS = ("error.code", "error.message", "source.topic", "source.partition", "source.offset", SOURCE_TIMESTAMP)
REPUBLISHED_FROM = "republished.from"
REPUBLISH = "republish"


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes for people: text where they are UTF-8, else base64; the first 2,000 of `size`."""

    size: int
    text: str | None = None
    base64: str | None = None


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that could not be taken, where it came from, and why.

    Attributes:
        offset: in the dead-letters topic; with it the record is named to re-publish it.
        at: when it was put aside, epoch seconds.
        source_partition: where it stood, and `source_offset`; None where a header is missing.
        value: None where there was none.
        headers: those that the producer gave it.
        went_back: when it was sent back to its topic, epoch seconds; None if it was not.
    """

    offset: int
    at: float
    code: str
    message: str
    source_topic: str
    source_partition: int | None
    source_offset: int | None
    key: Shown | None
    value: Shown | None
    headers: list[tuple[str, Shown | None]]
    went_back: float | None = None

    @property
    def source(self) -> str:
        """The record that it is of; what was done about it is kept under this id."""
        return f"{self.source_topic}:{self.source_partition}:{self.source_offset}"


class DeadLetters(msgspec.Struct, frozen=True):
    """Newest first; `next_before` goes on where these end, None where nothing older is held."""

    letters: list[DeadLetter]
    looked_through: int
    next_before: int | None


class DeadLettersQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which ones."""

    code: Annotated[str, Meta(description="Only those with this error.code, such as bad-id.")] | None = None
    topic: Annotated[str, Meta(description="Only those that came from this topic.")] | None = None
    before: Annotated[int, Meta(ge=0, description="Only those before this offset; next_before of a page.")] | None = (
        None
    )
    limit: Annotated[int, Meta(ge=1, le=200, description="How many, at most.")] = 50


class Republish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letter goes back to where it came from.

    Attributes:
        value: what goes in its place; left out, the very bytes of the dead letter go.
        reason: what was wrong, for the record of who did it.
        force: also if it went back once before.
    """

    offset: int
    author: str
    reason: str
    partition: int = 0
    value: dict[str, Any] | None = None
    force: bool = False


class Republished(msgspec.Struct, frozen=True):
    """Kafka has it; `action_id` names the record of it in /api/actions."""

    topic: str
    action_id: str


def browse(gateway: Gateway, asked: Asked[DeadLettersQuery, Nothing]) -> DeadLetters:
    """Look back over the topic for as far as one call may, or until there are enough."""
    query, letters, last = asked.query, [], None
    looked_through = 0
    with reading(gateway.broker) as consumer:
        topic = gateway.topics.dead_letters
        for record in _shown_of(gateway, newest_first(consumer, topic, query.before, MOST_LOOKED_THROUGH)):
            letter = _letter(record)
            looked_through, last = looked_through + 1, letter.offset
            if query.code in (None, letter.code) and query.topic in (None, letter.source_topic):
                letters.append(letter)
                if len(letters) == query.limit:
                    break
    went = gateway.history.actions_named([each.source for each in letters])
    told = [
        msgspec.structs.replace(each, went_back=went[each.source].performed_at) if each.source in went else each
        for each in letters
    ]
    return DeadLetters(told, looked_through, last if last else None)


def _shown_of(gateway: Gateway, records: Iterator[Message]) -> Iterator[Message]:
    """Those of these letters that are of nobody who was erased."""
    anybody = gateway.erasures.sequence() > 0
    while some := list(itertools.islice(records, LOOKED_UP_AT_ONCE)):
        users = [named_in(_bytes(each.key()), _bytes(each.value())) if anybody else set() for each in some]
        erased = gateway.erasures.of(set().union(*users)) if anybody else {}
        for record, named in zip(some, users, strict=True):
            if not is_erased(named, _written(record), erased):
                yield record


def _written(record: Message) -> float:
    """When what a letter holds was written, epoch seconds: it may be put aside only after an erasure."""
    source = _number(_our_headers(record).get(SOURCE_TIMESTAMP))
    milliseconds = record.timestamp()[1]
    return (milliseconds if source is None else min(source, milliseconds)) / 1000


def _bytes(content: Any) -> bytes | None:
    return content.encode() if isinstance(content, str) else content


def _letter(record: Message) -> DeadLetter:
    headers, ours = _headers(record), _our_headers(record)
    _, milliseconds = record.timestamp()
    return DeadLetter(
        offset=record.offset() or 0,
        at=milliseconds / 1000,
        code=ours.get("error.code", ""),
        message=ours.get("error.message", ""),
        source_topic=ours.get("source.topic", ""),
        source_partition=_number(ours.get("source.partition")),
        source_offset=_number(ours.get("source.offset")),
        key=_shown(record.key()),
        value=_shown(record.value()),
        headers=[(name, _shown(value)) for name, value in headers if name not in OUR_HEADERS],
    )


def _headers(record: Message) -> list[tuple[str, bytes | None]]:
    given: Any = record.headers() or []
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in given]


def _our_headers(record: Message) -> dict[str, str]:
    return {name: (value or b"").decode(errors="replace") for name, value in _headers(record) if name in OUR_HEADERS}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else None


def _shown(value: Any) -> Shown | None:
    if value is None:
        return None
    content = value.encode() if isinstance(value, str) else bytes(value)
    try:
        content.decode()
    except UnicodeDecodeError:
        return Shown(len(content), base64=base64.b64encode(content[:SHOWN_BYTES]).decode())
    return Shown(len(content), text=content[:SHOWN_BYTES].decode(errors="ignore"))


# The way back


async def republish(gateway: Gateway, asked: Asked[Nothing, Republish]) -> Republished:
    """1. read it; 2. check what would go; 3. put on record that it goes; 4. send it; 5. put on record that it went."""
    order = asked.body
    record = await gateway.apart(_find, gateway, order)
    letter = _letter(record)
    value = record.value() if order.value is None else msgspec.json.encode(order.value)
    found = _check(gateway, letter, value)
    action_id = letter.source
    kept = [(name, each) for name, each in _headers(record) if name not in (*OUR_HEADERS, REPUBLISHED_FROM)]
    place = f"{gateway.topics.dead_letters}:{order.partition}:{order.offset}"
    await gateway.apart(_claim, gateway.history, gateway, order, letter, action_id, place)
    key: Any = record.key() if order.value is None else _key_of(found, record.key())
    outgoing = Outgoing(letter.source_topic, key, value, [*kept, (REPUBLISHED_FROM, place.encode())])
    try:
        await gateway.publish([outgoing])
    except Refusal:
        await gateway.apart(gateway.history.end_action, action_id, "refused", "Kafka did not acknowledge it in time")
        raise
    changed = "put right" if order.value is not None else "as it was"
    await gateway.apart(gateway.history.end_action, action_id, "done", f"{place} went back, {changed}")
    return Republished(letter.source_topic, action_id)


def _find(gateway: Gateway, order: Republish) -> Message:
    with reading(gateway.broker) as consumer:
        if order.partition == 0:
            for record in _shown_of(gateway, newest_first(consumer, gateway.topics.dead_letters, order.offset + 1, 1)):
                if record.offset() == order.offset:
                    return record
    message = (
        f"no dead letter lies at partition {order.partition}, offset {order.offset}; "
        "retention may have taken it, or an erasure"
    )
    raise Refusal(HTTPStatus.NOT_FOUND, "unknown-dead-letter", message)


def _check(gateway: Gateway, letter: DeadLetter, value: Any) -> object:
    """What its topic's reader will take it for: only what it will take goes back, lest it come straight here again.

    Raises:
        Refusal: 409 for a topic that is not ours to write, 422 for a value that would not be taken.
    """
    decode = _decoders(gateway).get(letter.source_topic)
    if decode is None:
        message = f'"{letter.source_topic}" is no topic of this configuration that records are published to'
        raise Refusal(HTTPStatus.CONFLICT, "unknown-source", message)
    found = Invalid("null", "it has no value; give one") if value is None else decode(value)
    if isinstance(found, Invalid):
        message = f"it would not be taken: {found.message}; put it right with value"
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, found.code, message)
    return found


def _key_of(found: object, given: Any) -> Any:
    """The key that belongs to a record that was put right; the one given where any will do."""
    if isinstance(found, Item):
        return found.item_id.encode()
    return found.user_id.encode() if isinstance(found, Event) else given


def _decoders(gateway: Gateway) -> Mapping[str, Callable[[bytes], object]]:
    """How the readers of the topics that may be re-published to decode them."""
    topics, now = gateway.topics, time.time()

    def of_events(name: str) -> Callable[[bytes], object]:
        weights = gateway.settings.scenarios[name].events
        return lambda value: decode_event(value, now, name, weights, Counter())

    return {
        **{topics.events(name): of_events(name) for name in gateway.settings.scenarios},
        topics.items: lambda value: decode_item(value, now, Counter()),
        topics.requests: lambda value: decode_request(value, Counter()),
        topics.erasures: lambda value: decode_erasure(value, now, Counter()),
        topics.control: lambda value: decode_control(value, now, Counter()),
    }


def _claim(
    history: History, gateway: Gateway, order: Republish, letter: DeadLetter, action_id: str, place: str
) -> None:
    """Put on record that this source record goes back, before it does: of two who try at once one is refused."""
    now = time.time()
    events = {gateway.topics.events(name): name for name in gateway.settings.scenarios}
    try:
        author, reason = parse_text("author", order.author), parse_text("reason", order.reason)
    except Refused as refused:
        raise bad_request(refused.invalid) from None
    action = {
        "action_id": action_id,
        "action": REPUBLISH,
        "scenario": events.get(letter.source_topic),
        "version": None,
        "author": author,
        "reason": reason,
        "requested_at": now,
        "performed_at": now,
        "outcome": "begun",
        "detail": f"{place} goes back; whether it arrived is not known yet",
    }
    if not history.begin_action(action, again=order.force):
        known = history.action(action_id)
        when = f" at {say_time(known.performed_at)} by {known.author} ({known.outcome})" if known else ""
        message = f"{action_id} went back once already{when}; force sends it again"
        raise Refusal(HTTPStatus.CONFLICT, "republished-before", message)


CALLS = (
    Endpoint(
        method="GET",
        path="/api/dead-letters",
        summary="What could not be taken, newest first",
        call=browse,
        query=DeadLettersQuery,
        answer=DeadLetters,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
    ),
    Endpoint(
        method="POST",
        path="/api/dead-letters/republish",
        summary="Send a dead letter back to where it came from, put right or as it was",
        call=republish,
        body=Republish,
        answer=Republished,
        status=HTTPStatus.ACCEPTED,
        refusals=(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            HTTPStatus.SERVICE_UNAVAILABLE,
        ),
        token=True,
    ),
)
