"""Turns: how many records of one topic are worked before the other topics have their turn."""

from __future__ import annotations

import math
from collections.abc import Iterator

from streams.transport import Poll

FIRST_RECORDS = 128
"""Of a topic's first turn, before it is known how long its records take."""
LEAST_RECORDS = 16
"""However long records take: much less of a batch is hardly cheaper, and the whole of it would take for ever."""


class Turns:
    """Cuts polls so that working a piece takes about so long, as measured on the pieces before it.

    A topic with a backlog fills whole polls, and the others would wait for the whole of each.

    Args:
        seconds: infinity cuts nothing.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._records: dict[str, int] = {}

    def cut(self, poll: Poll) -> Iterator[Poll]:
        """The poll in pieces, in its order; the next one is cut only once the one before was worked."""
        left: Poll | None = poll
        while left is not None:
            piece, left = (left, None) if self._seconds == math.inf else left.split(self._most(poll.topic))
            yield piece

    def _most(self, topic: str) -> int:
        return self._records.get(topic, FIRST_RECORDS)

    def took(self, topic: str, records: int, seconds: float) -> None:
        """So long a piece took; the next one has as many as would have filled a turn, but at most twice as many."""
        if records and self._seconds < math.inf:
            fitting = min(self._seconds * records / max(seconds, 1e-6), 2.0 * self._most(topic))
            self._records[topic] = max(LEAST_RECORDS, int(fitting))
