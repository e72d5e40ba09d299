"""Erasing a user from a learner and from its checkpoints leaves what would be there without that user's rows."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from learner.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint
from learner.erased import holds_user, without_user
from schemas.settings import Settings
from tests.learner.builders import (
    NAMES,
    START,
    everything,
    example,
    put,
    small_learner,
    small_settings,
    started,
    stream,
)


@pytest.fixture
def settings() -> Settings:
    return small_settings(probe_rows=20, probe_share=0.3, probe_window=50)


def test_a_checkpoint_rewritten_without_a_user_is_the_one_that_the_erased_learner_writes(
    settings: Settings, tmp_path: Path
) -> None:
    learner = started(100, settings)
    learner.save(tmp_path / "old", {})
    assert holds_user(tmp_path / "old", "user-3") and not holds_user(tmp_path / "old", "nobody")
    made = without_user(read_checkpoint(tmp_path / "old"), "user-3")
    write_checkpoint(tmp_path / "new", made.tensors, made.facts)
    assert not holds_user(tmp_path / "new", "user-3")
    removed = learner.forget_user("user-3")
    assert removed.replay > 0 and removed.probes > 0
    expected, found = everything(learner, tmp_path / "erased"), read_checkpoint(tmp_path / "new").tensors
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    back = small_learner(settings)
    back.restore(tmp_path / "new")
    assert back.forget_user("user-3") == (0, 0) and back.forget_user("user-2").replay > 0


def test_who_was_never_seen_changes_nothing_by_being_erased(settings: Settings, tmp_path: Path) -> None:
    learner = started(60, settings)
    before = everything(learner, tmp_path / "before")
    assert learner.erase("nobody", START, "e") == (0, 0)
    after = everything(learner, tmp_path / "after")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_example_of_the_past_is_passed_over_in_its_place_and_later_ones_are_learnt(tmp_path: Path) -> None:
    learner, twin = small_learner(), small_learner()
    for each in (learner, twin):
        put(each, NAMES)
    twin.run.lineage = learner.run.lineage
    learner.erase("ada", START + 10, "e")
    others = [one for one in stream(NAMES, 40) if one.offset not in (5, 30)]
    past = [msgspec.structs.replace(example("item-1", offset=at), user_since=START + 5) for at in (5, 30)]
    learner.learn("shop", sorted([*others, *past], key=lambda one: one.offset))
    assert [each.refused for each in learner.erased.gone.values()] == [2]
    assert learner.run.progress["shop"].examples == 40  # they are through, so that nobody waits for them
    twin.learn("shop", others)
    assert learner.remembered == twin.remembered == {"shop": 38, "news": 0}

    new = msgspec.structs.replace(example("item-2", offset=41), user_since=START + 41)
    learner.learn("shop", [new])
    assert learner.remembered["shop"] == 39

    learner.save(tmp_path / "saved", {})
    again = small_learner()
    again.restore(tmp_path / "saved")
    again.learn("shop", [msgspec.structs.replace(example("item-1", offset=42), user_since=START + 5)])
    assert again.remembered["shop"] == 39 and [each.refused for each in again.erased.gone.values()] == [3]


def test_a_checkpoint_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpoint):
        holds_user(tmp_path, "ada")
