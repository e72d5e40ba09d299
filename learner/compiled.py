"""Compiled loops: functions over arrays that numba turns into machine code, which runs without the GIL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile at the first call and keep the result on disk, beside the source or in the user's cache folder.

    Where neither can be written, each process compiles for itself, which takes some seconds.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True)(function))
    except RuntimeError:  # numba found no folder to write to
        return cast(Function, numba.njit(nogil=True)(function))
