"""Decayed popularity beside a plain count that fades with every event."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from learner import popularity
from learner.popularity import Popularity
from learner.saved import StateMismatch

ROWS = 7


def learn(table: Popularity, targets: Sequence[int], clock: float, scenario: int = 0) -> None:
    table.update(scenario, torch.tensor(targets, dtype=torch.int64), clock)


def faded(stream: Sequence[int], half_life: float, pause: int) -> list[float]:
    """The counts, event by event: all fade by one step, then the used one grows by 1."""
    counts = [0.0] * ROWS
    for target in [*stream, *[0] * pause]:
        counts = [count * 0.5 ** (1 / half_life) for count in counts]
        counts[target] += target > 0
    return counts


def everything(rows: int = ROWS) -> Tensor:
    return torch.ones(rows, dtype=torch.bool)


@settings(max_examples=100, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, ROWS - 1), max_size=30), max_size=6),
    pause=st.integers(0, 40),
    start=st.sampled_from((0.0, 1e6, 1e9)),
)
def test_counts_equal_those_that_fade_event_by_event(batches: list[list[int]], pause: int, start: float) -> None:
    table, clock = Popularity(2, ROWS, half_lives=(20.0, 3.0)), start
    for batch in batches:
        learn(table, batch, clock, scenario=1)
        clock += len(batch)
    stream = [target for batch in batches for target in batch]
    counts = table.log_popularity(1, torch.arange(ROWS), clock + pause).exp()
    for column, half_life in enumerate((20.0, 3.0)):
        assert counts[:, column].tolist() == pytest.approx(faded(stream, half_life, pause), rel=1e-3)
    assert table.events.tolist() == [stream.count(row) if row else 0 for row in range(ROWS)]
    assert table.log_popularity(0, torch.arange(ROWS), clock).eq(-torch.inf).all()


@settings(max_examples=50, deadline=None)
@given(stream=st.lists(st.integers(0, ROWS - 1), max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_how_a_stream_is_cut_into_batches_changes_nothing(stream: list[int], cuts: list[int]) -> None:
    whole, parts = Popularity(1, ROWS), Popularity(1, ROWS)
    learn(whole, stream, 0.0)
    edges = [0, *sorted(cuts), len(stream)]
    for start, end in pairwise(edges):
        learn(parts, stream[start:end], float(start))
    torch.testing.assert_close(parts.keys, whole.keys)


def test_an_event_counts_one_and_halves_with_each_half_life() -> None:
    table = Popularity(1, ROWS, half_lives=(100.0, 10.0))
    learn(table, [3], 0.0)
    assert table.log_popularity(0, torch.tensor([3]), 1.0).tolist() == [[0.0, 0.0]]
    assert table.log_popularity(0, torch.tensor([3]), 101.0).exp().tolist() == [pytest.approx([0.5, 2**-10])]
    assert table.log_popularity(0, torch.tensor([[3], [0]]), 1.0).tolist() == [[[0.0, 0.0]], [[-math.inf, -math.inf]]]


def test_passing_time_changes_no_stored_number() -> None:
    table = Popularity(1, ROWS)
    learn(table, [3, 4], 0.0)
    before = table.keys.clone()
    table.log_popularity(0, torch.tensor([3]), 1e6)
    table.top(0, everything(), 3, 1e6)
    assert torch.equal(table.keys, before)


def test_the_most_popular_come_first_and_the_never_used_last() -> None:
    table = Popularity(2, ROWS)
    learn(table, [4, 4, 4, 2, 2, 6], 0.0)
    learn(table, [5] * 9, 0.0, scenario=1)
    top = table.top(0, everything(), ROWS, 6.0).tolist()
    assert top[:3] == [4, 2, 6]
    assert sorted(top[3:]) == [1, 3, 5]
    assert table.top(1, everything(), 1, 9.0).tolist() == [5]


def test_what_is_not_eligible_is_never_listed() -> None:
    table = Popularity(1, ROWS)
    learn(table, [4, 4, 4, 2, 2, 6], 0.0)
    eligible = torch.tensor([True, False, True, False, False, False, True])
    assert table.top(0, eligible, 10, 6.0).tolist() == [2, 6]
    assert table.top(0, eligible, 1, 6.0).tolist() == [2]
    assert table.top(0, ~everything(), 3, 6.0).tolist() == []


def test_a_burst_of_the_last_events_overtakes_an_old_favourite() -> None:
    table = Popularity(1, ROWS)
    learn(table, [1] * 3000, 0.0)
    learn(table, [2] * 800, 3000.0)
    assert float(table.log_popularity(0, torch.tensor([1]), 3800.0)[0, 0]) > float(
        table.log_popularity(0, torch.tensor([2]), 3800.0)[0, 0]
    )
    assert table.top(0, everything(), 2, 3800.0).tolist() == [2, 1]


def test_after_ages_of_silence_the_order_still_stands() -> None:
    table = Popularity(1, ROWS)
    learn(table, [1, 1, 2], 0.0)
    assert table.top(0, everything(), 2, 1e9).tolist() == [1, 2]


def test_what_was_known_stays_when_it_grows() -> None:
    table = Popularity(2, 3)
    learn(table, [1, 2, 2], 0.0, scenario=1)
    before = table.log_popularity(1, torch.arange(3), 3.0)
    with torch.inference_mode():
        table.grow(8)
    table.grow(4)
    assert (table.keys.shape, table.events.tolist()) == ((2, 8, 2), [0, 1, 2, 0, 0, 0, 0, 0])
    assert torch.equal(table.log_popularity(1, torch.arange(3), 3.0), before)
    learn(table, [7], 3.0)
    assert table.top(0, everything(8), 1, 4.0).tolist() == [7]


def test_a_cleared_row_starts_anew_in_all_scenarios() -> None:
    table = Popularity(2, ROWS)
    for scenario in (0, 1):
        learn(table, [1, 2, 2], 0.0, scenario)
    table.clear(torch.tensor([2]))
    assert table.log_popularity(0, torch.tensor([2]), 3.0).eq(-torch.inf).all()
    assert table.log_popularity(1, torch.tensor([2]), 3.0).eq(-torch.inf).all()
    assert table.events.tolist() == [0, 2, 0, 0, 0, 0, 0]


def test_a_loaded_table_goes_on_as_the_saved_one_does() -> None:
    saved, loaded = Popularity(2, ROWS), Popularity(2, 2)
    learn(saved, [1, 5, 5], 0.0)
    loaded.load(saved.state())
    for table in (saved, loaded):
        learn(table, [5, 6], 3.0)
    assert torch.equal(saved.keys, loaded.keys)
    assert torch.equal(saved.events, loaded.events)
    learn(saved, [1], 5.0)
    assert loaded.events.tolist() == [0, 1, 0, 0, 0, 3, 1]


def test_a_state_of_other_scenarios_is_refused_by_name() -> None:
    with pytest.raises(StateMismatch, match="saved popularity: keys is ") as caught:
        Popularity(2, ROWS).load(Popularity(3, ROWS).state())
    assert caught.value.field == "keys"
    with pytest.raises(StateMismatch, match="events is missing"):
        Popularity(2, ROWS).load({"keys": Popularity(2, ROWS).keys})


# A large catalogue


@settings(max_examples=150, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 39), max_size=25), max_size=12),
    gone=st.sets(st.integers(1, 39), max_size=6),
    shelf=st.sets(st.integers(1, 39)),
    pause=st.sampled_from((0, 3, 500)),
)
def test_the_leaders_answer_as_a_look_at_every_row_does(
    batches: list[list[int]], gone: set[int], shelf: set[int], pause: int
) -> None:
    eligible = torch.zeros(40, dtype=torch.bool)
    eligible[list(shelf)] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(popularity, "LEADERS", 5)
        table, clock = Popularity(1, 40, half_lives=(20.0, 3.0)), 0.0
        for number, batch in enumerate(batches):
            learn(table, batch, clock)
            clock += len(batch)
            if number == len(batches) // 2 and gone:
                table.clear(torch.tensor(sorted(gone)))
        for leaders in table._leaders[0]:
            assert len(leaders.rows) <= 10
        for k in (1, 3, 5, 40):
            found = table.top(0, eligible, k, clock + pause)
            shares = table._mean_share(table.keys[0], clock + pause).masked_fill(~eligible, -torch.nan)
            best = shares[eligible].sort(descending=True).values[:k]
            assert torch.equal(shares[found], best)
            assert len(set(found.tolist())) == min(k, len(shelf))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, ROWS - 1), max_size=10), max_size=8), st.sets(st.integers(1, ROWS - 1)))
def test_shares_are_those_of_the_decayed_counts(batches: list[list[int]], gone: set[int]) -> None:
    table, clock, met = Popularity(1, ROWS, half_lives=(20.0, 3.0)), 0.0, dict[int, None]()
    for number, batch in enumerate(batches):
        if number == 4 and gone:
            table.clear(torch.tensor(sorted(gone)))
            met = {row: None for row in met if row not in gone}
        learn(table, batch, clock)
        clock += len(batch)
        met.update(dict.fromkeys(sorted(set(batch) - {0} - met.keys())))
    rows = torch.tensor(list(met), dtype=torch.int64)
    assert table.used(0).tolist() == rows.tolist()
    counts = table.log_popularity(0, rows, clock)[:, 0].exp()
    assert table.log_share(0, rows).exp().tolist() == pytest.approx((counts / counts.sum()).tolist(), rel=1e-4)


def test_what_another_table_counted_is_taken_over_whole() -> None:
    source, table = Popularity(2, ROWS), Popularity(2, ROWS)
    learn(source, [1, 5, 5, 6], 0.0)
    learn(table, [2, 2, 2], 0.0)
    rows = torch.arange(1, ROWS)
    table.place(rows, {0: source.keys[0, 1:]}, source.events[1:])
    assert table.top(0, everything(), 3, 4.0).tolist() == source.top(0, everything(), 3, 4.0).tolist() == [5, 6, 1]
    assert sorted(table.used(0).tolist()) == [1, 5, 6]
    assert torch.equal(table.log_share(0, rows), source.log_share(0, rows))
