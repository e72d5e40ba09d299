"""The application: routes of the API, and of pages, behind one way of saying what went wrong."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from sqlalchemy.exc import DBAPIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ExplainedError
from streams.administration import BrokerUnreachable
from streams.gateway.backwards import no_broker
from streams.gateway.calls import CALLS
from streams.gateway.gateway import Gateway
from streams.gateway.guard import Guard, allowed_hosts
from streams.gateway.openapi import public_path
from streams.gateway.pages import failure_page, page_routes
from streams.gateway.refusal import Refusal, nearest_to

log = logging.getLogger(__name__)


def make_app(gateway: Gateway) -> Guard:
    """The whole application: the API, and the dashboard's pages."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        gateway.start()
        try:
            yield
        finally:
            gateway.close()

    faults: dict[Any, Any] = {
        Refusal: _refused,
        HTTPException: _not_routed,
        DBAPIError: _database_fails,
        BrokerUnreachable: _broker_fails,
        ExplainedError: _explained,
        Exception: _failed,
    }
    routes = [*(endpoint.route(gateway) for endpoint in CALLS), *page_routes(gateway)]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=faults)
    app.state.gateway = gateway
    return Guard(app, allowed_hosts(gateway.settings.gateway))


async def _refused(_request: Request, refusal: Refusal) -> Response:
    return refusal.response


async def _not_routed(request: Request, error: HTTPException) -> Response:
    """No route, or not by this method, as Starlette found."""
    path, status = request.url.path, HTTPStatus(error.status_code)
    if status is HTTPStatus.NOT_FOUND:
        paths = tuple(dict.fromkeys(public_path(call.path) for call in CALLS))
        nearest = nearest_to(path, paths)
        message = f"there is no {path[:200]}; {f'the nearest is {nearest}, and ' if nearest else ''}/api lists all"
        if "text/html" in request.headers.get("accept", ""):
            return failure_page(request, status, "There is no page of this address.")
        return Refusal(status, "unknown-path", message, nearest=nearest).response
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{path[:200]} is not for {request.method}; it takes {allowed}"
        return Refusal(status, "wrong-method", message, headers=error.headers).response
    return Refusal(status, status.phrase.lower().replace(" ", "-"), error.detail, headers=error.headers).response


async def _database_fails(request: Request, error: DBAPIError) -> Response:
    log.warning("the database fails: %s", str(error.orig).strip())
    trouble = request.app.state.gateway.condition.of("database")
    message = (
        "the database does not answer; try again in a moment, and look at this process's log if it stays so"
        if trouble is None
        else trouble.sentence
    )
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no-database", message, headers={"Retry-After": "5"}).response


async def _broker_fails(_request: Request, error: BrokerUnreachable) -> Response:
    return no_broker(error.reason).response


async def _explained(_request: Request, error: ExplainedError) -> Response:
    log.error("%s", error)
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "fault", str(error)).response


async def _failed(_request: Request, _error: Exception) -> Response:
    """Starlette logs the traceback after this."""
    message = "this is a fault of Headstream's own; the traceback is in this process's log"
    return Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "fault", message).response
