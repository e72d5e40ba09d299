"""Times as our own records say them: RFC 3339, UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime


def say_time(seconds: float) -> str:
    """Epoch seconds as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str) -> float:
    """What `say_time` said, as epoch seconds."""
    return datetime.fromisoformat(text).timestamp()
