"""The throttle: so many calls a second and client, with a bucket for bursts; it remembers few clients."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

CLIENTS = 10_000


class Throttle:
    """A token bucket for each client; whoever was quiet for longest is forgotten first, and begins with a full one."""

    def __init__(
        self, per_second: float, burst: int, *, clients: int = CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = per_second
        self._burst = float(burst)
        self._clients = clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str) -> int:
        """Count one call; returns 0 if it may go on, else after how many seconds the next one may."""
        now = self._clock()
        left, at = self._buckets.get(client, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        allowed = left >= 1.0
        self._buckets[client] = (left - 1.0 if allowed else left, now)
        self._buckets.move_to_end(client)
        while len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
        return 0 if allowed else math.ceil((1.0 - left) / self._rate)
