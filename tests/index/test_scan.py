"""The pass over a table on a GPU; without one, by Triton's interpreter, which runs the very kernel on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

CASES = Path(__file__).with_name("scan_cases.py")


def test_the_kernel_finds_what_a_product_finds() -> None:
    """In a process of its own: whether Triton compiles or interprets is settled when it is first imported."""
    interpreted = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", str(CASES)],
        cwd=CASES.parents[2],
        env={**os.environ, **interpreted},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
