"""The load of a system: figures of operations, against what they were and against what is harmless."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import msgspec

from learner.finding import Finding, Verdict

RECENT, KEPT = 4, 120
"""Ticks that are judged, and that are kept; the older ones are what is compared with."""

LEAST_BEFORE = 12
"""Ticks to compare with, before anything is said."""

TIMES = 3.0
"""So many times what it was is too much."""

CALM = 0.8
"""An alarm ends below this share of the threshold, so that it does not flicker."""


@dataclass(frozen=True)
class Limit:
    """What is harmless.

    Attributes:
        harmless: up to this nothing is said, whatever it was before.
        fewest: observations of a tick that count as one.
    """

    harmless: float
    fewest: float = 1.0


class LoadState(msgspec.Struct, kw_only=True):
    """All that a `Load` knows.

    Attributes:
        count, total: of the tick in the making.
        ticks: means, oldest first.
        before: what it was when the alarm was raised; None while there is none.
    """

    count: float = 0.0
    total: float = 0.0
    ticks: list[float] = []
    before: float | None = None


class Load:
    """Finds out when a figure is several times what it was, by medians, which a few wild values do not move."""

    def __init__(self, limit: Limit) -> None:
        self.state = LoadState()
        self._limit = limit

    def load(self, state: LoadState) -> None:
        """Go on from there."""
        self.state = state

    def add(self, count: float, total: float) -> None:
        """Take a sum of finite observations in."""
        self.state.count += count
        self.state.total += total

    def tick(self) -> list[Finding]:
        """A stretch of time is over; where too little was observed it says nothing, which is not that all is well."""
        state = self.state
        if state.count < self._limit.fewest:
            return []
        state.ticks = [*state.ticks, round(state.total / state.count, 6)][-KEPT:]
        state.count = state.total = 0.0
        if len(state.ticks) < LEAST_BEFORE + RECENT:
            return []
        now, reference, threshold = self._compare()
        if state.before is None and now > threshold:
            state.before = reference
            return [Finding("alarm", now, reference, threshold, RECENT, f"median of {RECENT} readings")]
        if state.before is not None and now <= CALM * threshold:
            before, state.before = state.before, None
            back = now <= max(self._limit.harmless, TIMES * before)
            because = "it is back" if back else "it has settled at a new level"
            return [Finding("cleared", now, before, threshold, RECENT, because)]
        return []

    @property
    def verdict(self) -> Verdict:
        state = self.state
        if len(state.ticks) < LEAST_BEFORE + RECENT:
            return Verdict("none", f"too few readings: {len(state.ticks)} of {LEAST_BEFORE + RECENT}")
        now, _, threshold = self._compare()
        if state.before is not None:
            return Verdict("alarm", f"at {now:.3g}; it was {state.before:.3g}", high=threshold)
        return Verdict("steady", f"at {now:.3g}", high=threshold)

    def _compare(self) -> tuple[float, float, float]:
        """What it is, what it was, and what would be too much."""
        ticks = self.state.ticks
        now, reference = median(ticks[-RECENT:]), median(ticks[:-RECENT])
        return now, reference, max(self._limit.harmless, TIMES * reference)
