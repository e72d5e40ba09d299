"""Series: signals over time for charts, at most 500 points whatever the range."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from http import HTTPStatus
from typing import Annotated

import msgspec
from msgspec import Meta

from schemas.decoding import Refused, parse_time
from schemas.signals import SIGNALS
from streams.gateway.endpoint import Asked, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.refusal import Refusal, bad_request, nearest_to
from streams.history import MOST_POINTS, Point

DEFAULT_RANGE = "1h"
RANGE = re.compile(r"([0-9]{1,6})([smhd])")
UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}

Moment = Annotated[str, Meta(description="RFC 3339, or epoch seconds.")]
Range = Annotated[
    str, Meta(description="In place of `since`: a number and s, m, h or d, such as 30m, 24h or 30d, before `until`.")
]
WHOLE_SYSTEM = ""


class SeriesQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which signals, from when to when."""

    signal: Annotated[list[str], Meta(description="Names of signals; left out: all.")] = []
    since: Moment | None = None
    until: Annotated[str, Meta(description="As `since`; left out: now.")] | None = None
    range: Range | None = None
    points: Annotated[int, Meta(ge=1, le=MOST_POINTS, description="Points of a signal, at most.")] = MOST_POINTS


class SeriesAnswer(msgspec.Struct, frozen=True):
    """Signals from `since` to `until`, epoch seconds; each point is over `seconds` from its `at` on.

    Attributes:
        signals: by name, oldest first, each [at, mean, least, most, observations]; where nothing was measured there is
            no point.
    """

    scenario: str
    since: float
    until: float
    seconds: int
    signals: dict[str, list[Point]]


def read_series(gateway: Gateway, asked: Asked[SeriesQuery, Nothing]) -> SeriesAnswer:
    """Of a scenario, or of the whole system where none is named."""
    query = asked.query
    name = asked.path.get("scenario", WHOLE_SYSTEM)
    if name != WHOLE_SYSTEM:
        gateway.check_scenario(name)
    for signal in query.signal:
        if signal not in SIGNALS:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, "unknown-signal",
                f'signal "{signal[:100]}" is not measured; /api/signals lists what is',
                known=tuple(SIGNALS), nearest=nearest_to(signal, SIGNALS),
            )  # fmt: skip
    since, until = read_range(query.since, query.until, query.range or DEFAULT_RANGE)
    stretch = gateway.history.series(name, query.signal or list(SIGNALS), since, until, query.points)
    return SeriesAnswer(name, since, until, stretch.seconds, stretch.points)


def read_range(since: str | None, until: str | None, span: str) -> tuple[float, float]:
    """From when to when, epoch seconds; `span` holds where `since` is None.

    Raises:
        Refusal: one of them cannot be read, or the range ends before it begins.
    """
    now = time.time()
    end = now if until is None else read_moment("until", until, now)
    start = end - read_seconds(span) if since is None else read_moment("since", since, now)
    if start >= end:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "bad-range", "the range ends before it begins; since must be before until"
        )
    return start, end


def read_seconds(span: str) -> float:
    """A length of time such as 30m or 24h."""
    found = RANGE.fullmatch(span)
    if not found or not int(found[1]):
        problem = f"range is {span[:40]!r}; a number and s, m, h or d is wanted, such as 24h"
        raise Refusal(HTTPStatus.BAD_REQUEST, "bad-range", problem)
    return float(int(found[1]) * UNIT_SECONDS[found[2]])


def read_moment(field: str, text: str, now: float) -> float:
    """A time as RFC 3339 or as an epoch number; one that is still to come is now.

    Raises:
        Refusal: it is neither.
    """
    value: float | str
    try:
        value = float(text)
    except ValueError:
        # A "+" that stands bare in a URL means a space; here only the sign of an offset can be meant.
        value = re.sub(r"(T\S*) (\d\d:?\d\d)$", r"\1+\2", text)
    if isinstance(value, float) and not math.isfinite(value):
        raise Refusal(HTTPStatus.BAD_REQUEST, "bad-time", f"{field} is {text[:40]}, which is no time")
    try:
        return parse_time(field, value, now, Counter())
    except Refused as refused:
        raise bad_request(refused.invalid) from None
