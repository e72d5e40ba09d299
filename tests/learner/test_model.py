"""The query tower: what it says before it has learnt, and what it must not depend on."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from learner.model import GAP_BUCKETS, Dropout, Heads, Trunk, gap_buckets, profile
from tests.learner.builders import assert_near, small_model

SIZES = small_model()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(module: torch.nn.Module) -> None:
    """As if it had learnt: every weight away from its start."""
    generator = seeded(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_gaps_fall_into_buckets_of_twice_the_length() -> None:
    seconds = torch.tensor([-5.0, 0.0, 1.0, 3.0, 3600.0, 1e12, torch.inf, torch.nan], dtype=torch.float64)
    last = GAP_BUCKETS - 1
    assert gap_buckets(seconds).tolist() == [1, 1, 2, 3, 1 + int(math.log2(3601)), last, last, 1]


def test_the_profile_weighs_the_newest_most_and_no_history_is_zero() -> None:
    items = torch.eye(8)[None, :5].repeat(2, 1, 1)
    present = torch.tensor([[False, False, True, True, True], [False] * 5])
    means = profile(items, present)
    assert means[0, :2].tolist() == [0.0, 0.0]
    assert means[0, 2] < means[0, 3] < means[0, 4]
    assert math.isclose(means[0].sum().item(), 1.0, rel_tol=1e-6)
    assert means[1].abs().sum() == 0


def test_before_learning_a_query_is_the_normalised_profile() -> None:
    trunk, heads = Trunk(SIZES, seeded()), Heads(2, SIZES, seeded())
    items, present = torch.randn(3, 5, 8, generator=seeded(1)), torch.ones(3, 5, dtype=torch.bool)
    queries = heads(trunk(items, present, torch.ones(3, 5, dtype=torch.long)), torch.tensor([0, 1, 1]))
    expected = functional.layer_norm(profile(items, present), (8,)) * 8**-0.5
    assert_near(queries, expected)


def test_pads_have_no_say() -> None:
    trunk = Trunk(SIZES, seeded())
    stirred(trunk)
    items = torch.randn(1, 5, 8, generator=seeded(1))
    present = torch.tensor([[False, False, True, True, True]])
    gaps = torch.tensor([[0, 0, 3, 2, 1]])
    other = items.clone()
    other[:, :2] = 7.0
    assert_near(trunk(items, present, gaps), trunk(other, present, gaps))
    assert not torch.allclose(trunk(items, present, gaps), trunk(items, torch.ones_like(present), gaps))


def test_an_empty_history_has_a_finite_query() -> None:
    trunk = Trunk(SIZES, seeded())
    stirred(trunk)
    nothing = torch.zeros(1, 5, dtype=torch.long)
    assert trunk(torch.zeros(1, 5, 8), nothing > 0, nothing).isfinite().all()


def test_time_gaps_matter_once_learnt() -> None:
    trunk = Trunk(SIZES, seeded())
    stirred(trunk)
    items, present = torch.randn(1, 5, 8, generator=seeded(1)), torch.ones(1, 5, dtype=torch.bool)
    recent, long_ago = torch.ones(1, 5, dtype=torch.long), torch.full((1, 5), 20)
    assert not torch.allclose(trunk(items, present, recent), trunk(items, present, long_ago))


def test_a_single_head_sees_the_others_learn() -> None:
    heads = Heads(3, SIZES, seeded())
    alone = heads.only(1)
    stirred(heads)
    x = torch.randn(4, 8, generator=seeded(1))
    assert_near(alone(x, torch.zeros(4, dtype=torch.long)), heads(x, torch.ones(4, dtype=torch.long)))


def test_dropout_keeps_the_mean_and_repeats_itself() -> None:
    x = torch.ones(10_000)
    once, again = Dropout(0.2, seeded(4))(x), Dropout(0.2, seeded(4))(x)
    assert torch.equal(once, again)
    assert math.isclose(once.mean().item(), 1.0, abs_tol=0.02)
    assert set(once.tolist()) == {0.0, 1.25}
    assert torch.equal(Dropout(0.0, seeded())(x), x)
