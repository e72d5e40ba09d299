"""Signing in: where a person shows the token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from streams.gateway.gateway import Gateway
from streams.gateway.sign_in import AFTERWARDS, local


def read(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    given = request.query_params
    return {
        "next": local(given.get("next", AFTERWARDS)),
        "failed": "failed" in given,
        "where": gateway.doorkeeper.where,
    }
