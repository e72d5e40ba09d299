"""The make-up of a stream: how far it lies from before, against how far it lies from itself by chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.finding import Finding, Verdict

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

BLOCK = 50
"""Events that are drawn together when the stream is drawn anew: those of a session resemble each other."""

REFERENCE, WINDOW = 4000, 1000
"""Events of what is compared with, and of what is compared."""

CHOICE = 1000
"""The reference's first events choose which codes are told apart, and have no other say: each of these codes was, by
chance, more frequent there than it is."""

MOST_CODES = 50
RESAMPLES = 100
MARGIN = 1.5
"""The threshold is so many times the farthest of all resamples: the reference was drawn once, and perhaps oddly."""

WINDOWS_IN_A_ROW = 3
"""So many windows beyond the threshold are a shift; so many within it are the end of one."""


@dataclass(frozen=True)
class Measure:
    """How blocks are described, and how descriptions of many of them are compared.

    Attributes:
        describe: (codes (n,), codes that choose (m,)) → (n, width); rows add up.
        distance: of sums of such rows, (…, width) each; (…,).
        least: a distance below this is none.
    """

    describe: Callable[[Codes, Codes], Floats]
    distance: Callable[[Floats, Floats], Floats]
    least: float


def counted(codes: Codes, chooser: Codes) -> Floats:
    """One column for each of the most frequent codes, and one for all others."""
    known, counts = np.unique(chooser, return_counts=True)
    chosen = np.sort(known[np.argsort(-counts, kind="stable")[:MOST_CODES]])
    place = np.searchsorted(chosen, codes).clip(max=len(chosen) - 1)
    place = np.where(chosen[place] == codes, place, len(chosen))
    return np.asarray(np.eye(len(chosen) + 1)[place])


def jensen_shannon(first: Floats, second: Floats) -> Floats:
    """Divergence of counts, in bits: 0 of the same shares, 1 of shares that have nothing in common."""
    p, q = (each / each.sum(-1, keepdims=True) for each in (first, second))
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = [np.where(each > 0, each * np.log2(each / middle), 0.0).sum(-1) for each in (p, q)]
    return np.asarray((bits[0] + bits[1]) / 2)


def cosine_distance(first: Floats, second: Floats) -> Floats:
    lengths = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    return np.asarray(1 - (first * second).sum(-1) / np.maximum(lengths, 1e-12))


class DistributionState(msgspec.Struct, kw_only=True):
    """All that a `Distribution` knows.

    Attributes:
        reference, window: codes of events, in their order; no reference is complete before it has `REFERENCE`.
        successor: what has come since the alarm, which becomes the reference if it lasts.
        row: so many windows came one after the other that speak against the present state.
        alarmed: whether the stream has left its reference.
        windows: compared so far.
        distance, threshold: of the last window; None before the first.
    """

    reference: list[int] = []
    window: list[int] = []
    successor: list[int] = []
    row: int = 0
    alarmed: bool = False
    windows: int = 0
    distance: float | None = None
    threshold: float | None = None


class Distribution:
    """Finds out when a stream of codes is made up in another way than before, once for each shift.

    It always compares as many events, so however long an unchanged stream goes on, it stays unchanged.
    """

    def __init__(self, measure: Measure, seed: int = 0, patience: float = 1.0) -> None:
        """Know nothing yet.

        Args:
            patience: multiplies the events that are compared; less finds shifts sooner, and more of them that are none.
        """
        self.state = DistributionState()
        self._window = max(1, round(WINDOW * patience / BLOCK)) * BLOCK
        self._reference = self._window * (REFERENCE // WINDOW)
        self._measure = measure
        self._seed = seed

    def load(self, state: DistributionState) -> None:
        """Go on from there."""
        self.state = state

    def observe(self, codes: Codes) -> list[Finding]:
        """Take events in, in their order; however they are cut, the same is found."""
        state, findings = self.state, []
        rest = codes.tolist()
        missing = self._reference - len(state.reference)
        if missing > 0:
            state.reference += rest[:missing]
            rest = rest[missing:]
        while rest:
            missing = self._window - len(state.window)
            state.window += rest[:missing]
            rest = rest[missing:]
            if len(state.window) == self._window:
                findings += self._compare()
        return findings

    def forget(self, code: int) -> None:
        """It may come to mean something else."""
        state = self.state
        state.reference, state.window, state.successor = (
            [each for each in codes if each != code] for codes in (state.reference, state.window, state.successor)
        )

    @property
    def verdict(self) -> Verdict:
        state = self.state
        if state.distance is None or state.threshold is None:
            seen = len(state.reference) + len(state.window)
            return Verdict("none", f"too few events: {seen:,} of {self._reference + self._window:,}")
        if len(set(state.reference)) == 1 and state.distance == 0:
            return Verdict("none", "no result: all events are of one kind")
        where = f"{state.distance:.3g} from before, of {state.threshold:.3g} that count"
        return Verdict("alarm" if state.alarmed else "steady", where, high=state.threshold)

    def _compare(self) -> list[Finding]:
        state, measure = self.state, self._measure
        chooser, rest = np.array(state.reference[:CHOICE]), np.array(state.reference[CHOICE:])
        before = _blocks(measure.describe(rest, chooser))
        now = measure.describe(np.array(state.window), chooser).sum(0)
        distance = float(measure.distance(before.sum(0), now))
        threshold = self._threshold(before)
        state.distance, state.threshold = distance, threshold
        state.windows += 1
        if state.alarmed:
            state.successor += state.window
        state.window = []
        against = (distance > threshold) != state.alarmed
        state.row = state.row + 1 if against else 0
        findings = []
        if state.row == WINDOWS_IN_A_ROW:
            findings.append(self._turn("it is back"))
        elif len(state.successor) >= self._reference:
            # The shift lasts: from now on that is what is compared with.
            state.reference, state.successor = state.successor[-self._reference :], []
            findings.append(self._turn("it has settled in a new way"))
        return findings

    def _turn(self, because: str) -> Finding:
        """Raise the alarm, or end it."""
        state = self.state
        state.alarmed, state.row, state.successor = not state.alarmed, 0, []
        distance, threshold = state.distance or 0.0, state.threshold or 0.0
        if not state.alarmed:
            return Finding("cleared", distance, 0.0, threshold, self._window, because)
        how = f"{WINDOWS_IN_A_ROW} windows in a row are farther off than {RESAMPLES} resamples of before"
        return Finding("alarm", distance, 0.0, threshold, self._window, how)

    def _threshold(self, blocks: Floats) -> float:
        """How far two draws of the reference lie from each other, at most, and a margin."""
        generator = np.random.default_rng((self._seed, self.state.windows))
        even = np.full(len(blocks), 1 / len(blocks))
        first = generator.multinomial(len(blocks), even, RESAMPLES) @ blocks
        second = generator.multinomial(self._window // BLOCK, even, RESAMPLES) @ blocks
        return max(self._measure.least, MARGIN * float(self._measure.distance(first, second).max()))


def _blocks(rows: Floats) -> Floats:
    """Sums of `BLOCK` rows each; what is left over is left out."""
    whole = len(rows) // BLOCK * BLOCK
    return np.asarray(rows[:whole].reshape(-1, BLOCK, rows.shape[1]).sum(1))
