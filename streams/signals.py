"""Stop signals: SIGTERM and SIGINT, heard however busy the process is."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

STOPS = frozenset({signal.SIGTERM, signal.SIGINT})


class StopSignals:
    """Waits for a stop signal on a thread of its own.

    A handler in Python cannot run while the event loop or a native library is stuck; a thread in `sigwait` can. Make
    this before any other thread, which then inherits the blocked signals. Until `then` says otherwise, a stop ends the
    process at once: nothing has begun yet.

    A thread that was there before hears stops too, and then nobody else does: libraries that start some when they are
    imported must be imported later.
    """

    def __init__(self) -> None:
        self._action: Callable[[], None] = lambda: os._exit(0)
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        threading.Thread(target=self._wait, name="stop-signals", daemon=True).start()

    def then(self, action: Callable[[], None]) -> None:
        """Call this on a stop from now on."""
        self._action = action

    def _wait(self) -> None:
        signal.sigwait(STOPS)
        self._action()
