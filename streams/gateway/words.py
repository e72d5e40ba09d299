"""Words: moments, lists and counts as people read them on the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime


def say_utc(at: float) -> str:
    """A moment to the second, as it reads where no script puts it into the reader's own zone."""
    return datetime.fromtimestamp(at, UTC).strftime("%-d %b %Y %H:%M:%S UTC")


def machine_time(at: float) -> str:
    """A moment for the `datetime` of a `time` element."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def listed(words: Sequence[str]) -> str:
    """`travel`, `travel and jobs`, `travel, jobs and news`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def counted(number: int, one: str, many: str = "") -> str:
    """`1 scenario`, `3 scenarios`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
