"""Endpoints: each is one call of the API with all that is said of it; routes and OpenAPI come from the same list."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeVar, get_origin, get_type_hints

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from schemas.decoding import MAX_RECORD_BYTES, UNREADABLE
from streams.gateway.gateway import Gateway
from streams.gateway.refusal import Refusal, json_response

LARGEST_BODY_BYTES = 8 * MAX_RECORD_BYTES

Query = TypeVar("Query")
Body = TypeVar("Body")


@dataclass(frozen=True)
class Asked(Generic[Query, Body]):
    """One call: what stands in the path, after the question mark, and in the body."""

    request: Request
    path: Mapping[str, str]
    query: Query
    body: Body


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters, or no body."""


class Raw(msgspec.Struct, frozen=True):
    """A body that the call reads by itself."""

    content: bytes


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One call of the API.

    Attributes:
        path: as Starlette writes it; the names in braces are explained in `PATH_PARAMETERS`.
        call: a plain function is run on a thread, since it waits for the database; a coroutine on the event loop.
        query: a struct whose fields are the parameters; each says in its `Meta` what it is.
        body: a struct to decode JSON into, or `Raw`; then `record` says of what its records are.
        many: whether such a body may hold several records.
        media: the type of the answer.
        refusals: the statuses above 399 that it may answer with, besides those that every call may.
        token: whether the caller must show the token, since it changes something.
    """

    method: str
    path: str
    summary: str
    call: Callable[[Gateway, Any], Any]
    answer: Any
    status: HTTPStatus = HTTPStatus.OK
    query: type[msgspec.Struct] = Nothing
    body: type[msgspec.Struct] = Nothing
    record: type[msgspec.Struct] = Nothing
    many: bool = False
    media: str = "application/json"
    refusals: tuple[HTTPStatus, ...] = ()
    token: bool = False

    @property
    def answer_in_words(self) -> str:
        """What an answer is, as its own docstring begins."""
        words = (getattr(self.answer, "__doc__", None) or "").partition("\n\n")[0]
        return " ".join(words.split()) if isinstance(self.answer, type) and words else self.summary

    def route(self, gateway: Gateway) -> Route:
        """The route on which it is answered."""
        waits = not inspect.iscoroutinefunction(self.call)

        async def handle(request: Request) -> Response:
            if self.token:
                gateway.doorkeeper.admit(request)
            query = read_query(request.query_params, self.query)
            asked = Asked(request, request.path_params, query, await self._read_body(request))
            found = await (gateway.apart(self.call, gateway, asked) if waits else self.call(gateway, asked))
            return found if isinstance(found, Response) else json_response(found, self.status)

        return Route(self.path, handle, methods=[self.method])

    async def _read_body(self, request: Request) -> msgspec.Struct:
        if self.body is Nothing:
            return Nothing()
        content = await read_body(request)
        if self.body is Raw:
            return Raw(content)
        try:
            return msgspec.json.decode(content, type=self.body)
        except UNREADABLE as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, "bad-body", f"the body cannot be taken: {error}") from None


async def read_body(request: Request) -> bytes:
    """The bytes of the body, which may say its size or not.

    Raises:
        Refusal: 413, before more was read than may be.
    """
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > LARGEST_BODY_BYTES:
            raise body_too_large()
    return bytes(content)


def body_too_large() -> Refusal:
    message = f"a body may have {LARGEST_BODY_BYTES} bytes; send what there is in several"
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", message, headers={"Connection": "close"})


def read_query(given: QueryParams, wanted: type[msgspec.Struct]) -> msgspec.Struct:
    """The parameters of a query as a struct; a list collects all of its name.

    Raises:
        Refusal: one is unknown, or not of its type.
    """
    hints = get_type_hints(wanted)
    values = {
        name: given.getlist(name) if get_origin(hints.get(name)) in (list, tuple) else given[name]
        for name in given
    }  # fmt: skip
    try:
        return msgspec.convert(values, wanted, strict=False)
    except msgspec.ValidationError as error:
        known = tuple(hints)
        reason = str(error).replace("Object contains unknown field", "there is no parameter")
        allowed = f"known are {', '.join(known)}" if known else "this call takes none"
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "bad-parameter", f"the query cannot be taken: {reason}; {allowed}", known=known
        ) from None
