"""The description of the API says what there is, and all of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.routing import Route

from streams.gateway.application import make_app
from streams.gateway.calls import CALLS
from streams.gateway.openapi import public_path
from tests.streams.gateway.conftest import Door


@pytest.fixture
def description(closed_door: Door) -> Any:
    return closed_door.get("/openapi.json").json()


def operations(description: Any) -> list[tuple[str, str, Any]]:
    return [(path, method, each) for path, methods in description["paths"].items() for method, each in methods.items()]


def test_every_route_but_the_pages_is_described_and_nothing_else_is(closed_door: Door, description: Any) -> None:
    routes = [each for each in make_app(closed_door.gateway).app.routes if isinstance(each, Route)]
    served = {(public_path(each.path), method.lower()) for each in routes for method in (each.methods or ()) - {"HEAD"}}
    described = {(path, method) for path, method, _ in operations(description)}
    pages = {(path, method) for path, method in served - described if method == "get" and not path.startswith("/api")}
    assert served - pages == described


def test_every_parameter_body_and_answer_is_described(description: Any) -> None:
    for path, method, each in operations(description):
        named = set(re.findall(r"{(\w+)}", path))
        assert {one["name"] for one in each["parameters"] if one["in"] == "path"} == named
        assert all(one["description"] and "schema" in one for one in each["parameters"]), path
        assert each["summary"] and "default" in each["responses"]
        assert min(each["responses"]) < "300"
        if method in ("post", "put") and path != "/logout":
            assert each["requestBody"]["content"], path


def test_what_asks_for_the_token_says_so(description: Any) -> None:
    for path, method, each in operations(description):
        (call,) = [one for one in CALLS if public_path(one.path) == path and one.method.lower() == method]
        assert ("security" in each) == call.token == ("403" in each["responses"])


def test_names_are_unique_and_references_lead_somewhere(description: Any) -> None:
    names = [each["operationId"] for _, _, each in operations(description)]
    assert len(set(names)) == len(names)
    for reference in set(re.findall(r"'\$ref': '([^']+)'", str(description))):
        assert reference.removeprefix("#/components/schemas/") in description["components"]["schemas"]


def test_the_page_for_people_lists_every_call_and_loads_nothing_from_elsewhere(closed_door: Door) -> None:
    answer = closed_door.get("/api")
    assert answer.headers["content-type"].startswith("text/html")
    for call in CALLS:
        assert public_path(call.path) in answer.text
    assert "http://" not in answer.text and "https://" not in answer.text and "<script" not in answer.text
