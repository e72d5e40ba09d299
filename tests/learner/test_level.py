"""A level's fall is told of once, an unchanged level never, and a restored detector says what one that ran on says."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.drift import clicks
from learner.finding import Finding, Verdict
from learner.level import BATCH, LEAST_BATCHES, MOST_BATCHES, MOST_BLOCKS, Change, Level, LevelState

HIGHER = Change("higher", 0.02, 0.1)
Values = NDArray[np.float64]


def fed(values: Values, change: Change = HIGHER, pieces: int = 64) -> tuple[Level, list[Finding]]:
    level, findings = Level(change), []
    for start in range(0, len(values), pieces):
        findings += level.observe(values[start : start + pieces])
    return level, findings


def said(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(each.status, each.because if each.status == "cleared" else "") for each in findings]


def outcomes(*stretches: tuple[float, int], seed: int = 0) -> Values:
    """Of so many trials each, that succeed with this chance."""
    generator = np.random.default_rng(seed)
    return np.concatenate([(generator.random(count) < rate).astype(float) for rate, count in stretches])


def test_sessions_in_which_nothing_changes_raise_no_alarm() -> None:
    for seed in range(2):
        assert fed(clicks(200_000, 50, seed))[1] == []


def test_a_click_rate_that_falls_is_found_in_time_and_settles() -> None:
    falling = clicks(60_000, 50, 7, fall=40_000)
    found = fed(falling)[1]
    assert said(found) == [("alarm", ""), ("cleared", "it has settled at a new level")]
    alarm = found[0]
    assert alarm.value < 0.25 < 0.27 < alarm.reference
    assert alarm.reference - alarm.value >= alarm.threshold >= HIGHER.least(alarm.reference)
    assert fed(falling[:43_500])[1] == found[:1]


def test_what_falls_and_comes_back_is_cleared_as_back() -> None:
    found = fed(outcomes((0.4, 12_000), (0.2, 2_000), (0.4, 8_000)))[1]
    assert said(found) == [("alarm", ""), ("cleared", "it is back")]


def test_each_fall_is_one_alarm() -> None:
    found = fed(outcomes((0.6, 12_000), (0.4, 12_000), (0.2, 12_000)))[1]
    assert [each.status for each in found] == ["alarm", "cleared"] * 2


@pytest.mark.parametrize(("change", "alarms"), [(HIGHER, 0), (Change("lower", 0.02), 1), (Change("steady", 0.02), 1)])
def test_only_a_change_for_the_worse_counts(change: Change, alarms: int) -> None:
    found = fed(outcomes((0.3, 12_000), (0.5, 6_000)), change)[1]
    assert sum(each.status == "alarm" for each in found) == alarms


def test_a_change_that_is_too_small_to_count_is_none_however_long_it_lasts() -> None:
    assert fed(outcomes((0.50, 20_000), (0.46, 200_000)), Change("higher", 0.1))[1] == []


def test_a_slow_fall_counts_in_the_end() -> None:
    rates = np.linspace(0.5, 0.3, 40)
    found = fed(outcomes((0.5, 10_000), *((float(rate), 1000) for rate in rates)))[1]
    assert next(each.status for each in found) == "alarm"


def test_before_there_are_enough_observations_nothing_is_said_and_that_is_said() -> None:
    level, found = fed(outcomes((0.9, 1000), (0.1, 1000)))
    assert found == []
    assert level.verdict == Verdict("none", f"too few observations: 2,000 of {LEAST_BATCHES * BATCH:,}")
    assert Level(HIGHER).verdict.state == "none"


def test_of_a_constant_there_is_no_result_until_it_changes() -> None:
    level, found = fed(np.zeros(10_000))
    assert found == []
    assert level.verdict == Verdict("none", "no result: it is always the same, 0")
    assert [each.status for each in fed(np.repeat([0.0, 1.0], [10_000, 1000]), Change("lower", 0.05))[1]] == ["alarm"]


def test_a_steady_level_says_where_it_is() -> None:
    level, _ = fed(outcomes((0.4, 6000)))
    assert level.verdict.state == "steady"
    assert level.verdict.reason.startswith("at 0.4")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 300), st.integers(1, 300))
def test_however_the_stream_is_cut_the_same_is_found(seed: int, one: int, other: int) -> None:
    values = outcomes((0.5, 5_000), (0.2, 3_000), seed=seed)
    first, second = fed(values, pieces=one), fed(values, pieces=other)
    assert first[1] == second[1]
    assert first[0].state == second[0].state


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 22_000))
def test_one_that_was_restored_says_the_same_from_then_on(seed: int, stop: int) -> None:
    values = outcomes((0.5, 12_000), (0.3, 3_000), (0.45, 7_000), seed=seed)
    whole, expected = fed(values, pieces=37)
    stop -= stop % 37
    before, found = fed(values[:stop], pieces=37)
    kept = msgspec.json.decode(msgspec.json.encode(before.state), type=LevelState)
    resumed = Level(HIGHER)
    resumed.load(kept)
    for start in range(stop, len(values), 37):
        found += resumed.observe(values[start : start + 37])
    assert found == expected
    assert resumed.state == whole.state


def test_sums_of_many_observations_are_watched_as_well() -> None:
    level, found = Level(Change("higher", 0.01, 0.1)), []
    generator = np.random.default_rng(0)
    for number in range(120):
        lists = int(generator.integers(1, 900))
        found += level.add(lists, float(generator.binomial(lists, 0.3 if number < 80 else 0.2)))
    assert [each.status for each in found][:1] == ["alarm"]


def test_its_state_grows_no_further() -> None:
    level, _ = fed(outcomes((0.4, 150_000)))
    assert len(level.state.blocks) < MOST_BLOCKS
    assert len(level.state.batches) == MOST_BATCHES
    assert len(msgspec.json.encode(level.state)) < 12_000
