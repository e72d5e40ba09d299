"""The chart: which items were acted on most in the last minutes, the list that everyone else would be shown."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container


class Chart:
    """Counts acts within a sliding span of seconds."""

    def __init__(self, span: float) -> None:
        self._span = span
        self._acts: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()

    def note(self, item_id: str, elapsed: float) -> None:
        """Count one act; acts older than the span fall out."""
        self._acts.append((elapsed, item_id))
        self._counts[item_id] += 1
        while self._acts[0][0] < elapsed - self._span:
            _, old = self._acts.popleft()
            self._counts[old] -= 1
            if not self._counts[old]:
                del self._counts[old]

    def drop(self, item_id: str) -> None:
        """Forget an item that can no longer be met."""
        self._acts = deque((at, other) for at, other in self._acts if other != item_id)
        del self._counts[item_id]

    def top(self, k: int, without: Container[str]) -> list[str]:
        """Up to k items, most acted on first, leaving out those in `without`; of equals the one noted first."""
        found: list[str] = []
        for item_id, _ in self._counts.most_common():
            if item_id not in without:
                found.append(item_id)
                if len(found) == k:
                    break
        return found
