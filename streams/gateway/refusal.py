"""Refusals: what the API answers where it does not do what was asked, always a code and a sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from schemas.decoding import Invalid
from schemas.errors import ExplainedError


class RefusedRecord(msgspec.Struct, frozen=True):
    """A record of a batch that could not be taken; `index` counts from 0."""

    index: int
    code: str
    message: str


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something was not done.

    Attributes:
        code: stable, for programs.
        message: a sentence for people, with what to do.
        known: what could have been named in place of what was.
        nearest: the one of them that was meant, most likely.
        refusals: of a batch of which nothing could be taken, the first records and why.
    """

    code: str
    message: str
    known: tuple[str, ...] = ()
    nearest: str | None = None
    refusals: list[RefusedRecord] = []


class Problem(msgspec.Struct, frozen=True):
    """The body of every answer with a status of 400 or above."""

    error: Fault


class Refusal(ExplainedError):
    """Ends a call: the status, the fault, and headers such as Retry-After."""

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        known: Iterable[str] = (),
        nearest: str | None = None,
        refusals: Iterable[RefusedRecord] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.fault = Fault(code, message, tuple(known), nearest, list(refusals))
        self.headers = dict(headers or {})

    @property
    def response(self) -> Response:
        return json_response(Problem(self.fault), self.status, self.headers)


def json_response(content: Any, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> Response:
    """What a call found, as JSON; numbers that are not finite become null. It is true now, so nobody keeps it."""
    kept = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(content), status, kept, media_type="application/json")


def bad_request(invalid: Invalid) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, invalid.code, invalid.message)


def unknown_scenario(name: str, known: Iterable[str]) -> Refusal:
    names = tuple(known)
    return Refusal(
        HTTPStatus.NOT_FOUND,
        "unknown-scenario",
        f'scenario "{name[:100]}" is not configured; known are {", ".join(names)}',
        known=names,
        nearest=nearest_to(name, names),
    )


def nearest_to(name: str, known: Iterable[str]) -> str | None:
    close = difflib.get_close_matches(name[:300], list(known), n=1, cutoff=0.5)
    return close[0] if close else None
