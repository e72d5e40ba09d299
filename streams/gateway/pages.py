"""Pages: the dashboard's routes, how each page is rendered, and what it says when it cannot be."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from http import HTTPStatus
from importlib.util import find_spec
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

import jinja2
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from schemas.signals import SIGNALS
from schemas.times import say_length
from streams.administration import BrokerUnreachable
from streams.gateway import data_page, login_page, look_up_page, overview_page, scenario_page, versions_page, words
from streams.gateway.backwards import no_broker
from streams.gateway.gateway import Gateway
from streams.gateway.ranges import COOKIE, RANGES, chosen_range
from streams.gateway.refusal import Refusal, json_response

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
PLOTLY = Path(find_spec("plotly").origin or "").parent / "package_data" / "plotly.min.js"  # type: ignore[union-attr]
"""The charts' library, from its package's own wheel, which need not be imported for that."""

THEMES = ("light", "dark")

NO_DATABASE = (
    "The database does not answer, so nothing can be shown. Serving and learning may go on without this page. Look "
    "whether the database runs and whether its disk is full; this process's log says more."
)
FAULT = "This is a fault of Headstream's own. The traceback is in this process's log."

NOT_KEPT = {"Cache-Control": "no-store"}
FOR_EVER = "public, max-age=31536000, immutable"
"""Static files are asked for by a name that holds their hash."""

Found = Mapping[str, Any]
Read = Callable[[Gateway, Request], Any]
"""Reads what a template shows, of a request; or a coroutine that does."""
Handler = Callable[[Request], Awaitable[Response]]

PAGES: tuple[tuple[str, str, Read], ...] = (
    ("/", "overview.html", overview_page.read),
    ("/scenarios/{scenario}", "scenario.html", scenario_page.read),
    ("/scenarios/{scenario}/versions", "versions.html", versions_page.read),
    ("/data", "data.html", data_page.read),
    ("/look-up", "look_up.html", look_up_page.read),
    ("/login", "login.html", login_page.read),
)
PARTS: tuple[tuple[str, str, Read], ...] = (
    ("/scenarios/{scenario}/lists", "lists.html", look_up_page.read_lists),
    ("/data/lag", "lag.html", data_page.read_lag),
    ("/data/letters", "letters.html", data_page.read_letters),
    ("/look-up/list", "list.html", look_up_page.read_list),
    ("/look-up/similar", "list.html", look_up_page.read_similar),
    ("/look-up/exposure", "exposure.html", look_up_page.read_exposure),
)
"""Parts of pages that wait for Kafka; they are asked for once the page stands, so that it need not wait."""


def page_routes(gateway: Gateway) -> list[BaseRoute]:
    """Every page, the parts that are loaded into them, and the files that they load."""
    handlers = {
        **{path: _handler(gateway, template, read, "failure.html") for path, template, read in PAGES},
        **{path: _handler(gateway, template, read, "failed_part.html") for path, template, read in PARTS},
        "/scenarios/{scenario}/charts": _charts(gateway),
        "/static/{digest}/{name}": _static,
    }
    return [Route(path, handler, include_in_schema=False) for path, handler in handlers.items()]


def failure_page(request: Request, status: HTTPStatus, message: str) -> Response:
    """A page that says what is wrong, and nothing else; it needs neither database nor Kafka."""
    return _failure(request, "failure.html", status, message)


def _handler(gateway: Gateway, template: str, read: Read, failure: str) -> Handler:
    """Reads and renders on a thread, since both take their time; what waits for Kafka's answer waits without one."""

    async def handle(request: Request) -> Response:
        signed_in = gateway.doorkeeper.signed_in(request)
        try:
            found = await _await(gateway, read, request)
            content = await gateway.apart(_render, request, template, {"signed_in": signed_in, **found})
        except Refusal as refusal:
            return _failure(request, failure, refusal.status, refusal.fault.message)
        except BrokerUnreachable as error:
            return _failure(request, failure, HTTPStatus.SERVICE_UNAVAILABLE, no_broker(error.reason).fault.message)
        except DBAPIError as error:
            log.warning("the database fails: %s", str(error.orig).strip())
            trouble = gateway.condition.of("database")
            message = NO_DATABASE if trouble is None else trouble.sentence
            return _failure(request, failure, HTTPStatus.SERVICE_UNAVAILABLE, message)
        except Exception:
            log.exception("%s could not be shown", request.url.path)
            return _failure(request, failure, HTTPStatus.INTERNAL_SERVER_ERROR, FAULT)
        response = HTMLResponse(content, headers=NOT_KEPT)
        if span := chosen_range(request):
            response.set_cookie(COOKIE, span, httponly=True, samesite="strict")
        return response

    return handle


async def _await(gateway: Gateway, read: Read, request: Request) -> Found:
    if iscoroutinefunction(read):
        found: Found = await read(gateway, request)
        return found
    return await gateway.apart(read, gateway, request)


def _charts(gateway: Gateway) -> Handler:
    """What a scenario's page draws; refusals are answered as the API answers them."""

    async def handle(request: Request) -> Response:
        charts = await gateway.apart(scenario_page.read_charts, gateway, request)
        return json_response(charts, headers=NOT_KEPT)

    return handle


def _failure(request: Request, template: str, status: HTTPStatus, message: str) -> Response:
    found = {"status": status, "message": message[:1].upper() + message[1:], "signed_in": False, "troubles": []}
    return HTMLResponse(_render(request, template, found), status, NOT_KEPT)


def _render(request: Request, template: str, found: Found) -> str:
    theme = request.cookies.get("theme")
    common = {
        "path": request.url.path,
        "query": request.query_params,
        "ranges": RANGES,
        "theme": theme if theme in THEMES else None,
        "troubles": request.app.state.gateway.condition.troubles,
    }
    return _environment().get_template(template).render({**common, **found})


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        say=lambda value, signal: SIGNALS[signal].say(value),
        lasting=say_length,
        utc=words.say_utc,
        machine=words.machine_time,
        listed=words.listed,
        counted=words.counted,
    )
    environment.globals.update(signals=SIGNALS, static=_address)
    return environment


def _files() -> dict[str, Path]:
    return {"plotly.js": PLOTLY, **{each.name: each for each in (HERE / "static").iterdir()}}


@cache
def _address(name: str) -> str:
    """Where a static file is found; another content has another address, so each may be kept for ever."""
    return f"/static/{hashlib.sha256(_files()[name].read_bytes()).hexdigest()[:16]}/{name}"


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    path = _files().get(name)
    if path is None or request.url.path != _address(name):
        raise Refusal(HTTPStatus.NOT_FOUND, "unknown-file", "there is no such file; load the page again")
    return FileResponse(path, headers={"Cache-Control": FOR_EVER})
