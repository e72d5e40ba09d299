"""The level of a signal: ADWIN finds where it may have changed, and its own noise says whether it did.

Outcomes of one session and of one user resemble each other, so the mean of a thousand of them varies more than ADWIN
believes, and by itself it would call change after change. So ADWIN only proposes: it cuts the stream into stretches. A
stretch whose mean is worse than the reference by many standard errors raises the alarm, and those errors come from how
much the means of long batches differ, whatever the outcomes in them have to do with each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.finding import Finding, Verdict
from schemas.signals import Better

BLOCK = 20
"""Observations of a block, at least: ADWIN is given the mean of each."""

BATCH = 400
"""Observations of a batch, at least: sessions begin and end within it."""

LEAST_BATCHES, MOST_BATCHES = 8, 128
"""Before there are so many, nothing is said; so many of the newest are kept."""

SPANS = (1, 2, 4)
"""Batches of the stretches that are compared to see how much the level varies by itself."""
SPANS_APART = 8
FEW = 6.0
"""For so many batches the standard error is doubled."""

LEAST_OBSERVATIONS = 2000
"""Of a stretch that others are measured against."""

SETTLED_OBSERVATIONS, SETTLED_BLOCKS = 4000, 40
"""A level that lasts so long is the new one: both, at least."""

BACK_OBSERVATIONS = 1000
"""What is back for so long is back."""

MOST_BLOCKS = 512
"""When so many are retained, the newer half stays."""

FULL_REFERENCE = 10_000
"""Observations, beyond which a reference takes no more in."""

DELTA = 0.002
"""ADWIN's, for proposals."""

FINENESS = 8.0
"""Units in which ADWIN sees one deviation of a block. It allows for outliers of any one unit, and there are none."""

STANDARD_ERRORS = 4.2
"""By which a stretch must be worse."""


@dataclass(frozen=True)
class Change:
    """Which changes of a level count.

    Attributes:
        better: the direction in which it is good; `steady` where it is good in none.
        absolute, relative: the least change that counts: the larger of a number and a share of the level before.
    """

    better: Better
    absolute: float
    relative: float = 0.0

    def least(self, reference: float) -> float:
        return max(self.absolute, self.relative * abs(reference))

    def worsening(self, change: float) -> float:
        """How far a change is for the worse; negative where it is for the better."""
        return {"higher": -change, "lower": change, "steady": abs(change)}[self.better]


class Sum(msgspec.Struct):
    """Observations, summed up."""

    count: float = 0.0
    total: float = 0.0

    @property
    def mean(self) -> float:
        # Six digits: no verdict hangs on the seventh, and a checkpoint holds many.
        return round(self.total / self.count, 6)

    def add(self, count: float, total: float) -> None:
        self.count += count
        self.total += total

    def take(self) -> Sum:
        """What was summed up; from now on there is nothing."""
        taken = Sum(self.count, self.total)
        self.count = self.total = 0.0
        return taken


class Means(msgspec.Struct):
    """Means of stretches of observations, oldest first, and how many observations each is of."""

    means: list[float] = []
    sizes: list[float] = []

    def __len__(self) -> int:
        return len(self.means)

    def append(self, each: Sum) -> None:
        self.means.append(each.mean)
        self.sizes.append(each.count)

    def keep(self, newest: int) -> Sum:
        """Let all but so many go; returns the sum of those that went."""
        gone = Means(self.means[:-newest], self.sizes[:-newest]).sum()
        self.means, self.sizes = self.means[-newest:], self.sizes[-newest:]
        return gone

    def sum(self) -> Sum:
        sizes = np.array(self.sizes)
        return Sum(float(sizes.sum()), float(sizes @ np.array(self.means)))


class LevelState(msgspec.Struct, kw_only=True):
    """All that a `Level` knows.

    Attributes:
        block, batch: in the making.
        blocks: the present stretch, which ADWIN holds, and `now`: their sum.
        centre, spread: of the blocks, as ADWIN is given them; None before there are enough.
        batches: the newest ones.
        reference: what stretches are measured against; nothing while there was only one stretch.
        alarmed_at: the level at which the alarm was raised; None while there is none.
        alarmed_for: observations since the last alarm, and `moved`: whether another stretch has begun since.
    """

    block: Sum = msgspec.field(default_factory=Sum)
    batch: Sum = msgspec.field(default_factory=Sum)
    blocks: Means = msgspec.field(default_factory=Means)
    now: Sum = msgspec.field(default_factory=Sum)
    centre: float = 0.0
    spread: float | None = None
    batches: Means = msgspec.field(default_factory=Means)
    reference: Sum = msgspec.field(default_factory=Sum)
    alarmed_at: float | None = None
    alarmed_for: float = 0.0
    moved: bool = False


