from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from streams.gateway.gateway import Gateway


def read(gateway: Gateway, request: Request, span: str) -> Mapping[str, Any]:
    return {}
