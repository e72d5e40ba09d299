"""What is away is said when it goes, every ten seconds, and when it is back, however often it is noticed."""

from __future__ import annotations

import pytest

from streams.outage import Outage


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("streams.outage.time.monotonic", lambda: now[0])
    return now


def test_one_line_when_it_goes_one_every_ten_seconds_and_one_when_it_is_back(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("Kafka", 300.0)
    assert not outage.is_over()
    for _ in range(250):  # ten times a second
        outage.goes_on("connection refused")
        clock[0] += 0.1
    assert outage.lasts
    assert [outage.is_over(), outage.is_over(), outage.lasts] == [True, False, False]
    assert caplog.messages == [
        "Kafka fails (for 0 s, at most 300 s are waited): connection refused",
        "Kafka fails (for 10 s, at most 300 s are waited): connection refused",
        "Kafka fails (for 20 s, at most 300 s are waited): connection refused",
        "Kafka works again, after 25.0 s",
    ]


def test_what_comes_and_goes_all_the_time_fills_no_log(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("Kafka")
    for _ in range(250):
        outage.goes_on("one broker of three refuses")
        outage.is_over()
        clock[0] += 0.1
    assert (
        caplog.messages == ["Kafka fails (for 0 s): one broker of three refuses", "Kafka works again, after 0.0 s"] * 3
    )


def test_it_says_for_how_long_it_has_lasted(clock: list[float]) -> None:
    outage = Outage("Kafka")
    assert outage.goes_on("refused") == 0.0
    clock[0] += 7.0
    assert outage.goes_on("refused") == 7.0
