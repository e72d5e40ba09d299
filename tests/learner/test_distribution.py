"""A stream that is made up in another way is told of once, and an unchanged one never, however long it goes on."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.distribution import (
    REFERENCE,
    WINDOW,
    Codes,
    Distribution,
    DistributionState,
    Measure,
    cosine_distance,
    counted,
    jensen_shannon,
)
from learner.finding import Finding, Verdict

SHARES = Measure(counted, jensen_shannon, 0.02)
CODES = 300


def drawn(count: int, seed: int = 0, first: int = 0) -> Codes:
    """Codes with a heavy tail, in sessions of about ten of the same neighbourhood."""
    generator = np.random.default_rng(seed)
    heads = np.repeat((CODES ** generator.random(count // 10 + 1)).astype(np.int64), 10)[:count]
    return first + (heads + generator.integers(0, 5, count)) % CODES


def fed(codes: Codes, measure: Measure = SHARES, pieces: int = 64) -> tuple[Distribution, list[Finding]]:
    detector, findings = Distribution(measure), []
    for start in range(0, len(codes), pieces):
        findings += detector.observe(codes[start : start + pieces])
    return detector, findings


def test_divergence_is_0_of_equal_shares_and_1_of_what_has_nothing_in_common() -> None:
    first = np.array([[2.0, 6.0, 0.0], [1.0, 1.0, 0.0]])
    second = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 5.0]])
    assert jensen_shannon(first, second) == pytest.approx([0.0, 1.0])
    assert cosine_distance(first, 3 * first) == pytest.approx([0.0, 0.0])


def test_the_most_frequent_codes_are_told_apart_and_all_others_are_the_rest() -> None:
    chooser = np.repeat(np.arange(60), np.arange(60) + 1)
    rows = counted(np.array([59, 5, 1000, 10]), chooser)
    assert rows.shape == (4, 51)
    assert rows.argmax(1).tolist() == [49, 50, 50, 0]  # 10 to 59 are the fifty


def test_ten_times_the_rows_of_an_unchanged_stream_raise_no_alarm() -> None:
    for seed in range(3):
        assert fed(drawn(100_000, seed))[1] == []


def test_a_shift_is_told_of_once_and_becomes_what_is_compared_with() -> None:
    codes = np.concatenate([drawn(8_000, 1), drawn(20_000, 2, first=200)])
    detector, found = fed(codes)
    assert [(each.status, each.because.startswith("it has settled")) for each in found] == [
        ("alarm", False),
        ("cleared", True),
    ]
    assert found[0].value > found[0].threshold
    assert found[0].window == WINDOW
    assert detector.verdict.state == "steady"


def test_a_shift_that_ends_is_cleared_as_back() -> None:
    codes = np.concatenate([drawn(8_000, 1), drawn(4_000, 2, first=200), drawn(10_000, 3)])
    assert [(each.status, each.because) for each in fed(codes)[1]][1:] == [("cleared", "it is back")]


def test_too_few_events_and_events_of_one_kind_have_no_result() -> None:
    assert fed(drawn(REFERENCE))[0].verdict == Verdict("none", f"too few events: 4,000 of {REFERENCE + WINDOW:,}")
    assert fed(np.zeros(9_000, np.int64))[0].verdict == Verdict("none", "no result: all events are of one kind")
    assert fed(np.zeros(0, np.int64))[1] == []


def test_vectors_that_turn_are_a_shift() -> None:
    places = np.random.default_rng(0).normal(size=(CODES + 200, 8)) + np.repeat(
        [[2.0] + [0.0] * 7, [0.0] * 7 + [2.0]], [CODES, 200], 0
    )
    measure = Measure(lambda codes, _: places[codes], cosine_distance, 0.02)
    assert fed(drawn(30_000), measure)[1] == []
    turned = np.concatenate([drawn(8_000), CODES + drawn(6_000) % 200])
    assert [each.status for each in fed(turned, measure)[1]][:1] == ["alarm"]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.integers(0, 16_000))
def test_one_that_was_restored_says_the_same_from_then_on(seed: int, stop: int) -> None:
    codes = np.concatenate([drawn(8_000, seed), drawn(9_000, seed + 1, first=100)])
    whole, expected = fed(codes, pieces=50)
    stop -= stop % 50
    before, found = fed(codes[:stop], pieces=50)
    resumed = Distribution(SHARES)
    resumed.load(msgspec.json.decode(msgspec.json.encode(before.state), type=DistributionState))
    found += resumed.observe(codes[stop:])
    assert found == expected
    assert resumed.state == whole.state


def test_a_forgotten_code_is_nowhere() -> None:
    detector, _ = fed(drawn(9_500))
    detector.forget(3)
    state = detector.state
    assert not any(3 in codes for codes in (state.reference, state.window, state.successor))
    assert detector.observe(drawn(5_000, 9)) == []
