"""No pickle: nothing that we read from disk or Kafka can run code (DESIGN §5.9)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path for package in ("schemas", "learner", "index", "streams") for path in (ROOT / package).rglob("*.py")
)
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}


def offences(source: str) -> Iterator[str]:
    """What in a source reads or writes objects that run code when they are read."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{each.name}" for each in node.names)]
        yield from (f"imports {name}" for name in names if name.split(".")[0] in MODULES or name == "torch.load")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save"}:
            yield ast.unparse(node)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield "allow_pickle"


def test_our_code_neither_reads_nor_writes_pickle() -> None:
    assert len(SOURCES) > 100
    found = {str(path.relative_to(ROOT)): list(offences(path.read_text())) for path in SOURCES}
    assert {path: what for path, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "from torch import load",
        "import torch\ntorch.load('f')",
        "torch.save(x, 'f')",
        "import numpy as np\nnp.load('f', allow_pickle=True)",
        "np.load('f', allow_pickle=flag)",
    ],
)
def test_each_way_to_pickle_is_noticed(source: str) -> None:
    assert list(offences(source))
