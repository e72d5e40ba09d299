"""Words: numbers, lengths of time and lists as people read them on the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

NOTHING = "no data"

STEPS = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def say(value: float | None, unit: str) -> str:
    """A number of a signal with its unit; a missing one is `no data`, which is not 0."""
    if value is None:
        return NOTHING
    if unit.startswith("share"):
        return f"{value * 100:.{1 if value >= 0.01 or value == 0 else 2}f} %"
    if unit == "seconds":
        return say_length(value)
    if unit == "milliseconds":
        return f"{value:,.0f} ms" if value < 1000 else f"{value / 1000:,.1f} s"
    if unit in ("events", "examples"):
        return f"{value:,.0f}"
    if unit.endswith("per second"):
        return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.2g}/s"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def say_length(seconds: float) -> str:
    """`0.4 s`, `12 s`, `38 min`, `5 h`, `3 d`."""
    for length, letters in STEPS:
        if seconds >= length:
            return f"{seconds / length:.0f} {letters}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


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
