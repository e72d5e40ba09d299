"""Findings: what a detector says when something changes, and how it stands when nothing does."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """A signal that left its reference, or came to rest again.

    Attributes:
        value: now, and `reference`: before; what counts is a difference (of levels) or a value (of distances and loads)
            of `threshold` or more.
        window: observations that `value` is taken over.
        because: how it was found, or what cleared it, for people.
    """

    status: Literal["alarm", "cleared"]
    value: float
    reference: float
    threshold: float
    window: int
    because: str


class Verdict(NamedTuple):
    """How a signal stands: `none` is no verdict, for the reason that is given.

    Attributes:
        low, high: below and above these, for as long as it did until now, it would be an alarm; None where there is no
            such bound, or none yet.
    """

    state: Literal["none", "steady", "alarm"]
    reason: str
    low: float | None = None
    high: float | None = None
