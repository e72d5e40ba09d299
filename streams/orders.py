"""Orders: what an operator wants of a scenario becomes a control record; what came of it is in the database."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection
from typing import Any

import msgspec

from schemas.control import Control, decode_control
from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from schemas.tables import PerformedAction
from streams.history import History

POLL_SECONDS = 0.2


class OrderRefused(ExplainedError):
    """An order that cannot be given as it is.

    Attributes:
        invalid: why, with a code.
    """

    def __init__(self, invalid: Invalid) -> None:
        self.invalid = invalid
        super().__init__(invalid.message)


def make_order(
    action: str,
    scenario: str | None,
    *,
    author: str,
    reason: str,
    scenarios: Collection[str],
    version: int | None = None,
    action_id: str | None = None,
) -> Control:
    """An order as LEARN will take it.

    Args:
        scenarios: those that are configured.
        action_id: the same one is carried out once; None makes a new one.

    Raises:
        OrderRefused: it would not be taken.
    """
    fields: dict[str, Any] = {
        "action_id": action_id or uuid.uuid4().hex,
        "action": action,
        "scenario": scenario,
        "version": version,
        "author": author,
        "reason": reason,
    }
    order = decode_control(msgspec.json.encode(fields), time.time(), Counter())
    if isinstance(order, Invalid):
        raise OrderRefused(order)
    if order.scenario is not None and order.scenario not in scenarios:
        message = f'scenario "{order.scenario[:100]}" is not configured; known are {", ".join(scenarios)}'
        raise OrderRefused(Invalid("unknown-scenario", message))
    return order


def await_outcome(history: History, action_id: str, seconds: float, stop: threading.Event) -> PerformedAction | None:
    """What came of an order, once it is known; None if that is not so in time, or `stop` is set first."""
    deadline = time.monotonic() + seconds
    while (found := history.action(action_id)) is None:
        if time.monotonic() > deadline or stop.wait(POLL_SECONDS):
            return None
    return found
