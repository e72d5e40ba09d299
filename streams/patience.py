"""Patience: what the database does not take now is tried again until it does, but not for ever, nor while we stop."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from streams import metrics

log = logging.getLogger(__name__)

PAUSES_SECONDS = (0.05, 2.0)
"""Shortest and longest pause between two attempts."""
SAID_SECONDS = 10.0
"""How often it is said again that the database is away."""

Found = TypeVar("Found")


class Patience:
    """One process's patience with its database; any thread may wait.

    Attributes:
        seconds: for which the database may fail without a break before waiting is given up.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._since: float | None = None
        self._said = 0.0
        metrics.database_up.set(1)

    @property
    def waits(self) -> bool:
        """Whether the last attempt has failed."""
        return self._since is not None

    def end(self) -> None:
        """Wait no longer, since the process stops: what fails now fails."""
        self._ended.set()

    def wait_for(self, call: Callable[[], Found], *failures: type[Exception]) -> Found:
        """Call until it does not fail in one of these ways any more.

        Raises:
            Exception: the last failure, once patience is at its end.
        """
        pause, longest = PAUSES_SECONDS
        while True:
            try:
                found = call()
            except failures as error:
                if self.failed(error) or self._ended.wait(pause):
                    raise
                pause = min(pause * 2, longest)
            else:
                self.succeeded()
                return found

    def failed(self, error: Exception) -> bool:
        """Note that the database fails, and say so from time to time; returns whether patience is at its end."""
        now = time.monotonic()
        with self._lock:
            if self._since is None:
                self._since, self._said = now, now - SAID_SECONDS
                metrics.database_up.set(0)
            passed = now - self._since
            if now - self._said >= SAID_SECONDS:
                self._said = now
                log.warning(
                    "the database fails (for %.0f s, at most %.0f s are waited): %s",
                    passed, self.seconds, reason_of(error),
                )  # fmt: skip
        return passed >= self.seconds

    def succeeded(self) -> None:
        """Note that the database works."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        metrics.database_up.set(1)
        if since is not None:
            log.warning("the database works again, after %.1f s", time.monotonic() - since)


def reason_of(error: Exception) -> str:
    """What the database said, in a line."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__
