"""A learner that stops and goes on, and one that never stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learner.checkpoint import Checkpoint, CheckpointMismatch
from learner.online import OnlineLearner
from schemas.records import OtherVersion
from schemas.settings import Settings
from tests.learner.builders import NAMES, put, random_texts, small_learner, small_settings, started, stream
from tests.learner.going_on import SETTINGS, STEPS, first_half, second_half


def test_fifty_steps_and_fifty_in_another_process_are_a_hundred(tmp_path: Path) -> None:
    straight = small_learner(SETTINGS)
    first_half(straight)
    assert straight.run.step == STEPS
    assert 0 < straight.probes.size((0, 0)) < SETTINGS.learn.probe_rows
    straight.save(tmp_path / "half", {})
    second_half(straight)
    assert straight.run.step == 2 * STEPS
    assert straight.probes.size((0, 0)) == SETTINGS.learn.probe_rows
    command = [sys.executable, "-m", "tests.learner.going_on", str(tmp_path / "half"), str(tmp_path / "whole")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=200)
    straight.save(tmp_path / "straight", {})
    # The sum of the manifest stands for every byte of tensors and facts.
    assert small_learner(SETTINGS).restore(tmp_path / "whole").step == 2 * STEPS
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("whole", "straight")]
    assert manifests[0] == manifests[1]


def test_a_restored_learner_goes_on_to_the_bit(tmp_path: Path) -> None:
    examples = stream(NAMES, 120)
    news = stream(NAMES, 40, seed=5)

    def first_half(learner: OnlineLearner) -> None:
        put(learner, NAMES)
        learner.learn("shop", examples[:60])
        learner.learn("news", news[:20])
        learner.remove_item("item-7")

    def second_half(learner: OnlineLearner) -> None:
        put(learner, ["late", "later"], random_texts(2, seed=8))
        learner.learn("shop", examples[50:])
        learner.learn("news", news[20:])

    straight = small_learner()
    first_half(straight)
    second_half(straight)
    stopped = small_learner()
    first_half(stopped)
    sha256 = stopped.save(tmp_path / "half", {"offsets": [["topic", 0, 7]]})
    resumed = small_learner()
    assert resumed.restore(tmp_path / "half").extra == {"offsets": [["topic", 0, 7]]}
    assert resumed.save(tmp_path / "again", {"offsets": [["topic", 0, 7]]}) == sha256
    second_half(resumed)
    resumed.run.lineage = straight.run.lineage = stopped.run.lineage
    assert resumed.save(tmp_path / "resumed", {}) == straight.save(tmp_path / "straight", {})
    assert (resumed.run.step, resumed.run.examples, resumed.run.recall) == (
        straight.run.step,
        straight.run.examples,
        straight.run.recall,
    )


def test_what_is_remembered_can_be_returned_to_again_and_again(tmp_path: Path) -> None:
    learner = started(60)
    memory, sha256 = learner.remember(), learner.save(tmp_path / "1", {})
    for number in range(2):
        learner.learn("news", stream(NAMES, 30, seed=number))
        put(learner, ["late"])
        learner.remove_item("item-4")
        assert learner.save(tmp_path / "2", {}) != sha256
        learner.return_to(memory)
        assert learner.save(tmp_path / "2", {}) == sha256


def test_a_stream_that_begins_counts_from_nothing_and_forgets_nothing() -> None:
    learner = started(40)
    step, vectors = learner.run.step, learner.table.vectors.clone()
    learner.run.begin_stream()
    assert (learner.run.examples, learner.run.recall) == ({"shop": 0, "news": 0}, {"shop": None, "news": None})
    assert (learner.run.step, learner.versions.republish().weights[0].clock) == (step, 40.0)
    assert torch.equal(learner.table.vectors, vectors)
    assert learner.learn("shop", stream(NAMES, 5)) == 5


def test_a_successor_goes_on_where_another_learner_stood() -> None:
    earlier, successor = started(40), started(0)
    earlier.learn("news", stream(NAMES, 10))
    earlier.versions.republish()
    successor.run.succeed(earlier.remember())
    assert successor.run.examples == {"shop": 40, "news": 10}
    assert successor.learn("shop", stream(NAMES, 42)) == 2
    assert [head.version for head in successor.versions.republish().weights] == [2, 2]
    assert successor.run.lineage != earlier.run.lineage
    other = small_learner(small_settings(("news", "travel")))
    other.run.succeed(earlier.remember())
    assert other.run.examples == {"news": 10, "travel": 0}


def test_a_learner_with_nothing_learnt_can_be_saved(tmp_path: Path) -> None:
    small_learner().save(tmp_path / "blank", {})
    learner = small_learner()
    assert learner.restore(tmp_path / "blank").extra == {}
    put(learner, NAMES)
    assert learner.learn("shop", stream(NAMES, 10)) == 10


def test_a_restored_learner_keeps_its_lineage_and_a_new_one_has_its_own(tmp_path: Path) -> None:
    learner = started(10)
    learner.save(tmp_path / "1", {})
    other = small_learner()
    assert other.run.lineage != learner.run.lineage
    other.restore(tmp_path / "1")
    assert other.run.lineage == learner.run.lineage


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (small_settings(model={"dimension": 16}), "model.dimension"),
        (small_settings(replay_rows=41), "learn.replay_rows"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_by_field(tmp_path: Path, settings: Settings, field: str) -> None:
    started(10).save(tmp_path / "1", {})
    with pytest.raises(CheckpointMismatch, match=f"the checkpoint was made with {field} = ") as raised:
        small_learner(settings).restore(tmp_path / "1")
    assert raised.value.field == field


def test_a_checkpoint_of_another_version_is_named_with_what_to_do() -> None:
    learner = started(10)
    kept = learner.remember()
    old = {name: fact for name, fact in kept.facts.items() if name != "progress"}
    with pytest.raises(
        OtherVersion, match=r"the checkpoint was written by another version .*progress.* another --data"
    ):
        small_learner().return_to(Checkpoint(kept.tensors, old))


def test_the_same_log_and_seed_give_the_same_weights(tmp_path: Path) -> None:
    first, second, other = started(60), started(60), started(60, small_settings(seed=1))
    second.run.lineage = other.run.lineage = first.run.lineage
    torch.manual_seed(99)  # the global generator has no say
    sums = [each.save(tmp_path / str(number), {}) for number, each in enumerate((first, second, other))]
    assert sums[0] == sums[1] != sums[2]
