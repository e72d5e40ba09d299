"""What SERVE measures of itself arrives in the database, late where that fails, and the lag is that of all."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch
from confluent_kafka import Producer

from schemas.settings import Settings
from schemas.tables import Table
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.exposure import Exposure
from streams.history import History, Measured
from streams.mirror import Mirror
from streams.serve_series import ServeSeries
from streams.store import Progress, Store, open_engine
from tests.streams.builders import settings_of
from tests.system.installation import until

NOW = 1_700_000_000.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_engine(f"sqlite:///{tmp_path / 'headstream.db'}")
    Table.metadata.create_all(engine)
    yield Store(engine, "serve", "me")
    engine.dispose()


@pytest.fixture
def settings(broker: str, prefix: str) -> Settings:
    found = settings_of(prefix)
    ensure_topics(broker, Topics(found).all(), 1)
    return found


def make(settings: Settings, broker: str, store: Store) -> ServeSeries:
    mirror = Mirror(settings, torch.device("cpu"))
    return ServeSeries(settings, broker, store, mirror, Exposure(mirror, NOW))


def total(store: Store, signal: str) -> float:
    points = History(store.engine).series("shop", [signal], NOW - 100, NOW + 1000).points[signal]
    return sum(each.mean * each.observations for each in points)


def test_what_a_failing_database_does_not_take_is_written_later(
    settings: Settings, broker: str, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    series = make(settings, broker, store)
    with store.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE series RENAME TO elsewhere"))
    with caplog.at_level(logging.WARNING):
        series.write([Measured.one("shop", "recommendations", NOW, 3.0)])
    assert "what was measured is not written yet: no such table: series" in caplog.text
    with store.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE elsewhere RENAME TO series"))
    series.write([Measured.one("shop", "recommendations", NOW + 5, 4.0)])
    series.write([])
    assert total(store, "recommendations") == 7.0


def test_the_lag_counts_what_no_process_has_worked(settings: Settings, broker: str, store: Store) -> None:
    topic = Topics(settings).events("shop")
    producer = Producer({"bootstrap.servers": broker})
    for number in range(10):
        producer.produce(topic, b"{}", partition=number % 2)
    assert producer.flush(20) == 0
    claim = store.claim([(topic, 0)])[topic, 0].claim
    store.commit([Progress(topic, 0, 0, 3, claim)], lambda _: None)
    series = make(settings, broker, store)
    # A partition that was just made may have no leader yet, and then the lag is not known for a moment.
    found = until(series._behind, "the lag is known", 20)
    assert {each.scenario: each.total for each in found} == {"shop": 7.0, "video": 0.0}


def test_without_a_broker_the_lag_is_not_known_and_the_rest_is_written(
    settings: Settings, store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.lag.TIMEOUT_SECONDS", 0.5)
    series = make(settings, "127.0.0.1:1", store)
    with caplog.at_level(logging.WARNING):
        series.write([Measured.one("shop", "recommendations", NOW, 3.0)])
    assert "the lag is not known" in caplog.text
    assert total(store, "recommendations") == 3.0
