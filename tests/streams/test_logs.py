"""Logs: what a library repeats many times a second is written seldom, and nothing else is held back."""

from __future__ import annotations

import logging

import pytest

from streams.logs import Seldom


def record(name: str, message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, None)


def test_the_same_message_of_a_chatty_library_passes_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("streams.logs.time.monotonic", lambda: now)
    seldom = Seldom("aiokafka")
    said = ("aiokafka.consumer.fetcher", "Failed fetch from %s: %s")
    assert [bool(seldom.filter(record(*said, 1, f"attempt {number}"))) for number in range(3)] == [True, False, False]
    assert seldom.filter(record("aiokafka.consumer.group_coordinator", said[1], 1, "another part of it"))
    assert seldom.filter(record(said[0], "another message"))
    assert all(seldom.filter(record("streams.worker", "the database fails")) for _ in range(3))
    now = 10.0
    assert seldom.filter(record(*said, 1, "still"))
