"""Words of the dashboard, as people read them."""

from __future__ import annotations

from streams.gateway.words import counted, listed, say_utc


def test_lists_and_counts_are_said_as_people_do() -> None:
    assert [listed(each) for each in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert [counted(1, "scenario"), counted(3, "scenario is", "scenarios are")] == ["1 scenario", "3 scenarios are"]


def test_times_are_said_to_the_second() -> None:
    assert say_utc(1_790_000_000) == "21 Sep 2026 14:13:20 UTC"
