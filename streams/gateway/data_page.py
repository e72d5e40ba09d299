"""Data health: how far readers are behind in each partition, how fresh models are, and what could not be taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from streams.gateway.dead_letters import DeadLettersQuery, browse
from streams.gateway.endpoint import Asked, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.system import HealthOfData, health_of_data
from streams.status import DEAD

LETTERS_SHOWN = 20


@dataclass(frozen=True)
class Lagging:
    """A topic that SERVE or LEARN reads, and how far it is behind in each partition.

    Attributes:
        lags: by partition; `positions` where the reader stands, None before it has begun.
    """

    topic: str
    reader: str
    lags: dict[str, int]
    positions: dict[str, int | None]
    ends: dict[str, int]

    @property
    def lag(self) -> int:
        return sum(self.lags.values())


def read(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """What the database alone says; the rest is loaded once the page stands."""
    dead = sorted(
        (
            (topic, code.removeprefix(DEAD), count)
            for (topic, code), count in gateway.serve.tallies().items()
            if code.startswith(DEAD)
        ),
        key=lambda each: (-each[2], *each[:2]),
    )
    return {"dead": dead, "code": request.query_params.get("code", ""), "topic": request.query_params.get("topic", "")}


def read_lag(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """Lag and freshness, for which Kafka is asked."""
    health = health_of_data(gateway, Asked(request, {}, Nothing(), Nothing()))
    return {
        "topics": sorted(lagging(health, gateway.topics.items), key=lambda each: (-each.lag, each.topic)),
        "freshness": sorted(health.freshness.items(), key=lambda each: (-each[1].lag - each[1].learning_lag, each[0])),
    }


def lagging(health: HealthOfData, items: str) -> Iterator[Lagging]:
    """Each topic with its reader: examples and items are LEARN's, all others SERVE's."""
    for topic, partitions in health.topics.items():
        yield Lagging(
            topic=topic,
            reader="LEARN" if topic == items or ".examples." in topic or topic.startswith("examples.") else "SERVE",
            lags={name: each["lag"] for name, each in partitions.items()},
            positions={name: each["position"] for name, each in partitions.items()},
            ends={name: each["end"] for name, each in partitions.items()},
        )


def read_letters(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """Dead letters, newest first, those of one cause if it is named."""
    given = request.query_params
    before = given.get("before", "")
    query = DeadLettersQuery(
        code=given.get("code") or None,
        topic=given.get("topic") or None,
        before=int(before) if before.isdecimal() and len(before) < 19 else None,
        limit=LETTERS_SHOWN,
    )
    found = browse(gateway, Asked(request, {}, query, Nothing()))
    return {"found": found, "code": query.code or "", "topic": query.topic or "", "pretty": pretty}


def pretty(text: str) -> str:
    """JSON with a line for each field, where it is JSON."""
    try:
        return msgspec.json.format(text, indent=2) if text.lstrip().startswith("{") else text
    except msgspec.DecodeError:
        return text
