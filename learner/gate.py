"""The gate: whether what a scenario has learnt is as good as its last good version, told by one test on the stream."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from schemas.records import Example

STAKES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of its wealth that the test bets: small ones find small losses in time, large ones large losses soon."""

NEWEST = 1000
"""Examples by which the share of newcomers is judged."""

Verdict = Literal["worse", "passed", "undecided"]


class PairedTest(msgspec.Struct, kw_only=True):
    """Bets that what was learnt ranks worse than the good version, on examples that both have ranked beforehand.

    A bet gains where the good version alone was right and loses where it alone was wrong. While what was learnt is not
    worse by more than the margin, no way of betting can gain in the mean, and a wealth of 1 / error is reached with at
    most that chance, however often one looks: by Ville's inequality for the mean of the bets' wealths (Waudby-Smith and
    Ramdas 2024, Estimating means of bounded random variables by betting, https://doi.org/10.1093/jrsssb/qkad009).

    Attributes:
        pairs: examples that both have ranked.
        total: of the differences.
        wealth: natural log of each stake's.
    """

    pairs: int = 0
    total: float = 0.0
    wealth: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(STAKES))

    @property
    def difference(self) -> float:
        """By how much what was learnt is better, in the mean; 0 before the first pair."""
        return self.total / self.pairs if self.pairs else 0.0

    def update(self, differences: Sequence[float], margin: float) -> None:
        """Bet on these examples.

        Args:
            differences: what was learnt less the good version, each from -1 to 1; one that is no number counts as -1.
            margin: that what was learnt may be worse by.
        """
        losses = [-each if math.isfinite(each) else 1.0 for each in differences]
        self.pairs += len(losses)
        self.total -= sum(losses)
        for number, stake in enumerate(STAKES):
            # A loss of 1 at the highest margin still leaves some wealth to go on with.
            share = stake / (1.0 + margin)
            self.wealth[number] += sum(math.log1p(share * (loss - margin)) for loss in losses)

    def verdict(self, least_pairs: int, margin: float, error: float) -> Verdict:
        """What can be said by now.

        Args:
            least_pairs: before anything passes.
            error: chance of calling something worse that is not, at most.
        """
        highest = max(self.wealth)
        mean = highest + math.log(sum(math.exp(each - highest) for each in self.wealth) / len(STAKES))
        if mean >= -math.log(error):
            return "worse"
        return "passed" if self.pairs >= least_pairs and self.difference >= -margin else "undecided"


class Standing(msgspec.Struct, kw_only=True):
    """How a scenario stands to its good version.

    Attributes:
        learning: whether it learns; one that does not is tested all the same.
        restores: the version that is served again in place of what is learnt; None where that is served.
        good: the newest version that was found good; None before the first.
        through: for each partition of the events topic the last offset that what is served has learnt from; None where
            that is all that was taken.
        known_until: who first came after this time has no say, epoch seconds.
        since: when all this began to hold, or when `restores` was put back, epoch seconds; `reason` says why, for
            people.
        test: of what was learnt since against the good version.
        newcomers: share of the newest examples, fading over `NEWEST` of them, that are of users who have come just now.
        turn: share of a micro-batch that is still to be ranked by both.
    """

    learning: bool = True
    restores: int | None = None
    good: int | None = None
    through: dict[int, int] | None = None
    known_until: float = 0.0
    since: float = 0.0
    reason: str = ""
    test: PairedTest = msgspec.field(default_factory=PairedTest)
    turn: float = 0.0
    newcomers: float = 0.0

    def meet(self, examples: Sequence[Example], settled_seconds: float) -> None:
        """These were met; who came less than so long before is a newcomer."""
        if examples:
            share = sum(each.time - each.user_since < settled_seconds for each in examples) / len(examples)
            self.newcomers += min(1.0, len(examples) / NEWEST) * (share - self.newcomers)

    def may_vote(self, example: Example, *, control: bool) -> bool:
        """Whether an example can tell which of the two is better.

        What was chosen from a list that the model made speaks for the model that made it, and not for the better one;
        the control group's lists were made by neither. And who came after the good version was made, or just before,
        is nobody whom it could have known: else whoever floods a scenario with accounts would also elect what they
        have taught.
        """
        return (control or example.recommendation_id is None) and example.user_since <= self.known_until

    def takes_turn(self, share: float) -> bool:
        """Whether this micro-batch is one of the share that both rank."""
        if self.good is None or not self.learning:
            return False
        self.turn += share
        if self.turn < 1.0:
            return False
        self.turn -= 1.0
        return True
