"""Where log lines go: to a person's terminal, or plain to a file that the supervisor keeps."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from rich.logging import RichHandler

REPEATED_SECONDS = 10.0
REPETITIVE = ("aiokafka", "mode.timers", "streams.broadcast", "streams.gateway", "streams.transport")
"""Loggers that say the same many times a second, or every few, while a broker is away."""


def log_to_terminal(console: Console) -> None:
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s")
    for chatty in ("kafka", "aiokafka", "jgo", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def log_to_file() -> None:
    """A process of its own writes plain lines; the supervisor sends them to <data>/logs."""
    handler = logging.StreamHandler()
    for repetitive in REPETITIVE:
        handler.addFilter(Seldom(repetitive))
    logging.basicConfig(
        level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for chatty in ("aiokafka", "faust", "mode", "alembic", "kafka", "transformers", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


class Seldom(logging.Filter):
    """Lets the same message of a logger or those below it through once in `REPEATED_SECONDS`; all others always.

    It belongs on a handler: a logger does not ask its filters about what the loggers below it say.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._last: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):
            return True
        now, message = time.monotonic(), (record.name, record.msg)
        if now - self._last.get(message, -REPEATED_SECONDS) < REPEATED_SECONDS:
            return False
        self._last[message] = now
        return True
