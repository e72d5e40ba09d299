"""A load that is several times what it was is told of once, and nothing observed is not that all is well."""

from __future__ import annotations

import msgspec

from learner.finding import Finding, Verdict
from learner.load import KEPT, LEAST_BEFORE, RECENT, Limit, Load, LoadState


def ticked(values: list[float], limit: Limit | None = None, count: float = 10.0) -> tuple[Load, list[Finding]]:
    load, found = Load(limit or Limit(100.0)), []
    for value in values:
        load.add(count, count * value)
        found += load.tick()
    return load, found


def test_what_becomes_several_times_as_much_is_one_alarm_and_what_falls_again_is_back() -> None:
    found = ticked([50.0] * 30 + [400.0] * 20 + [50.0] * 10)[1]
    assert [(each.status, each.value, each.reference) for each in found] == [
        ("alarm", found[0].value, 50.0),
        ("cleared", 50.0, 50.0),
    ]
    assert found[0].value > found[0].threshold == 150.0
    assert found[1].because == "it is back"


def test_what_stays_is_the_new_level_in_the_end() -> None:
    found = ticked([50.0] * 30 + [400.0] * KEPT)[1]
    assert [(each.status, each.because) for each in found][1:] == [("cleared", "it has settled at a new level")]


def test_where_an_alarm_would_begin_can_be_asked_for() -> None:
    assert ticked([50.0] * 30)[0].verdict == Verdict("steady", "at 50", high=150.0)
    assert ticked([1.0] * 30)[0].verdict.high == 100.0  # less is harmless
    assert ticked([50.0] * 30 + [400.0] * 10)[0].verdict == Verdict("alarm", "at 400; it was 50", high=150.0)


def test_what_is_harmless_is_never_told() -> None:
    assert ticked([1.0] * 40 + [90.0] * 40)[1] == []


def test_a_wild_value_is_no_alarm() -> None:
    assert ticked(([50.0] * 9 + [1e9]) * 20)[1] == []


def test_nothing_observed_is_no_reading() -> None:
    load, _ = ticked([50.0] * 3)
    for _ in range(50):
        assert load.tick() == []
    assert load.verdict == Verdict("none", f"too few readings: 3 of {LEAST_BEFORE + RECENT}")
    few, _ = ticked([0.5] * 100, Limit(0.02, fewest=20.0), count=1.0)
    assert len(few.state.ticks) == 5  # of twenty observations each


def test_one_that_was_restored_says_the_same_from_then_on() -> None:
    values = [50.0] * 30 + [400.0] * 20 + [50.0] * 10
    for stop in range(0, len(values), 7):
        before, found = ticked(values[:stop])
        resumed = Load(Limit(100.0))
        resumed.load(msgspec.json.decode(msgspec.json.encode(before.state), type=LoadState))
        for value in values[stop:]:
            resumed.add(10.0, 10.0 * value)
            found += resumed.tick()
        assert found == ticked(values)[1]
    assert before.verdict.state in ("steady", "alarm")
