"""Signing in: a browser shows the token once, and a session's cookie stands for it from then on."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import parse_qs, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from streams.gateway.doorkeeper import SESSION_SECONDS
from streams.gateway.endpoint import Asked, Endpoint, Nothing, Raw
from streams.gateway.gateway import Gateway
from streams.gateway.refusal import Refusal, json_response

FORM = "application/x-www-form-urlencoded"
MOST_FIELDS = 10
AFTERWARDS = "/"


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As JSON, or as the fields of a form; `next` is the path to go to after a form."""

    token: str
    next: str = AFTERWARDS


class Session(msgspec.Struct, frozen=True):
    """Whether a session holds now, and for how many seconds."""

    signed_in: bool
    seconds: int


async def login(gateway: Gateway, asked: Asked[Nothing, Raw]) -> Response:
    """A form is answered with a redirection, back to /login?failed=1 where the token is wrong; JSON with JSON."""
    form = is_form(asked.request)
    shown = _read(asked.body.content, form)
    if not gateway.doorkeeper.knows(shown.token.strip()):
        if form:
            again = urlencode({"failed": 1, "next": local(shown.next)})
            return RedirectResponse(f"/login?{again}", HTTPStatus.SEE_OTHER)
        raise Refusal(HTTPStatus.UNAUTHORIZED, "no-token", f"the token is wrong. {gateway.doorkeeper.where}")
    answer: Response = (
        RedirectResponse(local(shown.next), HTTPStatus.SEE_OTHER)
        if form
        else json_response(Session(True, SESSION_SECONDS))
    )
    gateway.doorkeeper.begin_session(asked.request, answer)
    return answer


async def logout(gateway: Gateway, asked: Asked[Nothing, Raw]) -> Response:
    answer: Response = (
        RedirectResponse(AFTERWARDS, HTTPStatus.SEE_OTHER)
        if is_form(asked.request)
        else json_response(Session(False, 0))
    )
    gateway.doorkeeper.end_session(answer)
    return answer


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM


def _read(content: bytes, form: bool) -> Credentials:
    try:
        if form:
            fields = parse_qs(content.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
            return Credentials(fields["token"][0], fields.get("next", [AFTERWARDS])[0])
        return msgspec.json.decode(content, type=Credentials)
    except (msgspec.DecodeError, ValueError, KeyError, RecursionError):
        # Without the reason: it could repeat the token.
        raise Refusal(HTTPStatus.BAD_REQUEST, "bad-body", "the body must name the token") from None


def local(path: str) -> str:
    """The path if it leads to us, else to the first page."""
    leads_here = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if leads_here else AFTERWARDS


CALLS = (
    Endpoint(
        method="POST",
        path="/login",
        summary="Begin a session with the token, as JSON or as a form",
        call=login,
        body=Raw,
        record=Credentials,
        answer=Session,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED),
    ),
    Endpoint(
        method="POST",
        path="/logout",
        summary="End the session",
        call=logout,
        body=Raw,
        answer=Session,
    ),
)
