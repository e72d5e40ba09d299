"""The calls of the API: all of them, in one list that routes, OpenAPI and the page for people are made from."""

from __future__ import annotations

from functools import cache
from typing import Any

from starlette.responses import HTMLResponse, Response

from streams.gateway import (
    actions,
    dead_letters,
    erasures,
    intake,
    latest,
    lookup,
    openapi,
    recommending,
    scenarios,
    sign_in,
    system,
)
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway


@cache
def _description() -> dict[str, Any]:
    return openapi.describe(CALLS)


def describe(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> dict[str, Any]:
    return _description()


def list_calls(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> Response:
    return HTMLResponse(openapi.page(CALLS))


CALLS: tuple[Endpoint, ...] = (
    *system.CALLS,
    Endpoint(
        method="GET",
        path="/openapi.json",
        summary="This description, for programs",
        call=describe,
        answer=dict[str, Any],
    ),
    Endpoint(
        method="GET",
        path="/api",
        summary="This description, for people",
        call=list_calls,
        answer=str,
        media="text/html",
    ),
    *intake.CALLS,
    *recommending.CALLS,
    *scenarios.CALLS,
    *latest.CALLS,
    *lookup.CALLS,
    *dead_letters.CALLS,
    *actions.CALLS,
    *erasures.CALLS,
    *sign_in.CALLS,
)
