"""The guard: what holds for every request and every answer, whatever it asks: hosts, origins, sizes, headers."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from schemas.settings import Gateway as GatewaySettings
from streams.gateway.endpoint import LARGEST_BODY_BYTES, body_too_large
from streams.gateway.refusal import Refusal

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WILDCARDS = ("0.0.0.0", "::", "")
ANY_NAME = "*"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Nothing from elsewhere is loaded, no script stands in a page, and no page of ours in a page of others."""


def allowed_hosts(settings: GatewaySettings) -> tuple[str, ...]:
    """Names in a Host header that are ours; any other may be a page of elsewhere that had its name point at us."""
    named = [each.strip().lower() for each in settings.names.split(",") if each.strip()]
    own = () if settings.host in WILDCARDS else (settings.host.lower(),)
    return (*LOOPBACK, *own, *named)


class Guard:
    """Stands before the whole application, `app`; a refusal of its own is answered here."""

    def __init__(self, app: Starlette, hosts: Iterable[str]) -> None:
        self.app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Refusal as refusal:
            await refusal.response(scope, receive, guarded)
            return
        await self.app(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host_name(host)
        if ANY_NAME not in self._hosts and name not in self._hosts:
            message = f'"{name[:100]}" is no name of this host; if it should be one, add it to gateway.names'
            raise Refusal(HTTPStatus.MISDIRECTED_REQUEST, "unknown-host", message)
        origin = headers.get("origin")
        if scope["method"] not in SAFE_METHODS and origin is not None and not is_origin_of(origin, host):
            message = "a page of another host may not change anything here"
            raise Refusal(HTTPStatus.FORBIDDEN, "other-origin", message)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > LARGEST_BODY_BYTES:
            raise body_too_large()
        try:
            unquote_to_bytes(scope.get("raw_path") or b"").decode()
        except UnicodeDecodeError:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-path", "the path is not UTF-8 behind its % signs") from None


def is_origin_of(origin: str, host: str) -> bool:
    """Whether a page of this origin came from this host and port; before a proxy the scheme may be another."""
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest.lower() == host.lower()


def host_name(host: str) -> str:
    """The name in a Host header, without the port, in small letters."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""
