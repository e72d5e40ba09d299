"""Erasures over HTTP: the wish that everything of a user goes, and the receipt of what went."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from http import HTTPStatus

import msgspec

from schemas.decoding import Invalid
from schemas.reports import Erasure, decode_erasure, encode_erasure
from streams.gateway.backwards import newest_first, reading
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.publisher import Outgoing
from streams.gateway.refusal import Refusal, bad_request
from streams.receipts import Receipt, held_by_kafka, read_receipt

MOST_LOOKED_THROUGH = 1000
"""Records of the erasures topic that are looked through for one that nobody has come to yet."""


class Erase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose everything shall go.

    Attributes:
        reason: for whoever looks at the receipt later; it should not say who the user is.
        erasure_id: of your own, at most 256 bytes; it stays on record, so it should not say who the user is either.
    """

    user_id: str | int
    reason: str | None = None
    erasure_id: str | None = None


class Begun(msgspec.Struct, frozen=True):
    """Kafka has it; /api/erasures/{erasure_id} is the receipt."""

    erasure_id: str


async def erase(gateway: Gateway, asked: Asked[Nothing, Erase]) -> Begun:
    now, body = time.time(), asked.body
    given = {**msgspec.structs.asdict(body), "erasure_id": body.erasure_id or uuid.uuid4().hex, "requested_at": now}
    wish = decode_erasure(msgspec.json.encode(given), now, Counter())
    if isinstance(wish, Invalid):
        raise bad_request(wish)
    await gateway.publish([Outgoing(gateway.topics.erasures, None, encode_erasure(wish))])
    return Begun(given["erasure_id"])


def read(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> Receipt:
    """From the database; while no process has come to it, what the topic says."""
    erasure_id = asked.path["erasure_id"]
    held = held_by_kafka(gateway.broker, gateway.topics, time.time())
    found = read_receipt(gateway.erasures, erasure_id, held)
    if found.status == "pending" and not _in_topic(gateway, erasure_id):
        message = f'no erasure "{erasure_id[:256]}" is known; POST /api/erasures answers with the id of its own'
        raise Refusal(HTTPStatus.NOT_FOUND, "unknown-erasure", message)
    return found


def _in_topic(gateway: Gateway, erasure_id: str) -> bool:
    with reading(gateway.broker) as consumer:
        for record in newest_first(consumer, gateway.topics.erasures, None, MOST_LOOKED_THROUGH):
            value = record.value()
            wish = decode_erasure(value, record.timestamp()[1] / 1000, Counter()) if value is not None else None
            place = f"{record.topic()}:{record.partition()}:{record.offset()}"
            if isinstance(wish, Erasure) and erasure_id in (wish.erasure_id, place):
                return True
    return False


CALLS = (
    Endpoint(
        method="POST",
        path="/api/erasures",
        summary="Remove everything of a user",
        call=erase,
        body=Erase,
        answer=Begun,
        status=HTTPStatus.ACCEPTED,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.SERVICE_UNAVAILABLE),
        token=True,
    ),
    Endpoint(
        method="GET",
        path="/api/erasures/{erasure_id:path}",
        summary="What an erasure removed, and what Kafka still holds",
        call=read,
        answer=Receipt,
        refusals=(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    ),
)