class Level:
    """Finds out when the mean of a signal has changed for the worse, once for each change.

    What it will say hangs on `state` alone: ADWIN is always what a new one becomes that is fed the retained blocks. So
    one that was restored goes on as if it had never stopped.
    """

    def __init__(self, change: Change, patience: float = 1.0) -> None:
        """Know nothing yet.

        Args:
            patience: multiplies the observations that everything takes; less finds changes sooner, and more of them
                that are none.
        """
        self.state = LevelState()
        self._batch = max(BLOCK, round(BATCH * patience))
        self._least = LEAST_OBSERVATIONS * patience
        self._settled, self._back = SETTLED_OBSERVATIONS * patience, BACK_OBSERVATIONS * patience
        self._change = change
        self._adwin: Any = None

    def load(self, state: LevelState) -> None:
        """Go on from there."""
        self.state = state
        self._adwin = None

    def observe(self, values: NDArray[np.float64]) -> list[Finding]:
        """Take finite observations in, in their order; however they are cut, the same is found."""
        findings, start = [], 0
        while start < len(values):
            end = start + max(1, math.ceil(BLOCK - self.state.block.count))
            findings += self.add(len(values[start:end]), float(values[start:end].sum()))
            start = end
        return findings

    def add(self, count: float, total: float) -> list[Finding]:
        """Take a sum of observations in, as one block if they are many; count and total are finite."""
        state = self.state
        state.block.add(count, total)
        if state.block.count < BLOCK:
            return []
        block = state.block.take()
        state.blocks.append(block)
        state.now.add(block.count, block.total)
        state.alarmed_for += block.count
        state.batch.add(block.count, block.total)
        if state.batch.count >= self._batch:
            state.batches.append(state.batch.take())
            if len(state.batches) > MOST_BATCHES:
                state.batches.keep(MOST_BATCHES)
        if state.spread is None:
            if len(state.batches) < LEAST_BATCHES:
                return []
            self._start_again()
        elif len(state.blocks) >= MOST_BLOCKS:
            self._end_stretch(MOST_BLOCKS // 2)
            self._start_again()
        elif self._cuts(len(state.blocks) - 1):
            self._start_again()
        return self._judge()

    @property
    def standard_error(self) -> float:
        """Of one observation: that of the mean of n, for n of a batch and more, is this over the root of n.

        Sessions may be short or go on side by side for long, so stretches of several lengths are compared with the next
        ones; a level that has changed for good is in few of the differences. Of few batches it is a guess, and larger.
        """
        batches = self.state.batches
        # The present stretch is what is judged, and no judge of itself.
        past = max(LEAST_BATCHES, len(batches) - math.ceil(self.state.now.count / self._batch))
        means, sizes = np.array(batches.means[:past]), np.array(batches.sizes[:past])
        counts, totals = np.append(0.0, sizes.cumsum()), np.append(0.0, (sizes * means).cumsum())
        found = []
        for length in SPANS:
            if len(means) < SPANS_APART * length:
                break
            count, total = counts[length:] - counts[:-length], totals[length:] - totals[:-length]
            mean = total / count
            squares = (mean[length:] - mean[:-length]) ** 2 / (1 / count[length:] + 1 / count[:-length])
            found.append(float(squares.mean()))
        return math.sqrt(max(found)) * (1 + FEW / len(means))

    @property
    def verdict(self) -> Verdict:
        state = self.state
        if state.spread is None:
            seen = int(state.now.count + state.block.count)
            return Verdict("none", f"too few observations: {seen:,} of {LEAST_BATCHES * self._batch:,}")
        now = state.now
        if len({*state.blocks.means, *state.batches.means}) == 1:
            return Verdict("none", f"no result: it is always the same, {now.mean:.3g}")
        low, high = self._bounds()
        if state.alarmed_at is not None:
            return Verdict("alarm", f"it went from {state.reference.mean:.3g} to {state.alarmed_at:.3g}", low, high)
        return Verdict("steady", f"at {now.mean:.3g} over the last {int(now.count):,} observations", low, high)

    def _bounds(self) -> tuple[float | None, float | None]:
        """Where an alarm would begin for the present stretch; none before there is a reference."""
        reference = self.state.reference
        if reference.count < self._least:
            return None, None
        threshold = self._threshold(self.state.now)
        low = None if self._change.better == "lower" else reference.mean - threshold
        high = None if self._change.better == "higher" else reference.mean + threshold
        return low, high

    # Stretches

    def _start_again(self) -> None:
        """Let a new ADWIN take the retained blocks in; what it cuts off is past."""
        state, fed = self.state, 0
        self._measure()
        self._adwin = None
        while fed < len(state.blocks):
            cut = self._cuts(fed)
            fed += 1
            if cut:
                # The blocks that ADWIN was not fed yet follow its window.
                self._end_stretch(max(1, int(self._adwin.width)) + len(state.blocks) - fed)
                state.moved = True
                self._adwin, fed = None, 0

    def _cuts(self, number: int) -> bool:
        """Whether ADWIN, which holds the blocks before, ends its stretch when it is fed the one of this number."""
        if self._adwin is None:
            from river.drift import ADWIN  # not at the top: it takes a second, and only LEARN needs it

            self._adwin = ADWIN(delta=DELTA, clock=1)
            for past in range(number):
                self._adwin.update(self._scaled(past))
        self._adwin.update(self._scaled(number))
        return bool(self._adwin.drift_detected)

    def _scaled(self, number: int) -> float:
        state = self.state
        weight = math.sqrt(state.blocks.sizes[number] / BLOCK)
        return FINENESS * weight * (state.blocks.means[number] - state.centre) / (state.spread or 1.0)

    def _measure(self) -> None:
        """How much the blocks vary; those of a constant signal shall not vary by nothing."""
        means, sizes = np.array(self.state.blocks.means), np.array(self.state.blocks.sizes)
        centre = float(np.average(means, weights=sizes))
        deviations = (means - centre) * np.sqrt(sizes / BLOCK)
        least = max(self._change.least(centre) / 4, 1e-6)
        self.state.centre, self.state.spread = centre, max(math.sqrt(float((deviations**2).mean())), least)

    def _end_stretch(self, newest: int) -> None:
        """All but so many blocks are past, and belong to the reference, unless an alarm says that they do not."""
        state = self.state
        past = state.blocks.keep(newest)
        state.now = state.blocks.sum()
        if state.alarmed_at is not None:
            return
        if self._change.better == "steady":
            # What goes on wandering is measured against where it was last, not against where it began.
            state.reference = past if past.count >= self._least else state.reference
        elif state.reference.count < FULL_REFERENCE:
            state.reference.add(past.count, past.total)

    # Verdicts

    def _judge(self) -> list[Finding]:
        state = self.state
        if state.reference.count == 0:
            return []
        now = state.now
        if state.alarmed_at is not None:
            return self._clear(now)
        lasts = self._lasts(now)
        if state.reference.count < self._least:
            if lasts:
                state.reference = Sum()
            return []
        change, least = now.mean - state.reference.mean, self._change.least(state.reference.mean)
        worse, better = self._change.worsening(change), self._change.worsening(-change)
        if worse < least and not (lasts and better >= least):
            return []  # as good as always, and standard errors cost time
        threshold = self._threshold(now)
        if worse >= threshold:
            state.alarmed_at, state.alarmed_for, state.moved = now.mean, 0.0, False
            return [
                Finding("alarm", now.mean, state.reference.mean, threshold, int(now.count), "ADWIN on means of blocks")
            ]
        if lasts and better >= threshold:
            state.reference = Sum()  # it is better for good: nobody goes back
        return []

    def _clear(self, now: Sum) -> list[Finding]:
        """An alarm ends when the signal is back, or when it has found a level, whatever it is."""
        state, worsening = self.state, self._change.worsening
        before = state.reference.mean
        fallen = worsening((state.alarmed_at or 0.0) - before)
        back = worsening(now.mean - before) < fallen / 2
        settled = self._lasts(now) and state.alarmed_for >= self._settled
        if not (settled or (back and state.moved and now.count >= self._back)):
            return []
        because = "it is back" if back else "it has settled at a new level"
        finding = Finding("cleared", now.mean, before, self._threshold(now), int(now.count), because)
        state.alarmed_at, state.reference = None, Sum()
        return [finding]

    def _threshold(self, now: Sum) -> float:
        reference = self.state.reference
        error = self.standard_error * math.sqrt(1 / now.count + 1 / reference.count)
        return max(self._change.least(reference.mean), STANDARD_ERRORS * error)

    def _lasts(self, now: Sum) -> bool:
        return now.count >= self._settled and len(self.state.blocks) >= SETTLED_BLOCKS
