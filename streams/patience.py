"""Patience: what the database does not take now is tried again until it does, but not for ever, nor while we stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from streams import metrics
from streams.outage import Outage

PAUSES_SECONDS = (0.05, 2.0)
"""Shortest and longest pause between two attempts."""

Found = TypeVar("Found")


class Patience:
    """One process's patience with its database; any thread may wait.

    Attributes:
        seconds: for which the database may fail without a break before waiting is given up.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._ended = threading.Event()
        self._outage = Outage("the database", seconds)
        metrics.database_up.set(1)

    @property
    def waits(self) -> bool:
        """Whether the last attempt has failed."""
        return self._outage.lasts

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
        """Note that the database fails; returns whether patience is at its end."""
        passed = self._outage.goes_on(reason_of(error))
        metrics.database_up.set(0)
        return passed >= self.seconds

    def succeeded(self) -> None:
        """Note that the database works."""
        if self._outage.is_over():
            metrics.database_up.set(1)


def reason_of(error: Exception) -> str:
    """What the database said, in a line."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__
