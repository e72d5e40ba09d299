"""Times as our own records say them (RFC 3339, UTC, to the millisecond), and lengths of time as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

STEPS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def say_time(seconds: float) -> str:
    """Epoch seconds as RFC 3339."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_time(text: str) -> float:
    """What `say_time` said, as epoch seconds."""
    return datetime.fromisoformat(text).timestamp()


def say_length(seconds: float) -> str:
    """`0.4 s`, `12 s`, `38 min`, `5 h`, `3 d`."""
    for length, letters in STEPS:
        if seconds >= length:
            return f"{seconds / length:.0f} {letters}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
