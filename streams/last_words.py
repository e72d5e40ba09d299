"""Last words: before a process that hangs is ended, its log gets the stack of every thread and of every task."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

MOST_TASKS = 200

KINDS = ("cr", "gi", "ag")
"""How the attributes of coroutines, generators and asynchronous generators begin."""


def say_stacks(loop: asyncio.AbstractEventLoop | None) -> None:
    """Write all stacks to the log; from any thread, whatever the others are stuck in."""
    print("the stack of every thread:", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()
    faulthandler.dump_traceback(sys.stderr, all_threads=True)
    if loop is None:
        return
    try:
        tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    except RuntimeError:  # they change at this moment: the loop, at least, does not hang
        return
    print(f"the stack of {min(len(tasks), MOST_TASKS)} of {len(tasks)} tasks:", file=sys.stderr)  # noqa: T201
    for task in tasks[:MOST_TASKS]:
        print(f"{task.get_name()}:", *_awaited(task.get_coro()), sep="\n  ", file=sys.stderr)  # noqa: T201
    sys.stderr.flush()


def _awaited(coroutine: Any) -> Iterator[str]:
    """Where a coroutine stands, and what it awaits, and so on; Python's own printing of tasks shows the first alone."""
    while coroutine is not None:
        kind = next((each for each in KINDS if hasattr(coroutine, f"{each}_frame")), None)
        if kind is None:
            # What `__await__` of a coroutine gives shows nothing of it, but holds it.
            held = (each for each in gc.get_referents(coroutine) if inspect.iscoroutine(each))
            coroutine = next(held, None)
            continue
        if (frame := getattr(coroutine, f"{kind}_frame")) is not None:
            code = frame.f_code
            yield f'File "{code.co_filename}", line {frame.f_lineno}, in {code.co_qualname}'
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")


def end_within(seconds: float, end: Callable[[], object]) -> None:
    """Call `end` after so long, unless the process has ended by then."""
    deadline = threading.Timer(seconds, end)
    deadline.daemon = True
    deadline.start()
