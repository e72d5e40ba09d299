"""Pages: the dashboard's routes, how each page is rendered, and what it says when it cannot be."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jinja2
import plotly
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from schemas.signals import SIGNALS
from streams.gateway import data_page, look_up_page, overview_page, scenario_page, versions_page, words
from streams.gateway.gateway import Gateway
from streams.gateway.refusal import Refusal, json_response

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
"""The charts' library, from the package's own wheel."""

RANGES: Mapping[str, str] = {"1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "30d": "30 d"}
DEFAULT_RANGE = "24h"
THEMES = ("light", "dark")

FOR_EVER = "public, max-age=31536000, immutable"
"""Static files are asked for by a name that holds their hash."""

Read = Callable[[Gateway, Request, str], Mapping[str, Any]]
Handler = Callable[[Request], Awaitable[Response]]


def page_routes(gateway: Gateway) -> list[BaseRoute]:
    """Every page, and the files that pages load."""
    pages: list[tuple[str, str, Read]] = [
        ("/", "overview.html", overview_page.read),
        ("/scenarios/{scenario}", "scenario.html", scenario_page.read),
        ("/scenarios/{scenario}/versions", "versions.html", versions_page.read),
        ("/data", "data.html", data_page.read),
        ("/look-up", "look_up.html", look_up_page.read),
        ("/sign-in", "sign_in.html", lambda _gateway, _request, _span: {}),
    ]
    return [
        *(Route(path, _page(gateway, template, read)) for path, template, read in pages),
        Route("/scenarios/{scenario}/charts", _charts(gateway)),
        Route("/static/{digest}/{name}", _static),
    ]


def _page(gateway: Gateway, template: str, read: Read) -> Handler:
    """A page, read and rendered on a thread, since both take their time."""

    def make(request: Request) -> str:
        span = _span(request)
        return _render(request, template, span, read(gateway, request, span))

    async def handle(request: Request) -> Response:
        status = HTTPStatus.OK
        try:
            content = await gateway.apart(make, request)
        except Refusal as refusal:
            status, content = refusal.status, _failure(request, refusal.status, refusal.fault.message)
        except DBAPIError as error:
            log.warning("the database fails: %s", str(error.orig).strip())
            status = HTTPStatus.SERVICE_UNAVAILABLE
            content = _failure(
                request, status,
                "The database does not answer, so nothing can be shown. Serving and learning may go on without this "
                "page. Look whether the database runs and whether its disk is full; this process's log says more.",
            )  # fmt: skip
        except Exception:
            log.exception("%s could not be shown", request.url.path)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            content = _failure(
                request, status, "This is a fault of Headstream's own. The traceback is in this process's log."
            )
        return HTMLResponse(content, status, {"Cache-Control": "no-store"})

    return handle


def _charts(gateway: Gateway) -> Handler:
    """What a scenario's page draws; refusals are answered as the API answers them."""

    async def handle(request: Request) -> Response:
        name, span = request.path_params["scenario"], _span(request)
        charts = await gateway.apart(scenario_page.read_charts, gateway, name, span)
        return json_response(charts, headers={"Cache-Control": "no-store"})

    return handle


def _span(request: Request) -> str:
    """How far back a page looks; an unknown one is the usual one."""
    span = request.query_params.get("range", DEFAULT_RANGE)
    return span if span in RANGES else DEFAULT_RANGE


def _failure(request: Request, status: HTTPStatus, message: str) -> str:
    return _render(request, "failure.html", DEFAULT_RANGE, {"status": status, "message": message})


def _render(request: Request, template: str, span: str, found: Mapping[str, Any]) -> str:
    theme = request.cookies.get("theme")
    common: dict[str, Any] = {
        "path": request.url.path,
        "query": request.query_params,
        "span": span,
        "ranges": RANGES,
        "theme": theme if theme in THEMES else None,
        "signed_in": "headstream-session" in request.cookies,
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
        say=lambda value, signal: words.say(value, SIGNALS[signal].unit),
        lasting=words.say_length,
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
