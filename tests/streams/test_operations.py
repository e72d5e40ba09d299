"""Operations: what the gate and people want of a scenario is done once, and stays done over a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import msgspec
import numpy as np
import pytest

from learner.online import OnlineLearner
from schemas.control import Action, Control
from schemas.settings import Gate, Kafka, Settings
from schemas.tables import Table
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.checkpoints import Checkpoints, Positions
from streams.history import History
from streams.operations import Operations
from streams.outbox import Outbox
from streams.reporting import Reporter
from streams.store import Effect, Store, open_engine
from tests.learner.builders import NAMES, START, put, small_learner, small_settings, stream
from tests.learner.test_promotion import of_newcomers

HOUR = 3600.0


class Running:
    """A LEARN's operations, learner and checkpoints, as they are after a start."""

    def __init__(self, settings: Settings, broker: str, store: Store, clock: Callable[[], float]) -> None:
        self.learner: OnlineLearner = small_learner(settings)
        self.history = History(store.engine)
        self.published: list[object] = []
        positions = Positions()
        self._checkpoints = Checkpoints(settings, store, self.history, self.learner, positions)
        key = (Topics(settings).examples("shop"), 0)
        self._claims = {key: store.claim([key])[key].claim}
        self.operations = Operations(
            settings,
            self.learner,
            store,
            self.history,
            Reporter(Outbox(broker), Topics(settings).drift, self.history),
            self.published.append,
            self._write,
            clock,
        )
        place = store.positions()[key].next or 0
        facts = self._checkpoints.restore({key: place})
        if facts is not None:
            self.operations.resume(facts.extra["performed"], None)  # type: ignore[arg-type]

    def _write(self, kept: dict[str, int], effect: Effect) -> None:
        more = {"performed": self.operations.remembered(), "consolidating": None}
        self._checkpoints.write(self._claims, more, kept, effect)

    def save(self) -> None:
        self._write({}, lambda _: None)


Start = Callable[[], Running]


@pytest.fixture
def start(tmp_path: Path, broker: str, prefix: str) -> Iterator[Start]:
    """Starts LEARN's operations; each time anew, from what the one before left."""
    settings = msgspec.structs.replace(
        small_settings(),
        data=str(tmp_path),
        kafka=Kafka(prefix=prefix, partitions=1),
        gate=Gate(share=1.0, least_pairs=20, settled_seconds=50.0),
    )
    ensure_topics(broker, Topics(settings).all(), 1)
    engine = open_engine(f"sqlite:///{tmp_path / 'headstream.db'}")
    Table.metadata.create_all(engine)
    ticks = count(START + HOUR)
    yield lambda: Running(settings, broker, Store(engine, "learn", "me"), lambda: next(ticks))
    engine.dispose()


def order(action: Action, scenario: str | None = "shop", version: int | None = None, name: str = "a1") -> Control:
    return Control(
        action_id=name,
        action=action,
        scenario=scenario,
        version=version,
        author="ada",
        reason="to see",
        requested_at=START,
    )


def taught(start: Start) -> Running:
    running = start()
    put(running.learner, NAMES)
    running.learner.learn("shop", stream(NAMES, 120))
    return running


def test_an_order_that_comes_again_is_not_carried_out_again_whoever_gets_it(start: Start) -> None:
    running = taught(start)
    running.operations.perform(order("pause"))
    running.operations.perform(order("resume", name="a2"))
    running.operations.perform(order("pause"))
    assert running.learner.promotion.standings["shop"].learning
    again = start()
    again.operations.perform(order("pause"))
    assert again.learner.promotion.standings["shop"].learning
    assert {each.action_id: each.outcome for each in again.history.actions()} == {"a1": "done", "a2": "done"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (order("pause", "shoes"), 'scenario "shoes" is not one of shop, news'),
        (order("rollback"), "no version of this scenario has been good yet"),
        (order("rollback", version=7), "version 7 of shop is not kept; kept are none"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing(
    start: Start, wrong: Control, words: str
) -> None:
    running = taught(start)
    running.operations.perform(wrong)
    (action,) = running.history.actions()
    assert (action.outcome, action.detail) == ("refused", words)
    assert running.published == []
    standing = running.learner.promotion.standings["shop"]
    assert standing.learning and standing.restores is None


def test_a_rollback_serves_the_version_again_after_a_restart_too(start: Start) -> None:
    running = taught(start)
    running.operations.perform(order("promote"))
    good = running.learner.promotion.standings["shop"].good
    running.learner.learn("shop", stream(NAMES, 120, seed=1, first=1000))
    running.operations.perform(order("rollback", name="a2"))
    again = start()
    standing = again.learner.promotion.standings["shop"]
    assert (standing.restores, standing.good, standing.learning) == (good, good, False)
    assert [each.status for each in again.history.reports()] == ["rolled_back", "promoted"]


def test_what_newcomers_taught_is_taken_back_while_quality_is_down_also_after_a_restart(start: Start) -> None:
    running = taught(start)
    learner = running.learner
    running.operations.perform(order("promote"))
    good = learner.promotion.standings["shop"].good
    clicks = np.random.default_rng(0).binomial(500, [0.3] * 60 + [0.1] * 20)
    for number in clicks.tolist():
        learner.monitor.observe("shop", "click_rate", 500, number, START)
    assert learner.monitor.verdicts("shop")["click_rate"].state == "alarm"
    running.operations.heed()
    assert learner.promotion.standings["shop"].restores is None  # tastes of known users: they are followed
    running.save()
    again = start()
    for turn in range(20):
        again.learner.learn("shop", of_newcomers(stream(NAMES, 40, seed=turn, first=1000 + turn * 100)))
    again.operations.heed()
    assert again.learner.promotion.standings["shop"].restores == good
    newest = again.history.reports()[0]
    assert (newest.status, newest.signal) == ("rolled_back", "click_rate")
    assert newest.reason.startswith("Click rate fell while")
