"""The throttle: bursts pass, floods wait, and it remembers few clients."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.gateway.throttle import Throttle


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_what_follows_is_told_when_to_come_again() -> None:
    clock = Clock()
    throttle = Throttle(0.5, 3, clock=clock)
    assert [throttle.take("a") for _ in range(4)] == [0, 0, 0, 2]
    clock.now = 2.0
    assert (throttle.take("a"), throttle.take("a")) == (0, 2)


def test_one_client_does_not_wait_for_another() -> None:
    throttle = Throttle(1.0, 1, clock=Clock())
    assert (throttle.take("a"), throttle.take("a"), throttle.take("b")) == (0, 1, 0)


def test_however_many_clients_come_few_are_remembered() -> None:
    throttle = Throttle(1.0, 1, clients=10, clock=Clock())
    for number in range(1000):
        throttle.take(str(number))
    assert len(throttle) == 10


@given(st.lists(st.floats(0, 5), max_size=60))
def test_never_do_more_calls_pass_than_the_bucket_and_the_time_allow(pauses: list[float]) -> None:
    clock = Clock()
    throttle = Throttle(2.0, 5, clock=clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += throttle.take("a") == 0
        assert passed <= 5 + 2.0 * clock.now + 1e-6
