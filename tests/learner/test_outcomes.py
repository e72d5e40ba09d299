"""The figures of an evaluation, on cases small enough to be known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from learner.outcomes import DEPTH, Clicks, Examined, figures, interval, ratio

MISSED = DEPTH


def examined(
    users: list[int],
    scenarios: list[int] | None = None,
    cold: list[bool] | None = None,
    disliked: list[bool] | None = None,
) -> Examined:
    return Examined(
        scenario=np.array(scenarios or [0] * len(users), np.int64),
        user=np.array(users, np.int64),
        cold=np.array(cold or [False] * len(users), np.bool_),
        disliked=np.array(disliked or [False] * len(users), np.bool_),
    )


def test_each_figure_is_what_its_definition_says() -> None:
    place = np.array([0, 1, 9, MISSED])
    found = figures(examined([0, 1, 2, 3]), [place], ["shop"], 0.5, 100.0)
    assert found.recall == 3 / 4
    assert found.ndcg == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 4)
    assert found.mrr == pytest.approx((1 + 1 / 2 + 1 / 10) / 4)
    assert found.top == 1 / 4
    assert (found.coverage, found.examples_per_second) == (0.5, 100.0)


def test_scenarios_thirds_and_cold_items_are_told_apart() -> None:
    place = np.array([0, 0, MISSED, MISSED, 0, MISSED])
    seen = examined([0] * 6, [0, 0, 0, 1, 1, 1], [False, True, True, False, False, False])
    found = figures(seen, [place], ["shop", "news", "video"], 0.0, None)
    assert found.scenarios == {"shop": 2 / 3, "news": 1 / 3, "video": None}
    assert found.thirds == [1.0, 0.0, 0.5]
    assert found.cold_recall == 1 / 2
    assert [each for each in found.curve["shop"] if each is not None] == [1.0, 1.0, 0.0]


def test_the_second_half_is_that_of_the_tests() -> None:
    place = np.array([0, MISSED, MISSED, 0, 1])
    assert figures(examined([0] * 5), [place], ["shop"], 0.0, None).second_half == 2 / 3


def test_what_stands_in_a_list_is_said_to_be_taken_and_what_does_not_to_be_refused() -> None:
    taken = np.array([0, 0, 4, MISSED])
    refused = np.array([0, 9, MISSED, MISSED, MISSED, MISSED])
    found = figures(examined([0, 1, 2, 3]), [taken], ["shop"], 0.0, None, [refused]).clicks
    # In the ten stand three that were taken and two that were not; first stand two that were and one that was not.
    assert found == {
        "top-10": Clicks(accuracy=7 / 10, precision=3 / 5, recall=3 / 4, f1=2 / 3),
        "top-1": Clicks(accuracy=7 / 10, precision=2 / 3, recall=2 / 4, f1=4 / 7),
    }


def test_taken_and_refused_are_counted_over_all_seeds() -> None:
    taken, refused = [np.array([0, MISSED]), np.array([0, 0])], [np.array([0]), np.array([MISSED])]
    found = figures(examined([0, 1]), taken, ["shop"], 0.0, None, refused).clicks["top-1"]
    assert found == Clicks(accuracy=4 / 6, precision=3 / 4, recall=3 / 4, f1=3 / 4)


def test_a_list_that_never_holds_either_has_no_precision() -> None:
    nowhere = np.array([MISSED])
    found = figures(examined([0]), [nowhere], ["shop"], 0.0, None, [nowhere]).clicks["top-10"]
    assert found == Clicks(accuracy=1 / 2, precision=None, recall=0.0, f1=0.0)


def test_what_was_taken_and_disliked_afterwards_was_refused() -> None:
    place = np.array([0, 0, MISSED, MISSED])
    seen = examined([0, 1, 2, 3], disliked=[False, True, False, True])
    found = figures(seen, [place], ["shop"], 0.0, None, [np.array([3])])
    assert found.recall == 1 / 2  # they were taken all the same
    assert found.clicks["top-10"] == Clicks(accuracy=2 / 5, precision=1 / 3, recall=1 / 2, f1=2 / 5)
    assert figures(seen, [place], ["shop"], 0.0, None).clicks["top-1"].accuracy == 2 / 4


def test_where_nothing_is_refused_there_is_nothing_to_tell_apart() -> None:
    assert figures(examined([0]), [np.array([0])], ["shop"], 0.0, None, [np.zeros(0, np.int64)]).clicks == {}


def test_seeds_are_averaged_event_by_event() -> None:
    places = [np.array([0, MISSED]), np.array([MISSED, MISSED])]
    found = figures(examined([0, 1]), places, ["shop"], 0.0, None)
    assert found.recall == 1 / 4
    assert found.thirds[0] == 1 / 2


def test_without_a_test_there_is_nothing_to_say() -> None:
    found = figures(examined([]), [np.zeros(0, np.int64)], ["shop"], 0.0, None)
    assert (found.recall, found.interval, found.cold_recall, found.scenarios) == (0.0, (0.0, 0.0), None, {"shop": None})


def test_an_interval_holds_the_recall_and_is_wider_where_few_users_decide() -> None:
    generator = np.random.default_rng(0)
    hit = (generator.random(4000) < 0.4).astype(float)
    low, high = interval(hit, np.arange(4000) % 400)
    assert low < hit.mean() < high
    assert high - low < 0.06
    by_user = np.repeat(generator.random(20) < 0.4, 200).astype(float)
    low, high = interval(by_user, np.repeat(np.arange(20), 200))
    assert high - low > 0.2


def test_users_who_are_all_alike_leave_no_doubt() -> None:
    assert interval(np.ones(10), np.arange(10)) == (1.0, 1.0)


def test_a_ratio_is_that_of_the_recalls_over_all_seeds() -> None:
    ours = [np.array([0, 0, MISSED, 3]), np.array([0, 0, MISSED, MISSED])]
    theirs = [np.array([1, MISSED, MISSED, MISSED]), np.array([1, MISSED, MISSED, 4])]
    found = ratio(ours, theirs, np.arange(4))
    assert found is not None
    assert found.value == pytest.approx((5 / 8) / (3 / 8))
    assert found.interval[0] <= found.value <= found.interval[1]


def test_a_model_that_found_nothing_has_no_ratio_and_its_rival_may_have_found_nothing() -> None:
    some, none = [np.array([0, MISSED])], [np.array([MISSED, MISSED])]
    assert ratio(some, none, np.arange(2)) is None
    found = ratio(none, some, np.arange(2))
    assert found is not None
    assert (found.value, found.interval) == (0.0, (0.0, 0.0))


def test_models_that_are_right_together_leave_less_doubt_of_their_ratio_than_of_their_recalls() -> None:
    generator = np.random.default_rng(0)
    user = np.repeat(np.arange(100), 20)
    easy = np.repeat(generator.random(100), 20) > generator.random(2000)  # some users are easy for everybody
    theirs = np.where(easy, 0, MISSED)
    ours = np.where(easy | (generator.random(2000) < 0.1), 0, MISSED)
    found = ratio([ours], [theirs], user)
    assert found is not None
    (mine_low, mine_high), (low, high) = (interval((each < DEPTH).astype(float), user) for each in (ours, theirs))
    assert mine_low < high
    assert 1.0 < found.interval[0] < found.value < found.interval[1]
    assert found.interval[1] - found.interval[0] < mine_high / low - mine_low / high
