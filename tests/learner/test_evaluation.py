"""An evaluation is fair, complete and repeatable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from learner.evaluation import MODELS, Results, Stream, coverage, evaluate
from learner.outcomes import DEPTH
from schemas.items import Item
from schemas.packed import pack
from tests.learner.builders import example, random_texts, small_settings, stream

NAMES = [f"item-{number}" for number in range(14)]
WARM = 60


def a_stream(count: int = 200, names: Sequence[str] = NAMES) -> Stream:
    texts = random_texts(len(names))
    examples = [("shop", each) for each in stream(names, count)]
    return Stream([Item(item_id=name, scenarios=("shop",)) for name in names], texts, examples, WARM)


def run(models: Sequence[str], given: Stream | None = None, seed: int = 0, micro_batch: int = 16) -> Results:
    settings = small_settings(["shop"], micro_batch=micro_batch)
    return evaluate(settings, given or a_stream(), models, seed, 1, lambda *_: None)


def test_every_model_is_tested_on_the_same_events_after_the_warm_up() -> None:
    found = run(MODELS)
    assert set(found.marks) == set(MODELS)
    assert len(found.tested.user) == 200 - WARM
    for marks in found.marks.values():
        places = np.concatenate(marks.places)
        assert len(places) == 200 - WARM
        assert places.min() >= 0
        assert places.max() <= DEPTH
        assert 0 < coverage(marks, found.items) <= 1
        assert marks.seconds > 0


def test_a_model_says_the_same_alone_and_beside_others() -> None:
    together = run(["headstream", "no-mixer", "item-knn", "popularity"])
    for name in ("headstream", "no-mixer", "item-knn"):
        alone = run([name])
        assert np.array_equal(np.concatenate(alone.marks[name].places), np.concatenate(together.marks[name].places))
        assert np.array_equal(alone.tested.user, together.tested.user)


def test_the_same_seed_gives_the_same_lists_and_another_seed_others() -> None:
    first, again, other = (np.concatenate(run(["no-mixer"], seed=seed).marks["no-mixer"].places) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_items_are_cold_until_they_were_used_three_times() -> None:
    given = a_stream(names=[*NAMES, "newcomer"])
    old = [each for _, each in given.examples if each.item_id != "newcomer"]
    new = [each for _, each in given.examples if each.item_id == "newcomer"][:5]
    in_order = [("shop", msgspec.structs.replace(each, offset=at)) for at, each in enumerate([*old, *new])]
    found = run(["popularity"], Stream(given.items, given.texts, in_order, WARM), micro_batch=1)
    assert found.tested.cold.tolist()[-5:] == [True, True, True, False, False]


def test_a_static_tower_stands_still_and_its_mixer_does_not() -> None:
    found = run(["static", "static-mixed", "no-mixer"])
    places = {name: np.concatenate(marks.places) for name, marks in found.marks.items()}
    assert not np.array_equal(places["static"], places["no-mixer"])
    assert not np.array_equal(places["static"], places["static-mixed"])


def test_every_model_is_asked_where_it_has_what_was_disliked_or_passed_over() -> None:
    given = a_stream()
    disliked = {80: ("item-0", []), 81: ("item-1", ["item-1"]), 82: ("stranger", []), 30: ("item-2", [])}
    examples = [each for _, each in given.examples]
    for place, (item, excluded) in disliked.items():
        examples[place] = example(item, excluded=excluded, offset=place, user="user-1", weight=-1.0)
    shown = [name for name in NAMES if name != examples[90].item_id][:3]
    examples[90] = msgspec.structs.replace(examples[90], passed_over=pack(shown), excluded=pack(shown[:1]))
    # Of the dislikes after the warm-up one item could have been shown, and of what was passed over two.
    changed = replace(given, examples=[("shop", each) for each in examples])
    found = run(["headstream", "no-mixer", "item-knn", "popularity", "static"], changed)
    for marks in found.marks.values():
        refused = np.concatenate(marks.refused)
        assert len(refused) == 3
        assert refused.min() >= 0
    calm = run(["headstream", "item-knn"], changed)
    assert np.array_equal(
        np.concatenate(calm.marks["headstream"].places), np.concatenate(found.marks["headstream"].places)
    )
    assert not len(np.concatenate(run(["popularity"]).marks["popularity"].refused))


def test_a_disliked_item_is_looked_for_in_the_list_that_its_user_would_have_been_shown() -> None:
    given = a_stream()
    disliked = example("item-5", excluded=[name for name in NAMES if name != "item-5"], offset=200, weight=-1.0)
    found = run(["headstream", "popularity"], replace(given, examples=[*given.examples, ("shop", disliked)]))
    assert [np.concatenate(marks.refused).tolist() for marks in found.marks.values()] == [[0], [0]]


def test_a_dislike_of_what_was_taken_before_is_of_the_test_that_it_was() -> None:
    given = a_stream()
    taken = [given.examples[place][1] for place in (100, 150, 40)]
    regrets = [
        example(each.item_id, [each.item_id], offset=200 + at, user=each.user_id, weight=-1.0)
        for at, each in enumerate(taken)
    ]
    found = run(
        ["headstream", "popularity"], replace(given, examples=[*given.examples, *(("shop", one) for one in regrets)])
    )
    last = {
        (each.user_id, each.item_id): place for place, (_, each) in enumerate(given.examples[WARM:])
    }  # a user may take an item again; the dislike is of the last time
    expected = {last[each.user_id, each.item_id] for each in taken if (each.user_id, each.item_id) in last}
    assert len(expected) >= 2
    assert set(np.flatnonzero(found.tested.disliked)) == expected
    assert not found.tested.disliked[:30].any()


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(ValueError, match="oracle"):
        run(["oracle"])
