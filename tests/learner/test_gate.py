"""The gate: a version that is worse is found soon, and one that is not is left alone, however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.gate import NEWEST, PairedTest, Standing
from tests.learner.builders import START, example

MARGIN, ERROR, LEAST = 0.01, 1e-6, 200


def differences(generator: np.random.Generator, count: int, now: float, before: float) -> list[float]:
    """Hits of what was learnt less hits of the good version, drawn apart: the noisiest that a pair can be."""
    learnt, good = generator.random(count) < now, generator.random(count) < before
    return (learnt.astype(float) - good).tolist()


def pairs_until(verdict: str, now: float, before: float, seed: int, most: int = 20_000) -> int:
    """How many pairs it took; `most` if it was not said by then."""
    test, generator = PairedTest(), np.random.default_rng(seed)
    while test.pairs < most:
        test.update(differences(generator, 16, now, before), MARGIN)
        if test.verdict(LEAST, MARGIN, ERROR) == verdict:
            break
    return test.pairs


@pytest.mark.parametrize(("now", "before", "most"), [(0.1, 0.3, 700), (0.2, 0.3, 3000), (0.0, 0.3, 250)])
def test_a_worse_version_is_found_the_sooner_the_worse_it_is(now: float, before: float, most: int) -> None:
    assert max(pairs_until("worse", now, before, seed) for seed in range(20)) <= most


def test_no_version_that_is_as_good_is_ever_called_worse() -> None:
    taken = [pairs_until("worse", 0.3, 0.3, seed) for seed in range(20)]
    assert taken == [20_000] * 20


def test_the_chance_of_a_false_rollback_keeps_to_its_bound_though_one_looks_after_every_pair() -> None:
    generator, error = np.random.default_rng(0), 0.05
    false = 0
    for _ in range(300):
        test = PairedTest()
        for _ in range(40):
            test.update(differences(generator, 25, 0.3 - MARGIN, 0.3), MARGIN)
            if test.verdict(LEAST, MARGIN, error) == "worse":
                false += 1
                break
    assert false / 300 <= error


def test_a_version_passes_only_after_enough_pairs_and_only_if_it_is_not_lower() -> None:
    test = PairedTest()
    test.update([0.0] * (LEAST - 1), MARGIN)
    assert test.verdict(LEAST, MARGIN, ERROR) == "undecided"
    test.update([0.0], MARGIN)
    assert test.verdict(LEAST, MARGIN, ERROR) == "passed"
    test.update([-1.0] * 10, MARGIN)
    assert test.difference == pytest.approx(-10 / (LEAST + 10))
    assert test.verdict(LEAST, MARGIN, ERROR) == "undecided"


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0, math.nan, math.inf]), max_size=300), st.floats(0.0, 1.0))
def test_nothing_that_comes_in_makes_the_test_lose_its_mind(found: list[float], margin: float) -> None:
    test = PairedTest()
    test.update(found, margin)
    assert test.pairs == len(found)
    assert all(math.isfinite(each) for each in test.wealth)
    assert test.verdict(LEAST, margin, ERROR) in ("worse", "passed", "undecided")


def test_a_share_of_the_micro_batches_is_ranked_by_both() -> None:
    standing = Standing(good=3)
    assert [standing.takes_turn(0.25) for _ in range(8)] == [False, False, False, True] * 2
    assert not any(Standing(good=3).takes_turn(0.0) for _ in range(8))
    assert not Standing(good=None).takes_turn(1.0)
    assert not Standing(good=3, learning=False).takes_turn(1.0)


def a_vote(*, since: float, recommended: bool = False, control: bool = False) -> bool:
    """Whether a user votes, who came so long after the last that a good version knew."""
    asked = example("a", ["b"], offset=100)
    asked.user_since, asked.recommendation_id = START + since, "r" if recommended else None
    return Standing(good=3, known_until=START).may_vote(asked, control=control)


def test_what_the_model_itself_recommended_does_not_tell_which_model_is_better() -> None:
    assert a_vote(since=-5.0)
    assert not a_vote(since=-5.0, recommended=True)
    assert a_vote(since=-5.0, recommended=True, control=True)


def test_who_came_after_the_good_version_was_made_does_not_vote_on_it() -> None:
    assert a_vote(since=0.0)
    assert not a_vote(since=1.0)
    assert not a_vote(since=1.0, control=True)


def test_the_share_of_newcomers_is_that_of_the_newest_examples() -> None:
    standing = Standing(good=3)
    known, newcomer = example("a", offset=100), example("a", offset=100)
    known.user_since, newcomer.user_since = START, START + 95.0
    standing.meet([known] * NEWEST, 60.0)
    assert standing.newcomers == 0.0
    for _ in range(20):
        standing.meet([newcomer] * 75 + [known] * 25, 60.0)
    assert 0.6 < standing.newcomers < 0.75
    standing.meet([known] * NEWEST, 60.0)
    assert standing.newcomers == 0.0
    standing.meet([], 60.0)
    assert standing.newcomers == 0.0
