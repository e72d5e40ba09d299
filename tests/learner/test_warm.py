"""A warm start: the newest examples choose the epoch, and are learnt only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from learner.checkpoint import read_checkpoint
from learner.online import OnlineLearner
from learner.warm import IN_ORDER, NEWEST, Audience, Schedule, Validation, WarmStart, warm_up
from schemas.records import Example
from schemas.settings import Settings
from tests.learner.builders import assert_near, example, put, random_texts, small_learner, small_settings, stream

NAMES = [f"item-{number}" for number in range(30)]


def past(count: int) -> list[tuple[str, Example]]:
    """Two in three in the shop, one in the news."""
    examples = stream(NAMES, count)
    return [("news" if number % 3 == 2 else "shop", each) for number, each in enumerate(examples)]


def parted(count: int) -> list[tuple[str, Example]]:
    """Users of even items and users of odd ones, by turns."""
    even, odd = stream(NAMES[::2], count // 2), stream(NAMES[1::2], count // 2, seed=1)
    examples = [each for pair in zip(even, odd, strict=True) for each in pair]
    for number, each in enumerate(examples):
        each.offset = number
    return [("shop", each) for each in examples]


class Watcher:
    """Keeps what an audience is told, and asks to end when a stage has come so far."""

    def __init__(self, learner: OnlineLearner, until: Callable[[Watcher], bool] = lambda _: False) -> None:
        self.learner = learner
        self.stages: list[tuple[str, int, int]] = []
        self.validations: list[Validation] = []
        self.vectors: list[torch.Tensor] = []
        self.counted: list[int] = []
        self._until = until

    def audience(self) -> Audience:
        return Audience(lambda *stage: self.stages.append(stage), self._validated, lambda: self._until(self))

    def _validated(self, validation: Validation) -> None:
        self.validations.append(validation)
        self.vectors.append(self.learner.table.vectors.clone())
        self.counted.append(self.uses())

    def uses(self) -> int:
        return int(self.learner.table.popularity.events.sum())

    def epochs_begun(self) -> int:
        return len({stage for stage, _, _ in self.stages if stage.startswith("epoch")})


def warmed(
    examples: list[tuple[str, Example]],
    schedule: Schedule,
    settings: Settings | None = None,
    until: Callable[[Watcher], bool] = lambda _: False,
) -> tuple[WarmStart, Watcher]:
    learner = small_learner(settings)
    put(learner, NAMES)
    watcher = Watcher(learner, until)
    found = warm_up(learner, examples, schedule, torch.Generator().manual_seed(0), watcher.audience())
    return found, watcher


def test_nothing_learns_from_the_newest_examples_before_the_choice() -> None:
    found, watcher = warmed(past(400), Schedule(epochs=3, patience=3, validation=0.1))
    assert watcher.counted == [360] * 4
    assert watcher.uses() == 400
    assert found.learnt == 400
    assert [each.epoch for each in found.validations] == [0, 1, 2, 3]
    assert all(sum(each.tested.values()) == 40 for each in found.validations)
    assert watcher.stages[-1] == (NEWEST, 40, 40)


def test_what_is_kept_is_the_tower_of_the_best_validation() -> None:
    until = lambda watcher: len(watcher.validations) == 7  # noqa: E731  # the newest are not learnt after that
    settings = small_settings(learning_rate=0.05)
    found, watcher = warmed(past(300), Schedule(epochs=20, patience=20, validation=0.2), settings, until)
    recalls = [each.recall or 0.0 for each in found.validations]
    assert found.best is not None
    assert found.best.epoch == recalls.index(max(recalls)) < 6
    assert torch.equal(watcher.learner.table.vectors, watcher.vectors[found.best.epoch])
    assert not torch.equal(watcher.vectors[-1], watcher.vectors[found.best.epoch])


def test_patience_ends_what_no_longer_helps() -> None:
    found, _ = warmed(past(300), Schedule(epochs=50, patience=2, validation=0.2))
    assert found.best is not None
    assert found.validations[-1].epoch == found.best.epoch + 2 < 50
    assert not found.stopped


def test_epochs_teach_even_users_even_items_where_one_pass_is_too_short() -> None:
    narrow = {"covisited_candidates": 1, "popular_candidates": 1, "neural_candidates": 10}
    settings = small_settings(("shop",), model=narrow, learning_rate=0.003)
    found, _ = warmed(parted(300), Schedule(epochs=30, patience=10, validation=0.2), settings)
    first, best = found.validations[0].recall, found.best
    assert first is not None and best is not None and best.recall is not None
    assert best.epoch > 0
    assert best.recall > 0.9 > 0.8 > first  # 10 of 25 would be chance


def test_without_a_test_among_the_newest_the_pass_in_order_is_all() -> None:
    examples = [("shop", each) for each in stream(NAMES, 90)]
    disliked = [("shop", example("item-1", ["item-2"], offset=90 + number, weight=-1.0)) for number in range(10)]
    found, watcher = warmed([*examples, *disliked], Schedule(epochs=5, patience=5, validation=0.1))
    assert found.best is not None and found.best.recall is None
    assert (len(found.validations), watcher.epochs_begun(), found.learnt) == (1, 0, 100)


def test_no_epochs_is_a_pass_in_order() -> None:
    found, watcher = warmed(past(100), Schedule(epochs=0, patience=1, validation=0.1))
    assert (len(found.validations), watcher.epochs_begun(), found.learnt) == (1, 0, 100)
    assert watcher.learner.run.step > 0


def test_a_stop_in_the_pass_in_order_keeps_what_was_learnt() -> None:
    found, watcher = warmed(past(800), Schedule(5, 5, 0.1), until=lambda watcher: bool(watcher.stages))
    assert found == WarmStart(learnt=256, validations=[], best=None, stopped=True)
    assert watcher.stages == [(IN_ORDER, 256, 720)]
    assert watcher.uses() == 256


def test_a_stop_in_the_middle_of_an_epoch_goes_back_to_the_best_so_far() -> None:
    found, watcher = warmed(
        past(1600), Schedule(9, 9, 0.1), until=lambda watcher: watcher.stages[-1:] == [("epoch 3", 1024, 1440)]
    )
    assert found.stopped
    assert found.learnt == 1440
    assert [each.epoch for each in found.validations] == [0, 1, 2]
    assert found.best is not None
    assert torch.equal(watcher.learner.table.vectors, watcher.vectors[found.best.epoch])


def test_the_stream_that_follows_begins_at_its_own_first_offset() -> None:
    _, watcher = warmed(past(200), Schedule(2, 2, 0.1))
    learner = watcher.learner
    assert learner.run.examples == {"shop": 0, "news": 0}
    assert learner.run.recall == {"shop": None, "news": None}
    assert learner.learn("shop", [example("item-1", ["item-2"], offset=0)]) == 1
    (shop, news) = learner.versions.republish().weights
    assert (shop.trained_through, news.trained_through) == ({"headstream.events.shop:0": 0}, {})
    assert (shop.tested, shop.clock) == (1, 201.0)


def test_the_projection_is_fitted_to_the_catalogue() -> None:
    learner = small_learner()
    names = [f"item-{number}" for number in range(100)]
    put(learner, names)
    audience = Audience(lambda *_: None, lambda _: None, lambda: False)
    warm_up(learner, [("shop", each) for each in stream(NAMES, 50)], Schedule(1, 1, 0.1), torch.Generator(), audience)
    put(learner, ["twin"], random_texts(len(names))[90:91])
    twin, ninetieth = learner.table.rows(["twin", "item-90"])
    assert_near(learner.table.vectors[twin], learner.table.vectors[ninetieth])


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_past_is_no_error(count: int) -> None:
    found, _ = warmed(past(count), Schedule(2, 2, 0.1))
    assert found.learnt == count


def test_the_same_past_and_seed_give_the_same_weights(tmp_path: Path) -> None:
    saved = []
    for number in range(2):
        _, watcher = warmed(past(200), Schedule(2, 2, 0.1))
        watcher.learner.save(tmp_path / str(number), {})
        saved.append(read_checkpoint(tmp_path / str(number)).tensors)
    assert all(torch.equal(tensor, saved[1][name]) for name, tensor in saved[0].items())
