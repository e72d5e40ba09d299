"""Crawlers: accounts that walk through a scenario's whole catalogue and want nothing of it, as a bad bot would."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from datetime import UTC, datetime

import numpy as np

from schemas.topics import Topics
from streams.client import Client

log = logging.getLogger(__name__)

AT_ONCE = 40
VISITS = 40
"""Crawlers walk side by side; each looks at so many items and is gone, and another account comes in its place."""

LONGEST_WAIT = 0.02


class Crawlers:
    """Outsiders as the audience is: they know the topics, and see what everybody sees there. Made to `run` once."""

    def __init__(self, broker: str, topics: Topics, scenario: str, *, events_per_second: float, seed: int) -> None:
        self._client = Client(broker)
        self._topics = topics
        self._scenario = scenario
        self._rate = events_per_second
        self._generator = np.random.default_rng(seed)
        self._items: dict[str, None] = {}
        self._run = uuid.uuid4().hex[:8]

    def run(self, stop: threading.Event, begin: float, end: float) -> None:
        """Watch what there is from now on, and walk through it from `begin` to `end`, which are seconds from now."""
        started, sent = time.monotonic(), 0
        try:
            self._client.listen([self._topics.recommendations(self._scenario)])
            while not stop.is_set() and (elapsed := time.monotonic() - started) < end:
                for answer in self._client.poll(LONGEST_WAIT):
                    self._items.update(dict.fromkeys(item.item_id for item in answer.items))
                due = int(max(0.0, elapsed - begin) * self._rate)
                if due > sent and self._items:
                    if sent == 0:
                        log.info("crawlers come to %s", self._scenario)
                    self._visit(sent, due)
                    sent = due
        finally:
            self._client.close()

    def _visit(self, first: int, end: int) -> None:
        items = list(self._items)
        for number in range(first, end):
            account = f"crawler-{self._run}-{number % AT_ONCE}-{number // (AT_ONCE * VISITS)}"
            event = {
                "user_id": account,
                "item_id": items[int(self._generator.integers(len(items)))],
                "event": "view",
                "timestamp": datetime.now(UTC),
                "event_id": f"{self._run}-{number}",
            }
            self._client.send(self._topics.events(self._scenario), account, event)
