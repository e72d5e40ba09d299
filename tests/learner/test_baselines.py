"""The baselines: what all of them promise, and known answers of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from learner.baselines import (
    Baseline,
    DecayedPopularity,
    Ease,
    ItemKNN,
    Popularity,
    SasRec,
    Trial,
    TunedItemKNN,
)
from learner.baselines.ease import solve

ROWS = 13
LENGTH = 6

MAKERS: dict[str, Callable[[], Baseline]] = {
    "popularity": lambda: Popularity(ROWS, 2),
    "decayed popularity": lambda: DecayedPopularity(ROWS, 2),
    "item kNN": lambda: ItemKNN(ROWS),
    "tuned item kNN": lambda: TunedItemKNN(ROWS, neighbours=8),
    "EASE": lambda: Ease(ROWS, refit=20),
    "SASRec": lambda: SasRec(ROWS, refit=40, epochs=1, length=LENGTH, dimension=8),
}


def trial(
    events: Sequence[tuple[Sequence[int], int]], excluded: Sequence[int] = (), weight: float = 1.0, scenario: int = 0
) -> Trial:
    """Events as (history, target), each of a user of its own."""
    size = len(events)
    history = np.zeros((size, LENGTH), np.int64)
    for number, (past, _) in enumerate(events):
        if past:
            history[number, -len(past) :] = past
    return Trial(
        scenario=scenario,
        users=np.arange(size),
        history=history,
        target=np.array([target for _, target in events], np.int64),
        weight=np.full(size, weight, np.float32),
        excluded=np.tile(np.array(excluded, np.int64), (size, 1)),
        now=np.arange(size, dtype=np.float64),
    )


def shelf(*rows: int) -> np.ndarray:
    flags = np.zeros(ROWS, np.bool_)
    flags[list(rows)] = True
    return flags


def stream(batches: int, seed: int) -> list[Trial]:
    generator = np.random.default_rng(seed)
    drawn = generator.integers(1, ROWS, (batches, 16, 4)).tolist()
    return [trial([(row[:3], row[3]) for row in batch]) for batch in drawn]


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Baseline]:
    return MAKERS[request.param]


def test_a_ranking_holds_only_what_is_on_the_shelf_and_not_excluded_each_once(make: Callable[[], Baseline]) -> None:
    baseline = make()
    on_shelf, excluded = shelf(*range(1, 12)), [2, 5]
    for each in stream(6, seed=0):
        baseline.learn(each)
    ranked = baseline.rank(trial([([1, 2, 3], 0), ([], 0)], excluded), on_shelf)
    assert ranked.shape == (2, 10)
    for row in ranked.tolist():
        found = [item for item in row if item]
        assert row == found + [0] * (10 - len(found))
        assert sorted(found) == [item for item in range(1, 12) if item not in excluded]


def test_an_empty_shelf_and_one_item_are_ranked_too(make: Callable[[], Baseline]) -> None:
    baseline = make()
    asked = trial([([1], 0)])
    assert baseline.rank(asked, shelf()).tolist() == [[0] * 10]
    assert baseline.rank(asked, shelf(7)).tolist() == [[7] + [0] * 9]


def test_the_same_trials_give_the_same_lists_and_ranking_changes_nothing(make: Callable[[], Baseline]) -> None:
    first, second = make(), make()
    asked, everything = trial([([4, 5], 0), ([9], 0)]), shelf(*range(1, ROWS))
    for each in stream(6, seed=1):
        first.rank(asked, everything)
        first.learn(each)
        second.learn(each)
    assert np.array_equal(first.rank(asked, everything), second.rank(asked, everything))


def test_a_dislike_leaves_no_trace(make: Callable[[], Baseline]) -> None:
    baseline, untouched = make(), make()
    baseline.learn(trial([([1, 2], 3)] * 50, weight=-1.0))
    asked, everything = trial([([1, 2], 0)]), shelf(*range(1, ROWS))
    assert np.array_equal(baseline.rank(asked, everything), untouched.rank(asked, everything))


def test_what_is_known_stays_when_rows_are_added(make: Callable[[], Baseline]) -> None:
    baseline = make()
    for each in stream(6, seed=2):
        baseline.learn(each)
    asked, before = trial([([4, 5], 0)]), shelf(*range(1, ROWS))
    ranked = baseline.rank(asked, before)
    baseline.grow(40)
    assert np.array_equal(baseline.rank(asked, np.concatenate([before, np.zeros(27, np.bool_)])), ranked)


def test_popularity_counts_each_scenario_by_itself() -> None:
    baseline = Popularity(ROWS, 2)
    baseline.learn(trial([([], 3), ([], 3), ([], 4)]))
    baseline.learn(trial([([], 5)], scenario=1))
    everything = shelf(3, 4, 5)
    assert baseline.rank(trial([([], 0)]), everything)[0, :3].tolist() == [3, 4, 5]
    assert baseline.rank(trial([([], 0)], scenario=1), everything)[0, :3].tolist() == [5, 3, 4]


def test_decayed_popularity_prefers_what_is_used_now() -> None:
    counted, decayed = Popularity(ROWS, 1), DecayedPopularity(ROWS, 1, half_life=5.0)
    for baseline in (counted, decayed):
        baseline.learn(trial([([], 3)] * 20))
        baseline.learn(trial([([], 4)] * 10))
    asked = trial([([], 0)])
    assert counted.rank(asked, shelf(3, 4))[0, :2].tolist() == [3, 4]
    assert decayed.rank(asked, shelf(3, 4))[0, :2].tolist() == [4, 3]


@pytest.mark.parametrize("name", ["item kNN", "tuned item kNN"])
def test_a_neighbour_method_finds_what_is_used_together(name: str) -> None:
    baseline = MAKERS[name]()
    baseline.learn(trial([([1], 2), ([1], 2), ([3], 4), ([3], 4), ([5], 6)]))
    everything = shelf(*range(1, ROWS))
    assert baseline.rank(trial([([1], 0)], [1]), everything)[0, 0] == 2
    assert baseline.rank(trial([([3], 0)], [3]), everything)[0, 0] == 4


def test_ease_solves_the_papers_ridge_regression() -> None:
    used = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1]], np.float64)
    weights = solve(used.T @ used, 2.0)
    assert np.diag(weights).tolist() == [0.0] * 4
    for item in range(4):
        # With a zero diagonal each column is the ridge regression of one item on the others.
        others = [other for other in range(4) if other != item]
        x, y = used[:, others], used[:, item]
        expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(3), x.T @ y)
        np.testing.assert_allclose(weights[others, item], expected, rtol=1e-9, atol=1e-12)


def test_ease_fits_the_most_used_items_and_leaves_the_others_last() -> None:
    baseline = Ease(ROWS, refit=7, limit=2, regularisation=1.0)
    one_user = replace(
        trial([([], 1), ([], 2), ([], 1), ([], 2), ([], 1), ([], 2), ([], 3)]), users=np.zeros(7, np.int64)
    )
    baseline.learn(one_user)
    assert baseline.rank(trial([([2], 0)]), shelf(1, 3, 4))[0, :3].tolist() == [1, 3, 4]
    assert baseline.rank(trial([([3], 0)]), shelf(1, 3, 4))[0, :3].tolist() == [1, 3, 4]


def test_sasrec_learns_a_sequence() -> None:
    baseline = SasRec(6, refit=50, epochs=60, length=LENGTH, dimension=16, dropout=0.0, learning_rate=1e-2)
    for turn in range(10):
        after = turn % 5 + 1
        baseline.learn(trial([([], after)] * 5))  # five users, each going 1, 2, 3, 4, 5, 1, ...
    everything = np.array([False, True, True, True, True, True])
    asked = trial([([1, 2, 3], 0), ([4, 5, 1], 0)])
    assert baseline.rank(asked, everything)[:, 0].tolist() == [4, 2]


def test_sasrec_knows_from_the_start_what_is_popular_in_each_scenario() -> None:
    baseline = SasRec(ROWS, refit=12, epochs=0, length=LENGTH, dimension=8)
    baseline.learn(trial([([], 1)] * 4 + [([], 2)] * 2, scenario=0))
    baseline.learn(trial([([], 2)] * 4 + [([], 1)] * 2, scenario=1))
    for scenario, first in ((0, 1), (1, 2)):
        assert baseline.rank(trial([([3], 0)], scenario=scenario), shelf(1, 2))[0, 0] == first
