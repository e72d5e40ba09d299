"""Ranges: how far back a page looks, which its viewer chooses, or else the age of the data."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from starlette.requests import Request

from streams.gateway.gateway import Gateway
from streams.gateway.overview import KEY_SIGNALS
from streams.gateway.series import read_seconds

RANGES: Mapping[str, str] = {
    "15m": "15 min", "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "30d": "30 d",
}  # fmt: skip
USUAL = ("15m", "1h", "6h", "24h")
"""Of these the shortest that covers the data is taken; beyond a day nobody sees what is wrong now."""
COOKIE = "range"
"""Holds what was chosen last, until the browser is closed."""


def chosen_range(request: Request) -> str | None:
    """What the page's address says; an unknown one is none."""
    span = request.query_params.get("range")
    return span if span in RANGES else None


def range_of(gateway: Gateway, request: Request, scenarios: Collection[str]) -> str:
    """What was chosen, here or before; else the shortest usual range that covers what these scenarios have."""
    kept = request.cookies.get(COOKIE)
    return chosen_range(request) or (kept if kept in RANGES else None) or _covering(gateway, scenarios)


def _covering(gateway: Gateway, scenarios: Collection[str]) -> str:
    now = time.time()
    for span in USUAL[:-1]:
        if not gateway.history.reaches_back(scenarios, KEY_SIGNALS, now - read_seconds(span)):
            return span
    return USUAL[-1]
