"""The compactor: a thread that compacts indexes as they come to need it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from index.segmented import SegmentedIndex

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05

FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 2.0, 60.0
"""After a compaction that failed the next one waits, each time twice as long until one succeeds."""


class Compactor:
    """Compacts whichever index is due, one at a time.

    Attributes:
        failures: compactions that failed; the index then goes on as it was.
    """

    def __init__(
        self, indexes: Callable[[], Iterable[SegmentedIndex]], begin: Callable[[], None] = lambda: None
    ) -> None:
        """Start.

        Args:
            indexes: those to look after; asked each time anew.
            begin: called on the thread before anything else.
        """
        self.failures = 0
        self._indexes = indexes
        self._begin = begin
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compactor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, once the compaction that is under way has ended."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        self._begin()
        rest, pause = LOOK_SECONDS, FIRST_REST_SECONDS
        while not self._closed.wait(rest):
            rest = LOOK_SECONDS
            for index in self._indexes():
                if self._closed.is_set():
                    return
                if not index.due:
                    continue
                try:
                    index.compact()
                    pause = FIRST_REST_SECONDS
                except Exception:
                    self.failures += 1
                    rest, pause = min(pause, LONGEST_REST_SECONDS), min(2 * pause, LONGEST_REST_SECONDS)
                    log.exception("an index of %d items could not be compacted; again in %.0f s", len(index), rest)
