"""Signals: what they come to, in words that people read."""

from __future__ import annotations

import msgspec
import pytest

from schemas.signals import SIGNALS, say_number
from schemas.times import say_length


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "share", "no data"),
        (0.0, "share", "0.0 %"),
        (0.3149, "share", "31.5 %"),
        (0.0004, "share of records", "0.04 %"),
        (0.1184, "clicks per list", "0.118"),
        (0.07254, "0 to 1", "0.0725"),
        (9.2, "milliseconds", "9 ms"),
        (2345.0, "milliseconds", "2.3 s"),
        (0.42, "seconds", "0.4 s"),
        (7300.0, "seconds", "2 h"),
        (5200.0, "events", "5,200"),
        (0.0, "events", "0"),
        (38.2, "examples per second", "38/s"),
    ],
)
def test_a_value_is_said_with_its_unit(value: float | None, unit: str, said: str) -> None:
    assert msgspec.structs.replace(SIGNALS["recall@10"], unit=unit).say(value) == said


def test_a_change_of_a_share_is_in_points() -> None:
    assert SIGNALS["recall@10"].say_change(0.0811) == "8.1 points"
    assert SIGNALS["ndcg@10"].say_change(0.1593) == "0.159"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0"), (0.2353, "0.235"), (0.07254, "0.0725"), (4.2, "4.20"), (-12.34, "-12.3"), (145.4, "145"),
        (1234.5, "1,234"), (0.00001, "0.0000"),
    ],
)  # fmt: skip
def test_a_number_has_three_digits(value: float, said: str) -> None:
    assert say_number(value) == said


def test_lengths_of_time_are_said_in_the_unit_that_fits() -> None:
    assert [say_length(each) for each in (3.2, 59, 61, 86_400 * 3)] == ["3.2 s", "59 s", "1 min", "3 d"]
