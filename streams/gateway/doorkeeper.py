"""The doorkeeper: who may change something. The token, the sessions that are made of it, and how often one may call."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ExplainedError
from schemas.settings import Settings
from streams.gateway.refusal import Refusal
from streams.gateway.throttle import Throttle

log = logging.getLogger(__name__)

COOKIE = "headstream-session"
SESSION_SECONDS = 12 * 3600
TOKEN_BYTES = 32

CALLS_PER_SECOND, CALLS_AT_ONCE = 100.0, 500
"""Calls of one client that change something; whoever has many events sends them in batches."""
SHORTEST_TOKEN = 16
"""Characters of a configured token. Guessing is made useless by length, and not by making callers wait: on loopback,
and behind many a proxy, all callers have one address, and the wrong ones would lock out the right ones."""


class TokenTooShort(ExplainedError):
    """The configured token could be guessed."""

    def __init__(self) -> None:
        super().__init__(
            f"gateway.token has fewer than {SHORTEST_TOKEN} characters and could be guessed; make it longer, or leave "
            "it out, and one is made in the data folder"
        )


class TokenUnusable(ExplainedError):
    """The file of the token cannot be read or made."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        super().__init__(f"the token in {path} cannot be used: {reason}. Set gateway.token, or remove the file.")


def token_file(settings: Settings) -> Path:
    return Path(settings.data).resolve() / "gateway.token"


def where_token(settings: Settings) -> str:
    """Where a person finds the token."""
    if settings.gateway.token:
        return "It is the one in the configuration, gateway.token."
    return f"It stands in the file {token_file(settings)}."


def load_token(settings: Settings) -> str:
    """The configured token, or the one in the data folder, which is made if it is not there; any number may do so.

    Raises:
        TokenTooShort: the configured one could be guessed.
        TokenUnusable: the file cannot be read or made, or is empty.
    """
    if settings.gateway.token:
        if len(settings.gateway.token) < SHORTEST_TOKEN:
            raise TokenTooShort
        return settings.gateway.token
    path = token_file(settings)
    try:
        if not path.exists():
            _make_token(path)
        if path.stat().st_mode & 0o077:
            log.warning("%s could be read by others; from now on only by its owner", path)
            path.chmod(0o600)
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise TokenUnusable(path, str(error)) from None
    if not token:
        raise TokenUnusable(path, "it is empty")
    return token


def _make_token(path: Path) -> None:
    """Write a new token, unless somebody else was first; never does the file hold half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(TOKEN_BYTES) + "\n")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


class Doorkeeper:
    """Knows the token, and lets in who shows it, or a session that was begun with it."""

    def __init__(self, token: str, where: str, *, clock: Callable[[], float] = time.time) -> None:
        """`where` is the sentence that says where a person finds the token."""
        self._token = token.encode()
        self.where = where
        self._clock = clock
        self._calls = Throttle(CALLS_PER_SECOND, CALLS_AT_ONCE)

    def admit(self, request: Request) -> None:
        """Let a call that changes something go on.

        Raises:
            Refusal: 401 without the token, 403 for a session's call from another site, 429 for too many.
        """
        shown = request.headers.get("authorization")
        if shown is not None:
            kind, _, token = shown.partition(" ")
            if kind.lower() != "bearer" or not self.knows(token.strip()):
                raise self._unauthorised("the token is wrong")
        elif not self.signed_in(request):
            raise self._unauthorised("this changes something, and so it asks for the token")
        # The browser sends the cookie by itself, so it must say that one of our own pages asks.
        elif "origin" not in request.headers and request.headers.get("sec-fetch-site") != "same-origin":
            message = "with a session's cookie a call must come from a page of this host, and say so in Origin"
            raise Refusal(HTTPStatus.FORBIDDEN, "no-origin", message)
        if seconds := self._calls.take(request.client.host if request.client else ""):
            message = f"too many calls that change something; try again in {seconds} s, and send records in batches"
            headers = {"Retry-After": str(seconds)}
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too-many", message, headers=headers)

    def _unauthorised(self, why: str) -> Refusal:
        message = f"{why}; send it as Authorization: Bearer TOKEN. {self.where}"
        return Refusal(HTTPStatus.UNAUTHORIZED, "no-token", message, headers={"WWW-Authenticate": "Bearer"})

    def knows(self, token: str) -> bool:
        """Whether this is the token."""
        return hmac.compare_digest(token.encode(errors="replace"), self._token)

    # Sessions: a cookie that says until when it holds, signed with the token, so that any GATEWAY can check it

    def signed_in(self, request: Request) -> bool:
        until, _, signature = request.cookies.get(COOKIE, "").partition(".")
        if not until.isdecimal() or len(until) > 12 or not signature.isascii():
            return False
        return hmac.compare_digest(signature, self._sign(until)) and self._clock() < int(until)

    def begin_session(self, request: Request, response: Response) -> None:
        until = str(int(self._clock()) + SESSION_SECONDS)
        response.set_cookie(
            COOKIE,
            f"{until}.{self._sign(until)}",
            max_age=SESSION_SECONDS,
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    @staticmethod
    def end_session(response: Response) -> None:
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")

    def _sign(self, until: str) -> str:
        return hmac.new(self._token, f"{COOKIE} {until}".encode(), hashlib.sha256).hexdigest()
