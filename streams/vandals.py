"""Vandals: accounts that hate whatever a scenario recommends most, as a campaign against it would."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter, deque
from datetime import UTC, datetime

import numpy as np

from schemas.topics import Topics
from streams.client import Client

ACCOUNTS = 200
TARGETS = 60
"""They pick from so many items, those that were recommended most lately."""

LISTS_KEPT = 300
LONGEST_WAIT = 0.02


class Vandals:
    """Outsiders as the audience is: they know the topics, and see what everybody sees there. Made to `run` once."""

    def __init__(self, broker: str, topics: Topics, scenario: str, *, events_per_second: float, seed: int) -> None:
        self._client = Client(broker)
        self._topics = topics
        self._scenario = scenario
        self._rate = events_per_second
        self._generator = np.random.default_rng(seed)
        self._lists: deque[list[str]] = deque(maxlen=LISTS_KEPT)
        self._run = uuid.uuid4().hex[:8]

    def run(self, stop: threading.Event, begin: float, end: float) -> None:
        """Watch from now on, and act from `begin` to `end`, which are seconds from now."""
        started, sent = time.monotonic(), 0
        try:
            self._client.listen([self._topics.recommendations(self._scenario)])
            while not stop.is_set() and (elapsed := time.monotonic() - started) < end:
                for answer in self._client.poll(LONGEST_WAIT):
                    if answer.user_id is not None and not answer.user_id.startswith("vandal-"):
                        self._lists.append([item.item_id for item in answer.items])
                due = int(max(0.0, elapsed - begin) * self._rate)
                if due > sent:
                    self._hate(due - sent, first=sent)
                    sent = due
        finally:
            self._client.close()

    def _hate(self, count: int, first: int) -> None:
        shown = Counter(item_id for each in self._lists for item_id in each).most_common(TARGETS)
        if not shown:
            return
        for number in range(first, first + count):
            item_id, _ = shown[int(self._generator.integers(len(shown)))]
            user_id = f"vandal-{self._run}-{number % ACCOUNTS}"
            event = {
                "user_id": user_id,
                "item_id": item_id,
                "event": "hate",
                "timestamp": datetime.now(UTC),
                "event_id": f"{self._run}-{number}",
            }
            self._client.send(self._topics.events(self._scenario), user_id, event)
