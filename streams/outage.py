"""Outages: what we stand on goes away and comes back; each is said once, and every ten seconds between."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger(__name__)

SAID_SECONDS = 10.0


class Outage:
    """Of one thing. Any thread may tell of it, and as often as it likes: it is said seldom.

    What comes and goes more often than every ten seconds is passed over in silence meanwhile.
    """

    def __init__(self, thing: str, at_most: float | None = None) -> None:
        """Nothing is wrong yet.

        Args:
            thing: as a line of the log begins with it.
            at_most: seconds that are waited for it, if there is an end to that.
        """
        self._thing = thing
        self._waited = "" if at_most is None else f", at most {at_most:.0f} s are waited"
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said_at = -SAID_SECONDS
        self._was_said = False

    @property
    def lasts(self) -> bool:
        return self._since is not None

    def goes_on(self, reason: str) -> float:
        """Note that it fails; returns for how many seconds it has."""
        now = time.monotonic()
        with self._lock:
            if self._since is None:
                self._since, self._was_said = now, False
            passed = now - self._since
            if now - self._said_at >= SAID_SECONDS:
                self._said_at, self._was_said = now, True
                log.warning("%s fails (for %.0f s%s): %s", self._thing, passed, self._waited, reason)
        return passed

    def is_over(self) -> bool:
        """Note that it works; returns whether it had failed."""
        if self._since is None:
            return False
        with self._lock:
            since, self._since = self._since, None
            if since is not None and self._was_said:
                log.warning("%s works again, after %.1f s", self._thing, time.monotonic() - since)
        return since is not None
