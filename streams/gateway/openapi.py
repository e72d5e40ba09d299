"""OpenAPI: the description of all calls, made from the list that the routes are made from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec

from streams.gateway.endpoint import Endpoint, Nothing, Raw
from streams.gateway.refusal import Problem

PATH_PARAMETERS = {
    "scenario": "A configured scenario.",
    "user_id": "A user's id; what is special in a URL is written with %, such as %2F for /.",
    "item_id": "An item's id; what is special in a URL is written with %, such as %2F for /.",
    "action_id": "The id of an order.",
    "erasure_id": "The id of an erasure.",
}
OF_TOKEN = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS)
RECORDS = "One object, an array of them, or one a line. Each is checked by itself."
REFERENCE = "#/components/schemas/{name}"
DESCRIPTION = (
    "Times in answers are epoch seconds unless they are said to be RFC 3339. Every answer with a status from 400 on is "
    "a Problem. What changes state asks for the token: Authorization: Bearer TOKEN."
)

Schema = dict[str, Any]


def describe(calls: Sequence[Endpoint]) -> Schema:
    """The OpenAPI 3.1 document."""
    kinds: list[Any] = [Problem]
    for call in calls:
        kinds += [call.answer, *(kind for kind in (call.body, call.record) if kind not in (Nothing, Raw))]
    found, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    schemas = {repr(kind): schema for kind, schema in zip(kinds, found, strict=True)}
    paths: dict[str, Schema] = {}
    for call in calls:
        paths.setdefault(public_path(call.path), {})[call.method.lower()] = _operation(call, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headstream", "version": version("headstream"), "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "headstream-session"},
            },
        },
    }


def public_path(path: str) -> str:
    """A path of Starlette's as people write it."""
    return path.replace(":path}", "}")


def _operation(call: Endpoint, schemas: dict[str, Schema]) -> Schema:
    answer = {"description": call.answer_in_words, "content": {call.media: {"schema": schemas[repr(call.answer)]}}}
    refusals = {*call.refusals, *(OF_TOKEN if call.token else ())}
    if call.body is not Nothing:
        refusals.add(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    problem = {"application/json": {"schema": schemas[repr(Problem)]}}
    operation: Schema = {
        "operationId": re.sub("[^a-z]+", "_", f"{call.method} {public_path(call.path)}".lower()).strip("_"),
        "summary": call.summary,
        "parameters": [*_path_parameters(call.path), *_query_parameters(call.query)],
        "responses": {
            str(int(call.status)): answer,
            **{str(int(status)): {"description": status.phrase, "content": problem} for status in sorted(refusals)},
            "default": {"description": "Whatever else went wrong", "content": problem},
        },
    }
    if call.token:
        operation["security"] = [{"token": []}, {"session": []}]
    if call.body is Raw and call.record is not Nothing:
        record = schemas[repr(call.record)]
        operation["requestBody"] = {"required": True, "content": _contents(call, record)}
    elif call.body not in (Nothing, Raw):
        body = {"application/json": {"schema": schemas[repr(call.body)]}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _contents(call: Endpoint, record: Schema) -> Schema:
    if not call.many:
        return {media: {"schema": record} for media in ("application/json", "application/x-www-form-urlencoded")}
    several = {"anyOf": [record, {"type": "array", "items": record}], "description": RECORDS}
    return {"application/json": {"schema": several}, "application/x-ndjson": {"schema": record}}


def _path_parameters(path: str) -> list[Schema]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": PATH_PARAMETERS[name],
            "schema": {"type": "string"},
        }
        for name in re.findall(r"{(\w+)", path)
    ]


def _query_parameters(query: type[msgspec.Struct]) -> list[Schema]:
    (schema,), components = msgspec.json.schema_components([query])
    described = components[schema["$ref"].rpartition("/")[2]]
    parameters = []
    for name, each in described.get("properties", {}).items():
        kind = _without_null(each)
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": name in described.get("required", ()),
                "description": kind.pop("description", ""),
                "schema": kind,
            }
        )
    return parameters


def _without_null(kind: Schema) -> Schema:
    """The schema of a parameter that may be left out; null cannot be said in a query."""
    (only,) = [each for each in kind.get("anyOf", [kind]) if each != {"type": "null"}]
    return {name: value for name, value in only.items() if (name, value) != ("default", None)}


def page(calls: Sequence[Endpoint]) -> str:
    """The list of all calls for people, as HTML that needs nothing else."""
    rows = [
        f"<tr><td>{call.method}</td><td><code>{escape(public_path(call.path))}</code></td>"
        f"<td>{escape(call.summary)}{' (asks for the token)' if call.token else ''}</td></tr>"
        for call in sorted(calls, key=lambda each: (each.path, each.method))
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Headstream: API</title>'
        '<meta name="viewport" content="width=device-width"></head><body><main><h1>Headstream: API</h1>'
        f'<p>{escape(DESCRIPTION)} All of it for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<table><thead><tr><th>method</th><th>path</th><th>what it does</th></tr></thead><tbody>{''.join(rows)}"
        "</tbody></table></main></body></html>"
    )
