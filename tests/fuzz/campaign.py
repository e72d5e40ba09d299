"""A campaign: inputs against decoders, one by one, in bounded time and memory; what breaks the rule is a finding."""

from __future__ import annotations

import gc
import resource
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.inputs import make
from tests.fuzz.targets import TARGETS

MOST_SECONDS = 5.0
"""For one input, in processor time: all are small, and this machine may be slow."""
MOST_MEGABYTES = 600
"""That one input may add to the most that this process ever held."""


@dataclass(frozen=True)
class Finding:
    """An input for which a decoder did what it must not.

    Attributes:
        number: of the input; `tests.fuzz.inputs.make` gives it again.
        what: in one line.
        trace: the traceback, if an exception came out.
    """

    target: str
    number: int
    what: str
    content: bytes
    trace: str = ""


def try_input(name: str, content: bytes, folder: Path, number: int = -1) -> Finding | None:
    """Hand an input to a decoder."""
    target = TARGETS[name]
    began, held = time.process_time(), _megabytes()
    try:
        target.read(content, folder)
    except target.errors as error:
        if not str(error):
            return Finding(name, number, f"{type(error).__name__} says nothing", content)
    except (AssertionError, MemoryError, Exception) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        return Finding(name, number, what, content, traceback.format_exc(limit=-12))
    finally:
        for left in folder.iterdir():
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    took, grown = time.process_time() - began, _megabytes() - held
    if took > MOST_SECONDS:
        return Finding(name, number, f"took {took:.1f} s for {len(content)} bytes", content)
    if grown > MOST_MEGABYTES:
        return Finding(name, number, f"took {grown:.0f} MB for {len(content)} bytes", content)
    return None


def campaign(name: str, seed: int, numbers: Iterator[int]) -> Iterator[Finding | None]:
    """Try these inputs of a seed in turn."""
    good = TARGETS[name].good
    with TemporaryDirectory(prefix="headstream-fuzz-") as folder:
        for number in numbers:
            yield try_input(name, make(seed, name, number, good), Path(folder), number)
    gc.collect()


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
