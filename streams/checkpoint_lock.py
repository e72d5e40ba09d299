"""The right to the checkpoints of a data folder: LEARNs share it, a warm start has it alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import ExplainedError

LOCK_FILE = "checkpoints.lock"


class CheckpointsInUse(ExplainedError):
    """Another process has the right to the checkpoints."""

    def __init__(self, data: Path, holder: str) -> None:
        self.data, self.holder = data, holder
        super().__init__(f"the checkpoints of the data folder {data} are in use: {holder}. Stop it first.")


def share_checkpoints(data: Path) -> None:
    """For LEARN: until this process ends, however it ends, no warm start may write there.

    Raises:
        CheckpointsInUse: by a warm start.
    """
    descriptor = _open(data)
    if not _locked(descriptor, fcntl.LOCK_SH):
        os.close(descriptor)
        raise CheckpointsInUse(data, "`headstream warm` is at work there")


@contextmanager
def checkpoints_alone(data: Path) -> Iterator[None]:
    """For a warm start: no LEARN runs on the data folder meanwhile.

    Raises:
        CheckpointsInUse: by LEARN, or by another warm start.
    """
    descriptor = _open(data)
    try:
        if not _locked(descriptor, fcntl.LOCK_EX):
            raise CheckpointsInUse(data, "LEARN (of `headstream up`, `demo` or `learn`) or another `warm` runs there")
        yield
    finally:
        os.close(descriptor)


def _open(data: Path) -> int:
    data.mkdir(parents=True, exist_ok=True)
    return os.open(data / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)


def _locked(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
