"""The supervisor starts again what dies: after growing pauses while it dies often, at once after it has worked long."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams import supervisor
from streams.supervisor import DEATHS_ALLOWED, Child, KeepsDying


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    """One that dies as soon as it is started."""
    command = [sys.executable, "-c", "print('no luck'); raise SystemExit(3)"]
    made = Child("serve", command, os.environ, tmp_path / "serve.log")
    made.start()
    yield made
    made.reap(time.monotonic())


def await_death(child: Child) -> float:
    """See it die, and return for how many seconds it is left alone."""
    deadline = time.monotonic() + 30
    while child.process is None:
        child.check()
    while child.process is not None:
        assert time.monotonic() < deadline
        child.check()
    return child.start_at - time.monotonic()


def test_who_dies_often_is_given_up_with_its_last_words(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 0.02))
    for _ in range(DEATHS_ALLOWED - 1):
        await_death(child)
    with pytest.raises(KeepsDying, match="exit code 3") as given_up:
        await_death(child)
    assert "no luck" in str(given_up.value)


def test_who_died_long_ago_starts_again_as_quickly_as_at_first(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "DEATHS_WINDOW_SECONDS", 0.0)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 15.0))
    assert max(await_death(child) for _ in range(DEATHS_ALLOWED + 2)) <= 0.01
