"""Topics: their names, partitions and cleanup policies, in one place."""

from __future__ import annotations

import msgspec

from schemas.decoding import MAX_RECORD_BYTES
from schemas.settings import Settings

RETENTION_MILLISECONDS = 7 * 24 * 3600 * 1000

DELETIONS_KEPT_MILLISECONDS = 24 * 3600 * 1000
"""For which compacted topics keep the record of a deletion; who was away for longer must read them from the start."""

# A record above the allowed size is still taken in, so that it can be put aside with its reason.
LARGEST_INPUT_BYTES = 8 * MAX_RECORD_BYTES
LARGEST_DEAD_LETTER_BYTES = LARGEST_INPUT_BYTES + MAX_RECORD_BYTES

UNKNOWN_SCENARIO = "unknown"
"""Requests for a scenario that is not configured are answered on the recommendations topic of this name."""


class Topic(msgspec.Struct, frozen=True):
    """One topic as it must exist; `settings` are Kafka's own topic settings."""

    name: str
    partitions: int
    settings: dict[str, str]


class Topics:
    """The names of all topics of one configuration."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.kafka.prefix
        self._partitions = settings.kafka.partitions
        self.scenarios = tuple(settings.scenarios)
        self.items = self._name("items")
        self.requests = self._name("requests")
        self.erasures = self._name("erasures")
        self.vectors = self._name("vectors")
        self.weights = self._name("weights")
        self.drift = self._name("drift")
        self.control = self._name("control")
        self.dead_letters = self._name("dead-letters")

    def _name(self, suffix: str) -> str:
        return f"{self._prefix}{suffix}"

    def events(self, scenario: str) -> str:
        return self._name(f"events.{scenario}")

    def recommendations(self, scenario: str) -> str:
        """Where answers for this scenario go; one that is not configured has a topic for all its like."""
        return self._name(f"recommendations.{scenario if scenario in self.scenarios else UNKNOWN_SCENARIO}")

    def examples(self, scenario: str) -> str:
        return self._name(f"examples.{scenario}")

    def scenario_of(self, topic: str) -> str:
        """The scenario at the end of the name of an events, examples or recommendations topic."""
        return topic.removeprefix(self._prefix).split(".", 1)[1]

    def all(self) -> list[Topic]:
        """Every topic as it must exist."""
        kept = {"cleanup.policy": "delete", "retention.ms": str(RETENTION_MILLISECONDS)}
        taken_in = {**kept, "max.message.bytes": str(LARGEST_INPUT_BYTES)}
        compacted = {
            "cleanup.policy": "compact",
            "delete.retention.ms": str(DELETIONS_KEPT_MILLISECONDS),
            "max.message.bytes": str(LARGEST_INPUT_BYTES),
        }
        many = self._partitions
        return [
            *(Topic(self.events(name), many, taken_in) for name in self.scenarios),
            *(Topic(self.recommendations(name), many, kept) for name in (*self.scenarios, UNKNOWN_SCENARIO)),
            # One partition keeps the examples of a scenario in the order in which serving made them.
            *(Topic(self.examples(name), 1, {**kept, "compression.type": "producer"}) for name in self.scenarios),
            Topic(self.requests, many, taken_in),
            Topic(self.items, 4, compacted),
            Topic(self.erasures, 1, taken_in),
            # One partition each: LEARN alone writes them, and their order is what makes a publication whole.
            Topic(self.vectors, 1, compacted),
            Topic(self.weights, 1, compacted),
            Topic(self.drift, 1, kept),
            # One partition: orders are carried out in the order in which they were given.
            Topic(self.control, 1, taken_in),
            Topic(self.dead_letters, 1, {**kept, "max.message.bytes": str(LARGEST_DEAD_LETTER_BYTES)}),
        ]
