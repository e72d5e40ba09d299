"""Streams that a learner meets and textbooks don't: it must go on, stay finite, and answer."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from learner.online import OnlineLearner
from schemas.items import Item
from schemas.packed import pack, pack_times, unpack
from schemas.records import Example
from tests.learner.builders import (
    ENCODER_DIMENSION,
    START,
    example,
    put,
    random_texts,
    small_learner,
    small_settings,
    stream,
)
from tests.learner.test_online import NAMES, top


def one_item(learner: OnlineLearner) -> None:
    put(learner, ["only"])
    learner.learn("shop", [example("only", offset=offset, user=f"user-{offset}") for offset in range(40)])


def one_user(learner: OnlineLearner) -> None:
    put(learner, NAMES)
    names = [NAMES[offset % 30] for offset in range(120)]
    learner.learn(
        "shop", [example(name, names[max(0, at - 5) : at], offset=at, user="ada") for at, name in enumerate(names)]
    )


def no_text(learner: OnlineLearner) -> None:
    put(learner, NAMES, torch.zeros(len(NAMES), ENCODER_DIMENSION))
    learner.learn("shop", stream(NAMES, 80))


def the_same_text(learner: OnlineLearner) -> None:
    put(learner, NAMES, random_texts(1).expand(len(NAMES), -1))
    learner.learn("shop", stream(NAMES, 80))


def all_items_cold(learner: OnlineLearner) -> None:
    names = [f"new-{number}" for number in range(80)]
    put(learner, names)
    learner.learn("shop", [example(name, names[:at][-5:], offset=at) for at, name in enumerate(names)])


def times_going_backwards(learner: OnlineLearner) -> None:
    put(learner, NAMES)
    learner.learn("shop", [backwards(each) for each in stream(NAMES, 80)])


def backwards(lesson: Example) -> Example:
    """Each event before the last one, and before all of its own history."""
    later = pack_times([START + 1e6 + place for place in range(len(unpack(lesson.history)))])
    return msgspec.structs.replace(lesson, time=START - lesson.offset, history_times=later)


def one_timestamp(learner: OnlineLearner) -> None:
    """Case P8."""
    put(learner, NAMES)
    learner.learn("shop", [at_once(each) for each in stream(NAMES, 80)])


def at_once(lesson: Example) -> Example:
    """Each event at the same second as all others."""
    times = pack_times([START] * len(unpack(lesson.history)))
    return msgspec.structs.replace(lesson, time=START, history_times=times)


def ids_never_announced(learner: OnlineLearner) -> None:
    """Case P7."""
    put(learner, NAMES[::2])
    learner.learn("shop", stream(NAMES, 80))


@pytest.mark.parametrize(
    "happens",
    [
        one_item,
        one_user,
        no_text,
        the_same_text,
        all_items_cold,
        times_going_backwards,
        one_timestamp,
        ids_never_announced,
    ],
    ids=lambda each: each.__name__,
)
def test_it_goes_on_and_answers(happens: Callable[[OnlineLearner], None]) -> None:
    learner = small_learner()
    happens(learner)
    assert learner.run.step > 0
    assert learner.run.skipped_steps == 0
    for name, tensor in learner._trainer.tower.state_dict().items():
        assert tensor.isfinite().all(), name
    assert learner.table.vectors.isfinite().all()
    known = len(learner.table)
    assert len(set(top(learner, [], [], START + 1000))) == min(10, known)
    history = list(learner.table.row_of)[:3]
    assert len(top(learner, history, [], START + 1000)) == min(10, known)


def test_one_user_with_a_hundred_thousand_events_takes_no_more_room_than_another() -> None:
    learner = small_learner()
    put(learner, NAMES)
    long = [NAMES[offset % 30] for offset in range(100_000)]
    lesson = Example(
        partition=0,
        offset=0,
        user_id="ada",
        time=START + 100_000,
        event="view",
        item_id=NAMES[0],
        weight=1.0,
        history=pack(long),
        history_times=pack_times([START + number for number in range(100_000)]),
        excluded=pack(NAMES[1:]),
    )
    assert learner.learn("shop", [lesson]) == 1
    assert learner._replay.sample(1, torch.Generator()).history.shape == (1, 5)
    assert learner.run.recall["shop"] == 1.0


@pytest.mark.parametrize("never_seen", ["item-1x", "item-05", "item-31", "item", "7", "0", " item-3", "Item-3"])
def test_an_id_never_seen_is_nobody_else(never_seen: str) -> None:
    """Case M40: it is not taken for its neighbour in any order, nor is a number for a place."""
    learner = small_learner()
    put(learner, [*NAMES, "6", "8"])
    learner.learn("shop", stream(NAMES, 80))
    cold = top(learner, [], [], START + 100)
    assert top(learner, [never_seen], [], START + 100) == cold
    assert top(learner, [], [never_seen], START + 100) == cold
    assert top(learner, [never_seen, "item-3"], [], START + 100) == top(learner, ["item-3"], [], START + 100)


def test_an_item_whose_text_changes_keeps_what_was_learnt_of_it() -> None:
    learner = small_learner()
    put(learner, NAMES)
    learner.learn("shop", stream(NAMES, 80))
    row = learner.table.row_of["item-3"]
    learnt = learner.table.vectors[row] - learner._texts.state()["projected"][row]
    text = random_texts(1, seed=9)
    learner.put_items([Item(item_id="item-3", title="Quite another thing")], text)
    projected = learner._texts.state()["projected"][row]
    assert torch.equal(projected, learner._projection.apply(text)[0])
    torch.testing.assert_close(learner.table.vectors[row] - projected, learnt)


def test_what_a_scenario_that_has_stopped_taught_is_replayed_on_while_its_own_head_stands_still() -> None:
    trunks = []
    for replay_batch in (8, 0):
        learner = small_learner(small_settings(replay_batch=replay_batch))
        put(learner, NAMES)
        learner.learn("news", stream(NAMES, 40))
        head = learner._trainer.tower.heads.vector[1].clone()
        learner.learn("shop", stream(NAMES, 200, seed=1))
        assert learner._replay.filled(1) == 40
        assert torch.equal(learner._trainer.tower.heads.vector[1], head)
        trunks.append(learner._trainer.tower.trunk.out.weight)
    assert not torch.equal(*trunks)


def test_a_scenario_beside_a_flooded_one_keeps_its_rows() -> None:
    learner = small_learner()
    put(learner, NAMES)
    learner.learn("news", stream(NAMES, 10))
    learner.learn("shop", stream(NAMES, 900, seed=1))
    assert (learner._replay.filled(0), learner._replay.filled(1)) == (40, 10)
    drawn = learner._replay.sample(2000, torch.Generator().manual_seed(0)).scenario
    assert 0.45 < float((drawn == 1).float().mean()) < 0.55


def test_a_broken_scenario_does_not_stop_another() -> None:
    learner = small_learner()
    put(learner, NAMES)
    learner.learn("shop", stream(NAMES, 40))
    learner.learn("shop", [example("item-1", NAMES[2:5], offset=100, weight=float("inf"))])
    assert learner.run.skipped_steps > 0
    step = learner.run.step
    assert learner.learn("news", stream(NAMES, 40, seed=2)) == 40
    assert learner.run.step == step + 5
