"""LEARN's metrics follow the learner, and count nothing twice that it learns again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from learner.online import OnlineLearner
from schemas.settings import Kafka, Settings
from schemas.tables import Table
from schemas.topics import Topics
from streams import metrics
from streams.administration import ensure_topics
from streams.history import History
from streams.learn_metrics import LearnMetrics
from streams.store import Store, open_engine
from tests.learner.builders import NAMES, put, small_learner, small_settings, stream


@pytest.fixture
def settings(broker: str, prefix: str) -> Settings:
    found = msgspec.structs.replace(small_settings(("learn-a",)), kafka=Kafka(prefix=prefix, partitions=1))
    ensure_topics(broker, Topics(found).all(), 1)
    return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    engine = open_engine(f"sqlite:///{tmp_path / 'headstream.db'}")
    Table.metadata.create_all(engine)
    yield Store(engine, "learn", "me")
    engine.dispose()


@pytest.fixture
def learner(settings: Settings) -> OnlineLearner:
    found = small_learner(settings)
    put(found, NAMES)
    return found


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"headstream_{name}", labels)


def test_what_is_learnt_is_counted_once_though_a_checkpoint_is_gone_back_to(
    settings: Settings, broker: str, store: Store, learner: OnlineLearner, tmp_path: Path
) -> None:
    found = LearnMetrics(settings, broker, store, learner)
    steps = value("steps_total") or 0.0
    learner.save(tmp_path / "before", {})
    learner.learn("learn-a", stream(NAMES, 40))
    found.look()
    assert value("examples_total", scenario="learn-a") == 40
    assert value("steps_total") == steps + learner.run.step
    assert value("replay_rows", scenario="learn-a") == 40
    assert value("recall_at_10", scenario="learn-a") == learner.run.recall["learn-a"]
    learner.restore(tmp_path / "before")
    found.look()
    assert value("examples_total", scenario="learn-a") == 40
    learner.learn("learn-a", stream(NAMES, 16))
    found.look()
    assert value("examples_total", scenario="learn-a") == 56


def test_a_paused_scenario_and_one_that_was_rolled_back_are_told(
    settings: Settings, broker: str, store: Store, learner: OnlineLearner
) -> None:
    stance = {
        "scenario": "learn-a", "learning": "paused", "restores": 3, "good": 3, "since": time.time(), "reason": "bad",
        "pairs": 0, "difference": 0.0,
    }  # fmt: skip
    found, history = LearnMetrics(settings, broker, store, learner), History(store.engine)
    history.save_stances([stance])
    found.ask()
    assert value("learning_paused", scenario="learn-a") == value("serving_restored", scenario="learn-a") == 1
    history.save_stances([{**stance, "learning": "on", "restores": None}])
    found.ask()
    assert value("learning_paused", scenario="learn-a") == value("serving_restored", scenario="learn-a") == 0
