"""Failpoints: named places at which the fault campaign strikes a process from within; no more than a call elsewhere.

They are armed from outside, while the process runs: _HEADSTREAM_FAILPOINTS names a folder, and a file in it that is
called as a failpoint says what is to happen when a process next comes by. Whoever takes the file away acts on it, so
that each arming strikes once, in one process; the file's new name says in which. Without the variable nothing is looked
up.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Literal, get_args

from schemas.errors import ExplainedError

FOLDER_VARIABLE = "_HEADSTREAM_FAILPOINTS"
"""Apart from the variables that configure Headstream: it is nothing to configure."""

Failpoint = Literal[
    "serve.decoded",  # users are loaded and changed in memory; nothing has left the process
    "serve.published",  # Kafka has acknowledged examples and recommendations; SQL knows nothing of them
    "serve.commit",  # within the SQL transaction, after offsets, users and tallies
    "serve.committed",  # SQL holds the batch; the process does not know it yet
    "learn.loss",  # the loss of a micro-batch is computed
    "learn.learnt",  # a micro-batch is learnt in memory
    "learn.publish",  # vectors and weights are sent, and their Kafka transaction is open
    "checkpoint.write",  # some files of a checkpoint are on disk
    "checkpoint.written",  # the checkpoint is whole; the database does not point at it
    "checkpoint.committed",  # the database points at it; older ones are still there
    "erasure.commit",  # SERVE: within the SQL transaction, after the user's row is gone
    "erasure.committed",  # SERVE: SQL holds the user no more; its file does
    "erasure.forgotten",  # LEARN: memory and the newest checkpoint are without the user; older ones are not
    "erasure.written",  # LEARN: a kept checkpoint is on disk without the user; the database points at the old one
    "erasure.moved",  # LEARN: the database points at the new one; the old one is still there
    "index.compact",  # what an index held is put aside, and what takes its place is not there
    "snapshot.write",  # a part of SERVE's snapshot is on disk
]

ACTIONS = "kill, stop, full, sleep SECONDS, clock SECONDS, nan"
LARGEST_ORDER_BYTES = 64


class UnknownFailpoint(ExplainedError):
    """The folder of failpoints holds something that is none, or asks for something that none does."""

    def __init__(self, what: str, allowed: str) -> None:
        super().__init__(f"{FOLDER_VARIABLE}: {what} is not one of {allowed}")


def failpoint(name: Failpoint) -> bool:
    """Come by; returns whether what is made here shall be spoilt, which only `nan` asks for.

    Raises:
        OSError: the disk is full, as far as this place is concerned.
        UnknownFailpoint: the file asks for something else than `ACTIONS`.
    """
    return False if _folder is None else _strike(_folder / name)


def armed_folder(environment: str | None) -> Path | None:
    """The folder to look into; None where failpoints are off.

    Raises:
        UnknownFailpoint: a file in it is called as no failpoint is.
    """
    if not environment:
        return None
    folder = Path(environment)
    for file in folder.iterdir():
        if file.name not in get_args(Failpoint) and not file.name.startswith("."):
            raise UnknownFailpoint(f'"{file.name}"', ", ".join(get_args(Failpoint)))
    return folder


def _strike(file: Path) -> bool:
    if not file.exists():
        return False
    taken = file.with_name(f".{file.name}.by.{os.getpid()}")
    try:
        file.rename(taken)
    except FileNotFoundError:
        return False  # another process was faster
    with taken.open("rb") as stream:
        order = stream.read(LARGEST_ORDER_BYTES).decode(errors="replace")
    match order.split():
        case ["kill"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["stop"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        case ["full"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["clock", seconds]:
            _shift_clock(float(seconds))
        case ["nan"]:
            return True
        case _:
            raise UnknownFailpoint(f'"{order}" in {file.name}', ACTIONS)
    return False


def _shift_clock(seconds: float) -> None:
    """Let the time of day be another one in this process from now on, as after a correction of the system's clock."""
    before = time.time
    time.time = lambda: before() + seconds


_folder = armed_folder(os.environ.get(FOLDER_VARIABLE))
