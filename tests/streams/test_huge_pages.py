"""Large tensors lie in huge pages, unless whoever runs us does not want them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import streams.learn
import torch
large = torch.ones(16 << 20)
print(any(line.startswith("VmFlags") and " hg" in line for line in open("/proc/self/smaps")))
"""
"""Begins as LEARN does, and says whether it asked the kernel for huge pages."""


@pytest.mark.parametrize(("wish", "asked"), [({}, "True"), ({"THP_MEM_ALLOC_ENABLE": "0"}, "False")])
def test_learn_asks_for_huge_pages_unless_the_operator_says_otherwise(wish: dict[str, str], asked: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=kept | wish, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == asked
