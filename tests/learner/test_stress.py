"""In the stress order every example is learnt once or held out, and each scenario has a block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.evaluation import Block, Results, Stream, evaluate
from learner.retention import Retention
from learner.stress import MOST_PROBES, PROBE_SHARE, forgetting, in_blocks
from schemas.items import Item
from schemas.records import Example
from tests.learner.builders import example, random_texts, small_settings, stream

SCENARIOS = ["shop", "news", "video"]
NAMES = [f"item-{number}" for number in range(14)]
WARM = 60


def a_stream(
    count: int = 400, warm: int = WARM, scenario: Callable[[int], str] = lambda at: SCENARIOS[at % 7 % 3]
) -> Stream:
    """Two scenarios of two sevenths each, and `shop` of three."""
    examples = [(scenario(at), each) for at, each in enumerate(stream(NAMES, count))]
    items = [Item(item_id=name, scenarios=tuple(SCENARIOS)) for name in NAMES]
    return Stream(items, random_texts(len(NAMES)), examples, warm)


def run(models: list[str], given: Stream) -> Results:
    return evaluate(small_settings(SCENARIOS, micro_batch=16), given, models, 0, 1, lambda *_: None)


def offsets(examples: list[tuple[str, Example]]) -> list[int]:
    return [each.offset for _, each in examples]


def test_after_the_warm_up_each_scenario_has_one_block_the_smallest_first() -> None:
    before, after = a_stream(), in_blocks(a_stream())
    assert list(after.examples[:WARM]) == list(before.examples[:WARM])
    assert [block.name for block in after.blocks] == ["news", "video", "shop"]
    assert [list(block.completes) for block in after.blocks] == [["news"], ["video"], ["shop"]]
    start = WARM
    for block in after.blocks:
        part = list(after.examples[start : block.end])
        assert {scenario for scenario, _ in part} == {block.name}
        assert offsets(part) == sorted(offsets(part))
        start = block.end
    assert start == len(after.examples)


@given(st.integers(1, 90), st.integers(0, 60), st.integers(0, 3))
def test_every_example_is_learnt_once_or_held_out(count: int, warm: int, seed: int) -> None:
    before = a_stream(count, min(warm, count))
    after = in_blocks(before, seed)
    held = [(scenario, each) for scenario, some in after.probes.items() for each in some]
    assert sorted(offsets([*after.examples, *held])) == sorted(offsets(list(before.examples)))
    assert Counter(name for name, _ in [*after.examples, *held]) == Counter(name for name, _ in before.examples)
    backlog = Counter(name for name, _ in before.examples[before.warm :])
    assert {name: len(some) for name, some in after.probes.items()} == {
        name: round(PROBE_SHARE * size) for name, size in backlog.items()
    }


def test_the_same_seed_holds_out_the_same_and_another_seed_others() -> None:
    first, again, other = (in_blocks(a_stream(), seed).probes for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_dislikes_and_repeats_are_never_held_out() -> None:
    disliked = [("shop", example("item-1", ["item-2"], offset=at, weight=-1.0)) for at in range(40)]
    repeated = [("shop", example("item-1", ["item-1"], offset=at)) for at in range(40, 80)]
    fit = [("shop", example("item-1", ["item-2"], offset=at)) for at in range(80, 100)]
    after = in_blocks(replace(a_stream(), examples=[*disliked, *repeated, *fit], warm=0))
    assert len(after.probes["shop"]) == 2
    assert all(each.offset >= 80 for each in after.probes["shop"])


def test_no_scenario_holds_out_more_than_the_most() -> None:
    many = [("shop", example("item-1", ["item-2"], offset=at)) for at in range(11 * MOST_PROBES)]
    assert len(in_blocks(replace(a_stream(), examples=many, warm=0)).probes["shop"]) == MOST_PROBES


def test_every_model_is_ranked_on_all_probe_sets_after_every_block() -> None:
    after = in_blocks(a_stream())
    models = ["headstream", "naive", "naive-mixed", "static", "popularity"]
    found = run(models, after)
    assert found.probes == sum(map(len, after.probes.values()))
    for model in models:
        retention = found.marks[model].retention
        for scenario in range(3):
            (recalls,) = retention.matrix(scenario)
            assert len(recalls) == 3
            assert all(recall is not None and 0 <= recall <= 1 for recall in recalls)
        assert set(retention.forgetting()) == {(1, 0), (2, 0)}


def test_a_static_tower_forgets_nothing_and_gains_nothing() -> None:
    retention = run(["static"], in_blocks(a_stream())).marks["static"].retention
    assert set(retention.forgetting().values()) == {0.0}
    assert set(retention.backward_transfer().values()) == {0.0}


def test_ranking_the_probes_leaves_the_marks_of_the_stream_as_they_are() -> None:
    after = in_blocks(a_stream())
    models = ["headstream", "naive-mixed", "item-knn", "popularity"]
    with_probes, without = run(models, after), run(models, replace(after, probes={}))
    assert (with_probes.probes > 0, without.probes) == (True, 0)
    for model in models:
        ours, theirs = (np.concatenate(each.marks[model].places) for each in (with_probes, without))
        assert np.array_equal(ours, theirs)


def test_popularity_knows_what_only_the_own_block_tells() -> None:
    """Everybody uses two items of the first block's scenario in it, and none of its items before."""
    names = [*NAMES, *(f"late-{number}" for number in range(12))]
    before = [("shop", each) for each in stream(NAMES, 80)]
    late = [("news", example(f"late-{at % 2}", offset=at, user=f"user-{at}")) for at in range(80, 140)]
    more = [("shop", msgspec.structs.replace(each, offset=each.offset + 200)) for each in stream(NAMES, 100)]
    items = [Item(item_id=name, scenarios=("shop",) if name in NAMES else ("news",)) for name in names]
    given = Stream(items, random_texts(len(names)), [*before, *late, *more], 80)
    after = in_blocks(given)
    assert [block.name for block in after.blocks] == ["news", "shop"]
    retention = run(["popularity"], after).marks["popularity"].retention
    assert retention.matrix(1) == [[1.0, 1.0]]


