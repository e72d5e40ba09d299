"""Where log lines go: to a person's terminal, or plain to a file that the supervisor keeps."""

from __future__ import annotations

import logging
import sys
import time

from rich.console import Console
from rich.logging import RichHandler

REPEATED_SECONDS = 5.0


def log_to_terminal(console: Console) -> None:
    handler = RichHandler(console=console, show_path=False, rich_tracebacks=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format="%(message)s")
    for chatty in ("kafka", "aiokafka", "jgo", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def log_to_file() -> None:
    """A process of its own writes plain lines; the supervisor sends them to <data>/logs."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for chatty in ("aiokafka", "faust", "mode", "alembic", "kafka", "transformers"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # aiokafka repeats itself many times a second while a broker is away.
    logging.getLogger("aiokafka").addFilter(Seldom())


class Seldom(logging.Filter):
    """Lets the same message through once in `REPEATED_SECONDS`."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._last.get(record.msg, -60.0) < REPEATED_SECONDS:
            return False
        self._last[record.msg] = now
        return True
