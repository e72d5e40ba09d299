"""The judge of a story: what it takes for a chapter that came to pass, on a real Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from schemas.recommendations import ModelVersion, Recommendation, RecommendedItem, Trigger, encode_recommendation
from schemas.reports import DriftReport, encode_report
from schemas.settings import Kafka, Settings
from schemas.times import say_time
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.story import Chapter, Clicked, Judge, Script, said

SCRIPT = Script(shift_at=0.0, flood_at=0.0, poison_at=0.0)


class Stage:
    """A judge who reads, and a hand that writes what it should see."""

    def __init__(self, broker: str, prefix: str) -> None:
        self.topics = Topics(Settings(kafka=Kafka(broker=broker, prefix=prefix)))
        ensure_topics(broker, self.topics.all(), replication=1)
        self.judge = Judge(broker, self.topics, SCRIPT)
        self._producer = Producer({"bootstrap.servers": broker})
        self._stop = threading.Event()
        self._reading = threading.Thread(target=self.judge.run, args=(self._stop,))
        self._reading.start()
        self._numbers = 0

    def report(self, scenario: str, status: str, signal: str = "recall@10") -> None:
        self._numbers += 1
        report = DriftReport(
            report_id=str(self._numbers), scenario=scenario, signal=signal, status=status, severity="page", value=None,
            reference=None, threshold=None, window=0, detected_at=say_time(time.time()), action="", reason="",
        )  # fmt: skip
        self._producer.produce(self.topics.drift, encode_report(report))
        self._producer.flush()

    def show(self, scenario: str, item: str, restores: int | None = None) -> None:
        answer = Recommendation(
            recommendation_id="r", user_id="u", scenario=scenario, generated_at=say_time(time.time()),
            items=[RecommendedItem(item, 1.0, "model")], trigger=Trigger("t", 0, 0),
            model=ModelVersion(9, 9, restores), trained_through={}, index_sequence=0,
        )  # fmt: skip
        self._producer.produce(self.topics.recommendations(scenario), encode_recommendation(answer))
        self._producer.flush()

    def chapter(self, words: str, seen: bool = True) -> Chapter:
        """The chapter with these words, once it is as wanted."""
        for _ in range(300):
            (found,) = [each for each in self.judge.chapters() if words in each["expected"]]
            if found["seen"] == seen:
                return found
            time.sleep(0.1)
        raise AssertionError(found)

    def close(self) -> None:
        self._stop.set()
        self._reading.join()


@pytest.fixture
def stage(broker: str, prefix: str) -> Iterator[Stage]:
    made = Stage(broker, prefix)
    # The judge reads on from where the topics end once it is there, so it is told something until it has heard it.
    for _ in range(300):
        made.report("travel", "cleared")
        time.sleep(0.1)
        if made.judge.heard:
            break
    yield made
    made.close()


def test_nothing_has_come_to_pass_before_anything_was_said(stage: Stage) -> None:
    assert [each["seen"] for each in stage.judge.chapters()] == [False] * 7 + [True]
    assert not stage.judge.complete


def test_a_rollback_is_seen_in_the_reports_and_in_the_lists(stage: Stage) -> None:
    stage.report("shop", "rolled_back")
    stage.show("shop", "shop-00001", restores=7)
    assert stage.chapter("rolled back by itself")["after_seconds"] is not None
    assert stage.chapter("the good version is served again")["seen"]
    stage.report("shop", "promoted")
    assert stage.chapter("what is learnt afterwards")["seen"]


def test_a_rollback_of_another_scenario_is_held_against_it(stage: Stage) -> None:
    stage.report("travel", "rolled_back")
    assert not stage.chapter("no other scenario", seen=False)["seen"]


def test_an_alarm_counts_for_its_scenario_and_a_flood_is_noted_by_inputs(stage: Stage) -> None:
    stage.report("travel", "alarm")
    stage.report("news", "alarm", "new_items")
    assert stage.chapter("the flood is noted")["seen"]
    assert not stage.chapter("tastes shift", seen=False)["seen"]
    stage.report("video", "alarm")
    assert stage.chapter("tastes shift")["seen"]


def test_clicks_per_list_are_those_of_the_windows_that_are_asked_for() -> None:
    clicked = Clicked(lists={0: 10, 1: 10, 2: 20}, clicks={0: 5, 2: 1})
    assert clicked.rate(0, 1) == 0.25
    assert clicked.rate(2, 2) == 0.05
    assert clicked.rate(3, 9) is None


def test_chapters_are_told_in_words() -> None:
    chapters: list[Chapter] = [
        {"expected": "it rains", "seen": True, "after_seconds": 2.4},
        {"expected": "it snows", "seen": False, "after_seconds": None},
    ]
    assert said(chapters) == ["seen    it rains (after 2 s)", "not yet it snows"]
