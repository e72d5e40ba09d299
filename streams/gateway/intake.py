"""Intake: events and items over HTTP, one or many, each checked by itself and acknowledged by Kafka."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus

import msgspec

from schemas.decoding import CLAMPED_TIMES, UNKNOWN_FIELDS, UNREADABLE, Invalid, Refused, parse_id
from schemas.events import EventRecord, decode_event
from schemas.items import ItemRecord, decode_item
from streams.gateway.endpoint import Asked, Endpoint, Nothing, Raw
from streams.gateway.gateway import Gateway
from streams.gateway.publisher import Outgoing
from streams.gateway.refusal import Refusal, RefusedRecord, bad_request

MOST_RECORDS = 20_000
REFUSED_SHOWN = 100

Check = Callable[[bytes, Counter[str]], str | Invalid]
"""The key of a record, or why it cannot be taken."""


class Taken(msgspec.Struct, frozen=True):
    """What became of the records of a call.

    Attributes:
        taken: those that Kafka has acknowledged; they will be worked.
        refused: how many were not taken, and `refusals`: which and why, the first hundred.
        unknown_fields: taken records that carry fields which nobody reads.
        clamped_times: taken records whose time lies ahead, and is replaced by that of their arrival.
    """

    taken: int
    refused: int
    refusals: list[RefusedRecord]
    unknown_fields: int
    clamped_times: int


class Deletion(msgspec.Struct, frozen=True):
    """The item whose deletion Kafka has acknowledged."""

    item_id: str


async def take_events(gateway: Gateway, asked: Asked[Nothing, Raw]) -> Taken:
    scenario = gateway.check_scenario(asked.path["scenario"])
    weights, now = gateway.settings.scenarios[scenario].events, time.time()

    def check(value: bytes, counts: Counter[str]) -> str | Invalid:
        event = decode_event(value, now, scenario, weights, counts)
        return event if isinstance(event, Invalid) else event.user_id

    return await _take(gateway, gateway.topics.events(scenario), asked.body.content, check)


async def take_items(gateway: Gateway, asked: Asked[Nothing, Raw]) -> Taken:
    now = time.time()

    def check(value: bytes, counts: Counter[str]) -> str | Invalid:
        item = decode_item(value, now, counts)
        return item if isinstance(item, Invalid) else item.item_id

    return await _take(gateway, gateway.topics.items, asked.body.content, check)


async def delete_item(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> Deletion:
    item_id = read_id("item_id", asked.path["item_id"])
    await gateway.publish([Outgoing(gateway.topics.items, item_id.encode(), None)])
    return Deletion(item_id)


def read_id(field: str, text: str) -> str:
    """An id from a path.

    Raises:
        Refusal: 400, if it cannot be one.
    """
    try:
        return parse_id(field, text)
    except Refused as refused:
        raise bad_request(refused.invalid) from None


async def _take(gateway: Gateway, topic: str, content: bytes, check: Check) -> Taken:
    records, refusals, counts = await gateway.apart(_sort, topic, content, check)
    if not records:
        message = f"none of {len(refusals)} records could be taken; the first: {refusals[0].message}"
        raise Refusal(HTTPStatus.BAD_REQUEST, "nothing-taken", message, refusals=refusals[:REFUSED_SHOWN])
    await gateway.publish(records)
    return Taken(
        len(records), len(refusals), refusals[:REFUSED_SHOWN], counts[UNKNOWN_FIELDS], counts[CLAMPED_TIMES]
    )  # fmt: skip


def _sort(topic: str, content: bytes, check: Check) -> tuple[list[Outgoing], list[RefusedRecord], Counter[str]]:
    """What can be published, what cannot, and what was noted on the former."""
    taken: list[Outgoing] = []
    refused: list[RefusedRecord] = []
    noted: Counter[str] = Counter()
    for index, value in enumerate(split(content)):
        counts: Counter[str] = Counter()
        key = check(value, counts)
        if isinstance(key, Invalid):
            refused.append(RefusedRecord(index, key.code, key.message))
        else:
            taken.append(Outgoing(topic, key.encode(), value))
            noted += counts
    return taken, refused, noted


def split(content: bytes) -> Sequence[bytes]:
    """The records of a body: of a JSON array, of one JSON object, or of lines with one object each.

    Raises:
        Refusal: there are none, too many, or they stand in an array that is broken.
    """
    text = content.strip()
    if not text:
        raise Refusal(HTTPStatus.BAD_REQUEST, "empty", "the body is empty; send one JSON object, an array, or lines")
    if text.startswith(b"["):
        try:
            records: list[bytes] = [bytes(each) for each in _decode_array(text)]
        except UNREADABLE as error:
            message = f"the body is a broken JSON array: {error}; as lines, one bad record does not stop the others"
            raise Refusal(HTTPStatus.BAD_REQUEST, "not-json", message) from None
    else:
        records = [text] if _is_one(text) else [line for line in text.splitlines() if line.strip()]
    if not records:
        raise Refusal(HTTPStatus.BAD_REQUEST, "empty", "the array is empty")
    if len(records) > MOST_RECORDS:
        message = f"{len(records)} records; a call may bring {MOST_RECORDS}, so send them in several"
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-many-records", message)
    return records


_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_one = msgspec.json.Decoder(msgspec.Raw).decode


def _is_one(text: bytes) -> bool:
    try:
        _decode_one(text)
    except UNREADABLE:
        return False
    return True


_REFUSALS = (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.SERVICE_UNAVAILABLE)

CALLS = (
    Endpoint(
        method="POST",
        path="/api/events/{scenario}",
        summary="Publish events of a scenario: one, an array, or one a line",
        call=take_events,
        body=Raw,
        record=EventRecord,
        many=True,
        answer=Taken,
        status=HTTPStatus.ACCEPTED,
        refusals=(*_REFUSALS, HTTPStatus.NOT_FOUND),
        token=True,
    ),
    Endpoint(
        method="POST",
        path="/api/items",
        summary="Publish items: one, an array, or one a line",
        call=take_items,
        body=Raw,
        record=ItemRecord,
        many=True,
        answer=Taken,
        status=HTTPStatus.ACCEPTED,
        refusals=_REFUSALS,
        token=True,
    ),
    Endpoint(
        method="DELETE",
        path="/api/items/{item_id:path}",
        summary="Delete an item",
        call=delete_item,
        answer=Deletion,
        status=HTTPStatus.ACCEPTED,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
        token=True,
    ),
)
