"""Figures: sums of the whole run, rates of the recent past, bounded memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.figures import LATENCIES_KEPT, WINDOW_SECONDS, Clicks, Latency, Ledger


def test_a_ledger_that_nobody_wrote_in_has_no_rates() -> None:
    figures = Ledger().figures(0.0)
    assert (figures.events, figures.recommendations, figures.unanswered, figures.undelivered) == (0, 0, 0, 0)
    assert (figures.model.rate, figures.recent_control.rate, figures.latency) == (None, None, None)


def test_rates_are_of_the_last_minute_and_sums_of_the_whole_run() -> None:
    ledger = Ledger()
    for second in range(120):
        for _ in range(2 if second < 60 else 5):
            ledger.event(second + 0.5)
        ledger.recommendation(second + 0.5)
        ledger.reading(second + 0.5, Clicks(10, 1 if second < 60 else 4), control=False)
        ledger.reading(second + 0.5, Clicks(5, 1), control=True)
    figures = ledger.figures(120.0)
    assert figures.events == 60 * 2 + 60 * 5
    assert figures.events_per_second == 5.0
    assert figures.recommendations_per_second == 1.0
    assert figures.model.rate == 0.25
    assert figures.recent_model.rate == 0.4
    assert figures.recent_control == Clicks(60 * 5, 60)


def test_a_pause_makes_the_recent_rates_fall_to_nothing() -> None:
    ledger = Ledger()
    ledger.event(1.0)
    ledger.reading(1.0, Clicks(4, 1), control=True)
    figures = ledger.figures(1.0 + WINDOW_SECONDS + 1)
    assert (figures.events_per_second, figures.recent_control.rate, figures.control.rate) == (0.0, None, 0.25)


def test_latency_is_told_in_milliseconds_at_the_middle_and_near_the_worst() -> None:
    ledger = Ledger()
    for tick in range(1, 101):
        ledger.latency(tick / 128)
    assert ledger.figures(1.0).latency == Latency(51 / 128 * 1000, 100 / 128 * 1000)


def test_old_latencies_give_way_to_new_ones() -> None:
    ledger = Ledger()
    ledger.latency(9.0)
    for _ in range(LATENCIES_KEPT):
        ledger.latency(0.5)
    assert ledger.figures(1.0).latency == Latency(500.0, 500.0)


@given(st.lists(st.floats(0, 400), max_size=80).map(sorted))
def test_the_recent_rate_counts_exactly_the_whole_seconds_of_the_window(times: list[float]) -> None:
    ledger = Ledger()
    for at in times:
        ledger.event(at)
    now = int(times[-1]) if times else 7
    expected = sum(now - WINDOW_SECONDS <= int(at) < now for at in times) / max(1, min(now, WINDOW_SECONDS))
    assert ledger.figures(float(now)).events_per_second == pytest.approx(expected)
    assert ledger.figures(float(now)).events == len(times)
