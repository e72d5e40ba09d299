"""Recommendations and similar items: a call becomes a request in Kafka and waits for SERVE's answer to it."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from schemas.decoding import Invalid
from schemas.recommendations import Recommendation, decode_request
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.publisher import RETRY_AFTER, Outgoing
from streams.gateway.refusal import Refusal, bad_request

K = Annotated[int, Meta(description="How many items, 1 to 1000; left out: the scenario's own number.")]
Exclude = Annotated[list[str], Meta(description="Items not to show; may be given several times.")]
Categories = Annotated[list[str], Meta(description="Only items of one of these; may be given several times.")]


class ListQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which items."""

    k: K | None = None
    exclude: Exclude = []
    category: Categories = []


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A request for a user, as on the requests topic.

    Attributes:
        history: items to recommend from in place of the user's own history, oldest first.
    """

    user_id: str | int
    k: int | None = None
    exclude: list[str | int] | None = None
    categories: list[str | int] | None = None
    history: list[str | int] | None = None


async def recommend(gateway: Gateway, asked: Asked[ListQuery, Nothing]) -> Recommendation:
    return await ask(gateway, asked.path["scenario"], {"user_id": asked.path["user_id"], **_fields(asked.query)})


async def recommend_as_asked(gateway: Gateway, asked: Asked[Nothing, Wanted]) -> Recommendation:
    return await ask(gateway, asked.path["scenario"], msgspec.to_builtins(asked.body))


async def similar(gateway: Gateway, asked: Asked[ListQuery, Nothing]) -> Recommendation:
    return await ask(gateway, asked.path["scenario"], {"item_id": asked.path["item_id"], **_fields(asked.query)})


def _fields(query: ListQuery) -> dict[str, Any]:
    return {"k": query.k, "exclude": query.exclude, "categories": query.category}


async def ask(gateway: Gateway, scenario: str, fields: Mapping[str, Any]) -> Recommendation:
    """SERVE's answer to a request with these fields.

    Raises:
        Refusal: 400 for a bad request, 404 for an unknown scenario, 429 where too many wait, 503 if Kafka is away
            or does not take it, 504 if no answer comes in time.
    """
    gateway.check_scenario(scenario)
    request_id = uuid.uuid4().hex
    value = msgspec.json.encode({"request_id": request_id, "scenario": scenario, **fields})
    request = decode_request(value, Counter())
    if isinstance(request, Invalid):
        raise bad_request(request)
    gateway.check_broker()
    key = (request.user_id or request.item_id or "").encode()
    seconds = gateway.settings.gateway.timeout_seconds
    with gateway.replies.expect(request_id) as answer:
        try:
            async with asyncio.timeout(seconds):
                await gateway.replies.listening.wait()
                await gateway.publish([Outgoing(gateway.topics.requests, key, value)])
                return await answer
        except TimeoutError:
            message = (
                f"no answer came within {seconds:g} s (gateway.timeout_seconds): SERVE does not run, is behind, or its "
                "index is still empty; /api/health-of-data shows its lag"
            )
            if troubles := gateway.condition.troubles:
                message = " ".join([f"No answer came within {seconds:g} s.", *(each.sentence for each in troubles)])
            raise Refusal(HTTPStatus.GATEWAY_TIMEOUT, "no-answer", message, headers=RETRY_AFTER) from None


_REFUSALS = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)

CALLS = (
    Endpoint(
        method="GET",
        path="/api/recommendations/{scenario}/{user_id:path}",
        summary="Recommend items to a user",
        call=recommend,
        query=ListQuery,
        answer=Recommendation,
        refusals=_REFUSALS,
    ),
    Endpoint(
        method="POST",
        path="/api/recommendations/{scenario}",
        summary="Recommend items to a user, or from a history of your own",
        call=recommend_as_asked,
        body=Wanted,
        answer=Recommendation,
        refusals=_REFUSALS,
    ),
    Endpoint(
        method="GET",
        path="/api/similar/{scenario}/{item_id:path}",
        summary="Items similar to an item",
        call=similar,
        query=ListQuery,
        answer=Recommendation,
        refusals=_REFUSALS,
    ),
)
