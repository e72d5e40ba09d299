"""Every decoder gives a value within limits or a named refusal, whatever it is given, and soon; the short form.

The long form is `python -m tests.fuzz --minutes N`. What it has found lies in `tests/fuzz/found`, and stays put right.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import campaign, try_input
from tests.fuzz.inputs import make
from tests.fuzz.targets import TARGETS

INPUTS = 100
FOUND = sorted(file for file in (Path(__file__).parent / "fuzz" / "found").glob("*/*") if file.is_file())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_good_is_taken(name: str, tmp_path: Path) -> None:
    findings = [try_input(name, content, tmp_path) for content in TARGETS[name].good]
    assert findings == [None] * len(findings)


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_comes_is_taken_or_refused_by_name(name: str) -> None:
    findings = [each for each in campaign(name, seed=7, numbers=iter(range(INPUTS))) if each is not None]
    assert [(each.number, each.what, each.trace) for each in findings] == []


@pytest.mark.parametrize("file", FOUND, ids=lambda file: f"{file.parent.name} {file.name}")
def test_what_was_found_once_is_refused_by_name(file: Path, tmp_path: Path) -> None:
    assert try_input(file.parent.name, file.read_bytes(), tmp_path) is None


def test_a_seed_and_a_number_give_the_same_input_again() -> None:
    good = TARGETS["event"].good
    assert [make(3, "event", number, good) for number in range(50)] == [make(3, "event", n, good) for n in range(50)]
    assert make(4, "event", 0, good) != make(3, "event", 0, good)
