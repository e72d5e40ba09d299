"""Signals: everything that is measured of a scenario over time, what each means, and what to do when it is red."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from schemas.times import say_length

Kind = Literal["quality", "calibration", "operations", "input", "exposure"]
Better = Literal["higher", "lower", "steady"]

PAGING: frozenset[Kind] = frozenset(("quality", "calibration", "operations"))
"""Kinds whose alarms page; those of the others are notes beside the charts."""


NOTHING = "no data"
LEADING = frozenset(("recall@10", "click_rate"))
"""Signals that are named first where several alarm together: what everybody understands."""


class Signal(msgspec.Struct, frozen=True):
    """One thing that is measured; everything that shows or judges it takes its words from here.

    Attributes:
        better: the direction in which it is good; `steady` where only a change means something.
        meaning: what a value says, for somebody who sees it for the first time.
        remedy: what to look at, and do, when it is red.
    """

    name: str
    title: str
    unit: str
    kind: Kind
    better: Better
    meaning: str
    remedy: str

    def say(self, value: float | None) -> str:
        """A value as people read it, to three digits or so; a missing one is `no data`, which is not 0."""
        unit = self.unit
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
        return say_number(value)

    def say_change(self, change: float) -> str:
        """A difference of two values: of shares, in points."""
        return f"{change * 100:.1f} points" if self.unit.startswith("share") else self.say(change)


def say_number(value: float) -> str:
    """Three significant digits, and no more than four behind the point: `0.235`, `0.0725`, `4.20`, `1,235`."""
    if value == 0:
        return "0"
    behind = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(4, max(0, behind))}f}"


_LOOK_AT_INPUTS = (
    "Look whether an input (new items, new users, event mix) moved at the same time. If the events are right, learning "
    "catches up by itself; if they are wrong, stop the producer and roll back."
)
_LOOK_AT_PRODUCER = "Ask the team that publishes these events whether it changed something. Nothing is done by itself."

SIGNALS: dict[str, Signal] = {
    signal.name: signal
    for signal in (
        Signal(
            "recall@10", "Recall@10", "share", "quality", "higher",
            "How often the item that a user acted on was among the ten that were ranked highest just before.",
            _LOOK_AT_INPUTS,
        ),
        Signal(
            "ndcg@10", "NDCG@10", "0 to 1", "quality", "higher",
            "As recall@10, but an item counts for more the higher it stood.", _LOOK_AT_INPUTS,
        ),
        Signal(
            "recall@10_popular", "Recall@10 of what is popular", "share", "quality", "higher",
            "The same test for a list of what is most popular now. The model should stand above it.",
            "Where it stands above the model for long, roll back, and look at what the model learns from.",
        ),
        Signal(
            "forgetting", "Forgetting", "share", "quality", "lower",
            "By how much recall@10 on what was held out in the past has fallen below its best, in the mean.",
            "Open the forgetting matrix to see which part of the past is lost; a consolidation brings some of it back.",
        ),
        Signal(
            "backward_transfer", "Backward transfer", "share", "quality", "higher",
            "By how much recall@10 on what was held out in the past has changed since it was learnt, in the mean.",
            "Below 0 later lessons cost earlier ones: raise learn.replay_batch, or consolidate.",
        ),
        Signal(
            "log_loss", "Log loss", "nats", "calibration", "lower",
            "How surprised the model was by the item that was acted on, in the mean.", _LOOK_AT_INPUTS,
        ),
        Signal(
            "calibration_error", "Calibration error", "share", "calibration", "lower",
            "How far the chance that the model gives its first item lies from how often it is right (ECE).",
            "Lists are still in order, but scores should not be read as chances. A consolidation helps where it stays.",
        ),
        Signal(
            "click_rate", "Click rate", "clicks per list", "quality", "higher",
            "Clicks on what was recommended, for each list that was sent out.",
            "Compare with the control group's: where both fall, the audience changed; where only this one falls, the "
            "model did. Roll back if recall fell too.",
        ),
        Signal(
            "control_click_rate", "Click rate of the control group", "clicks per list", "quality", "higher",
            "The same for users who are shown what is popular.",
            "The audience or the page changed, not the model.",
        ),
        Signal(
            "score_low", "Score, lowest tenth", "score", "calibration", "steady",
            "A tenth of the first items' scores lie below this.", _LOOK_AT_INPUTS,
        ),
        Signal(
            "score_median", "Score, median", "score", "calibration", "steady",
            "Half of the first items' scores lie below this.", _LOOK_AT_INPUTS,
        ),
        Signal(
            "score_high", "Score, highest tenth", "score", "calibration", "steady",
            "A tenth of the first items' scores lie above this.", _LOOK_AT_INPUTS,
        ),
        Signal(
            "event_mix", "Shift of the event mix", "Jensen-Shannon, bits", "input", "lower",
            "How far the shares of views, clicks, purchases and so on lie from those before.", _LOOK_AT_PRODUCER,
        ),
        Signal(
            "popularity_shift", "Shift of popularity", "Jensen-Shannon, bits", "input", "lower",
            "How far the shares of the most used items, and of the rest, lie from those before.",
            "A sale, a big story, or a flood of false events: look at which items are used now.",
        ),
        Signal(
            "embedding_shift", "Shift of tastes", "cosine distance", "input", "lower",
            "How far the mean vector of the items that are used lies from the one before.",
            "Users turn to other kinds of items than before. Learning follows; watch recall.",
        ),
        Signal(
            "new_users", "New users", "share of events", "input", "steady",
            "Share of events from users without any history.", _LOOK_AT_PRODUCER,
        ),
        Signal(
            "new_items", "New items", "share of events", "input", "steady",
            "Share of events on items with fewer than three events before.", _LOOK_AT_PRODUCER,
        ),
        Signal(
            "feature_age", "Age of what is learnt", "seconds", "operations", "lower",
            "From when a user acted to when the model learnt from it.",
            "LEARN is behind: look at its lag, and give it a GPU or fewer replayed examples.",
        ),
        Signal(
            "lag", "Lag of serving", "events", "operations", "lower",
            "Events that are in Kafka and that SERVE has not worked yet.", "Start more SERVE processes.",
        ),
        Signal(
            "learning_lag", "Lag of learning", "examples", "operations", "lower",
            "Examples that are in Kafka and that LEARN has not learnt yet.",
            "LEARN is too slow or stands: look at its log and at the time of a step.",
        ),
        Signal(
            "dead_letter_rate", "Dead letters", "share of records", "operations", "lower",
            "Share of records that could not be taken.",
            "Open Data health: it shows the offending records and what is wrong with them.",
        ),
        Signal(
            "head_age", "Age of the model", "seconds", "operations", "lower",
            "Since the weights that are served were published.",
            "LEARN does not publish: look whether it runs, and whether learning is paused here.",
        ),
        Signal(
            "step_milliseconds", "Time of a step", "milliseconds", "operations", "lower",
            "To test on a micro-batch and to learn from it.",
            "Something else takes the processor, or the catalogue grew.",
        ),
        Signal(
            "latency_milliseconds", "Latency", "milliseconds", "operations", "lower",
            "From the record of an event in Kafka to the recommendation that it triggered.",
            "Start more SERVE processes.",
        ),
        Signal(
            "examples", "Examples learnt", "examples per second", "operations", "steady",
            "How much the model learns from.", "Where it is 0, no events come, or learning is paused.",
        ),
        Signal(
            "recommendations", "Recommendations", "lists per second", "operations", "steady",
            "Lists that were sent out.", "Where it is 0, no events and no requests come.",
        ),
        Signal(
            "coverage", "Coverage", "share of items", "exposure", "higher",
            "Share of the items that may be shown that were in some list lately.",
            "Few items get all the attention: raise serve.fresh_impressions, or look at what floods popularity.",
        ),
        Signal(
            "popularity_bias", "Popularity bias", "ratio", "exposure", "lower",
            "How popular the items in lists are, against the items that users act on; above 1 lists favour hits.",
            "Lists narrow down to hits: look at coverage, and at the mixer's weights on popularity.",
        ),
        Signal(
            "personalised", "Personalised lists", "share of lists", "exposure", "higher",
            "Share of the lists that were made from a user's own history, and not from what is popular.",
            "Many users are new or unknown: do events and requests name the same user ids?",
        ),
    )
}  # fmt: skip