def test_figures_are_means_over_seeds_in_the_order_of_the_blocks() -> None:
    seeds = []
    for gain in (0.0, 0.25):
        seed = Retention()
        seed.add({(0, 0): 0.25, (1, 0): 0.5 + gain})
        seed.mark_learnt((1, 0))
        seed.add({(0, 0): 0.5 + gain, (1, 0): 0.25})
        seed.mark_learnt((0, 0))
        seeds.append(seed)
    found = forgetting(seeds, [1, 0])
    assert found.matrix == [[0.625, 0.25], [0.25, 0.625]]
    assert found.forgetting == pytest.approx(0.375)
    assert found.backward_transfer == pytest.approx(-0.375)
    assert found.final_average == pytest.approx(0.4375)


def test_a_scenario_without_probes_has_no_figures() -> None:
    seed = Retention()
    seed.add({(0, 0): 0.5})
    seed.mark_learnt((0, 0))
    seed.add({(0, 0): 0.25})
    found = forgetting([seed], [0, 1])
    assert found.matrix == [[0.5, None], [0.25, None]]
    assert (found.forgetting, found.final_average) == (0.25, 0.25)
    empty = Retention()
    empty.add({})
    nothing = forgetting([empty], [0])
    assert (nothing.matrix, nothing.forgetting, nothing.backward_transfer, nothing.final_average) == (
        [[None]], None, None, None,
    )  # fmt: skip


def test_blocks_may_end_where_the_caller_says() -> None:
    given = replace(in_blocks(a_stream()), blocks=[Block("early", 100, SCENARIOS), Block("late", 300, ())])
    retention = run(["popularity"], given).marks["popularity"].retention
    assert [len(row) for row in retention.matrix(0)] == [2]
    assert len(retention.forgetting()) == 3
