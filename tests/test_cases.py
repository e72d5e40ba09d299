"""The list of public cases names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_case_names_a_test_that_exists() -> None:
    lines = [line for line in (ROOT / "docs" / "cases.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert lines
    for line in lines:
        (named,) = NAMED.findall(line)
        path, name = named
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), line
