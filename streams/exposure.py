"""Exposure: what lists were like of late in each scenario: how many, how fast, how varied, how much of hits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from streams.history import Measured
from streams.mirror import Mirror

COVERAGE_SECONDS = 3600
"""An item counts as covered for so long after it was in a list."""
ROWS_KEPT = 100_000
"""Items of lists, and of events, from which the popularity bias of one stretch of time is taken, at most."""


class _Scenario:
    """What came since it was asked last; `shown` is by row when it was in a list, seconds since the start, 0 never."""

    def __init__(self) -> None:
        self.shown = np.zeros(0, np.int32)
        self.begin()

    def begin(self) -> None:
        self.lists = self.personalised = 0
        self.waits, self.waited, self.shortest, self.longest = 0, 0.0, math.inf, 0.0
        self.listed: list[int] = []
        self.used: list[int] = []

    def wait(self, milliseconds: Sequence[float]) -> None:
        self.waits += len(milliseconds)
        self.waited += sum(milliseconds)
        self.shortest, self.longest = min(self.shortest, *milliseconds), max(self.longest, *milliseconds)

    def show(self, rows: Sequence[int], now: int) -> None:
        at = np.array(rows, np.int64)
        if len(at) and (most := int(at.max())) >= len(self.shown):
            self.shown = np.concatenate((self.shown, np.zeros(most + 1, np.int32)))
        self.shown[at] = now


class Exposure:
    """Sums up per batch, and is asked from time to time; all of it on the worker thread, as the mirror is."""

    def __init__(self, mirror: Mirror, began: float) -> None:
        """Begin with nothing; `began` is now, in epoch seconds."""
        self._mirror = mirror
        self._table = mirror.table
        self._before = self._began = began
        self._scenarios = {name: _Scenario() for name in mirror.scenarios}

    def note_lists(self, scenario: str, items: Sequence[Sequence[str]], personalised: int, now: float) -> None:
        """Lists of a scenario were published.

        Args:
            items: the ids of each.
            personalised: how many of them the model made from a history.
            now: epoch seconds.
        """
        self._keep_up()
        its = self._scenarios[scenario]
        rows = [row for each in items for row in self._table.rows(each) if row]
        its.lists += len(items)
        its.personalised += personalised
        its.show(rows, 1 + int(now - self._began))
        its.listed += rows[: ROWS_KEPT - len(its.listed)]

    def note_waits(self, scenario: str, milliseconds: Sequence[float]) -> None:
        """So long lists took, each from the record that caused it."""
        if milliseconds:
            self._scenarios[scenario].wait(milliseconds)

    def note_uses(self, scenario: str, item_ids: Sequence[str]) -> None:
        """Users acted on these."""
        its = self._scenarios[scenario]
        its.used += self._table.rows(item_ids[: ROWS_KEPT - len(its.used)])

    def measured(self, now: float) -> list[Measured]:
        """What came since this was called last, as series."""
        self._keep_up()
        seconds, found = max(1e-3, now - self._before), list[Measured]()
        for name, its in self._scenarios.items():
            found.append(Measured.one(name, "recommendations", now, its.lists / seconds))
            if its.lists:
                share = its.personalised / its.lists
                found.append(Measured(name, "personalised", now, its.lists, its.personalised, share, share))
            if its.waits:
                found.append(
                    Measured(name, "latency_milliseconds", now, its.waits, its.waited, its.shortest, its.longest)
                )
            for signal, value in (("coverage", self._coverage(name, now)), ("popularity_bias", self._bias(name))):
                if value is not None:
                    found.append(Measured.one(name, signal, now, value))
            if published := self._mirror.head(name).weights.published_at:
                found.append(Measured.one(name, "head_age", now, max(0.0, now - published)))
            its.begin()
        self._before = now
        return found

    def _keep_up(self) -> None:
        """Rows are those of other items once LEARN has begun anew."""
        if self._mirror.table is not self._table:
            self._table = self._mirror.table
            self._scenarios = {name: _Scenario() for name in self._scenarios}

    def _coverage(self, scenario: str, now: float) -> float | None:
        """Share of the items that may be shown that were in a list of late; None where no list was made of late."""
        eligible = self._table.eligible[self._mirror.number(scenario)].numpy()
        shown = self._scenarios[scenario].shown[: len(eligible)]
        late = shown > max(0, 1 + int(now - self._began) - COVERAGE_SECONDS)
        visible = int(eligible.sum())
        return float((eligible[: len(late)] & late).sum()) / visible if visible and late.any() else None

    def _bias(self, scenario: str) -> float | None:
        its = self._scenarios[scenario]
        listed, used = (self._popularity(scenario, rows) for rows in (its.listed, its.used))
        return listed / used if used else None

    def _popularity(self, scenario: str, rows: Sequence[int]) -> float:
        """The mean share of the scenario's events that items have; 0 for no items, and before the first event."""
        number, popularity = self._mirror.number(scenario), self._table.popularity
        if not rows or not len(popularity.used(number)):
            return 0.0
        shares = popularity.log_share(number, torch.tensor(rows)).exp()
        return float(shares.double().mean())
