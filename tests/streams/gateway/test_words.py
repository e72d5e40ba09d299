"""Words of the dashboard: numbers as people read them."""

from __future__ import annotations

import pytest

from streams.gateway.words import counted, listed, say, say_length, say_utc


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (None, "share", "no data"),
        (0.0, "share", "0.0 %"),
        (0.3149, "share", "31.5 %"),
        (0.0004, "share of records", "0.04 %"),
        (0.1184, "clicks per list", "0.118"),
        (9.2, "milliseconds", "9 ms"),
        (2345.0, "milliseconds", "2.3 s"),
        (0.42, "seconds", "0.4 s"),
        (7300.0, "seconds", "2 h"),
        (5200.0, "events", "5,200"),
        (0.0, "events", "0"),
        (38.2, "examples per second", "38/s"),
    ],
)
def test_a_number_is_said_with_its_unit(value: float | None, unit: str, said: str) -> None:
    assert say(value, unit) == said


def test_lists_and_counts_are_said_as_people_do() -> None:
    assert [listed(each) for each in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert [counted(1, "scenario"), counted(3, "scenario is", "scenarios are")] == ["1 scenario", "3 scenarios are"]


def test_times_are_said_to_the_second() -> None:
    assert say_utc(1_790_000_000) == "21 Sep 2026 14:13:20 UTC"
    assert [say_length(each) for each in (3.2, 59, 61, 86_400 * 3)] == ["3.2 s", "59 s", "1 min", "3 d"]
