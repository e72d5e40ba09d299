"""Co-visitation beside plain dictionaries: what a pair weighs, how it fades, and what a full row gives up."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from learner.covisitation import CoVisitation
from learner.saved import StateMismatch

ROWS = 9
HALF_LIFE = 50.0

Event = tuple[list[int], int]


@dataclass
class Pairs:
    """The same learning with no bound, no laziness and no tensors: every pair, faded at every step."""

    clock: float = 0.0
    together: defaultdict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))
    forward: defaultdict[tuple[int, int], float] = field(default_factory=lambda: defaultdict(float))
    count: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def fade(self, clock: float) -> None:
        left = 0.5 ** ((clock - self.clock) / HALF_LIFE)
        for table in (self.together, self.forward):
            for pair in table:
                table[pair] *= left
        for item in self.count:
            self.count[item] *= left
        self.clock = clock

    def update(self, events: Sequence[Event], clock: float) -> None:
        self.fade(clock)
        for history, target in events:
            if not target:
                continue
            self.count[target] += 1
            for back, item in enumerate(reversed(history[-20:])):
                if item:
                    weight = math.exp(-back / 30)
                    self.together[item, target] += weight
                    self.together[target, item] += weight
                    self.forward[item, target] += weight if back < 3 else 0

    def score(self, history: Sequence[int], item: int) -> list[float]:
        knn = forward = taste = strongest = 0.0
        for back, past in enumerate(reversed(history[-20:])):
            source = (self.count[past] + 1) ** 0.5
            term = self.together[past, item] / source if past and item else 0.0
            knn += math.exp(-back / 5) * term
            forward += math.exp(-back / 1.5) * (self.forward[past, item] / source if past and item else 0.0)
            taste += term
            strongest = max(strongest, term)
        n = self.count[item] + 1
        return [knn / n**0.35, forward / n**0.35, taste / n**0.5, strongest / n**0.5]


def histories(events: Sequence[Event]) -> Tensor:
    longest = max((len(history) for history, _ in events), default=0)
    padded = [[0] * (longest - len(history)) + history for history, _ in events]
    return torch.tensor(padded, dtype=torch.int64).view(len(events), longest)


def learn(table: CoVisitation, events: Sequence[Event], clock: float = 0.0) -> list[int]:
    targets = torch.tensor([target for _, target in events], dtype=torch.int64)
    return table.update(histories(events), targets, clock).tolist()


def together(table: CoVisitation, item: int) -> dict[int, float]:
    row = table.describe(torch.tensor([item]))
    return {int(other): float(weight) for other, weight in zip(row.rows[0], row.together[0], strict=True) if other}


def forward(table: CoVisitation, item: int) -> dict[int, float]:
    row = table.describe(torch.tensor([item]))
    return {int(other): float(weight) for other, weight in zip(row.rows[0], row.forward[0], strict=True) if weight}


def random_stream(batches: int, rows: int, seed: int = 0) -> list[list[Event]]:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randint(1, rows, (batches, 16, 7), generator=generator).tolist()
    return [[(row[:-1], row[-1]) for row in batch] for batch in draw]


items = st.integers(0, ROWS - 1)
events = st.lists(st.tuples(st.lists(items, max_size=24), items), max_size=8)
stream = st.lists(st.tuples(events, st.floats(0, 200)), min_size=1, max_size=4)


@settings(max_examples=50, deadline=None)
@given(stream=stream, pause=st.floats(0, 200), asked=st.lists(st.lists(items, max_size=24), max_size=4))
def test_where_no_row_overflows_it_equals_the_sum_of_all_pairs_by_hand(
    stream: list[tuple[list[Event], float]], pause: float, asked: list[list[int]]
) -> None:
    table, pairs, clock = CoVisitation(ROWS, ROWS, half_life=HALF_LIFE), Pairs(), 0.0
    for batch, step in stream:
        clock += step
        changed = learn(table, batch, clock)
        pairs.update(batch, clock)
        used = {item for history, target in batch if target for item in (*history[-20:], target)}
        assert changed == sorted(used - {0})
    clock += pause
    pairs.fade(clock)
    left = torch.exp2((table.touched - clock) / HALF_LIFE)
    assert (table.count * left).tolist() == pytest.approx([pairs.count[item] for item in range(ROWS)], rel=1e-4)
    for item in range(1, ROWS):
        faded = {other: weight * float(left[item]) for other, weight in together(table, item).items()}
        assert faded == pytest.approx({b: w for (a, b), w in pairs.together.items() if a == item}, rel=1e-4)
        after = {other: weight * float(left[item]) for other, weight in forward(table, item).items()}
        assert after == pytest.approx({b: w for (a, b), w in pairs.forward.items() if a == item and w}, rel=1e-4)

    scored = table.score(histories([(history, 0) for history in asked]), clock)
    expected = [[pairs.score(history, item) for item in range(ROWS)] for history in asked]
    given_scores = scored.at(torch.arange(ROWS).repeat(len(asked), 1))
    torch.testing.assert_close(given_scores, torch.tensor(expected).view(len(asked), ROWS, 4), rtol=1e-3, atol=1e-12)
    for top, scores in zip(scored.top(ROWS).tolist(), expected, strict=True):
        found = [item for item in top if item]
        assert top == found + [0] * (ROWS - len(found))
        assert set(found) == {item for item in range(ROWS) if scores[item][0] > 0}
        assert [scores[item][0] for item in found] == pytest.approx(
            sorted((scores[item][0] for item in found), reverse=True), rel=1e-3
        )


def test_one_event_weighs_each_pair_by_its_distance_in_both_rows() -> None:
    table = CoVisitation(9, 4)
    assert learn(table, [([5, 4, 3, 2], 1)]) == [1, 2, 3, 4, 5]
    near, far, farther = (math.exp(-back / 30) for back in (1, 2, 3))
    assert together(table, 1) == pytest.approx({2: 1.0, 3: near, 4: far, 5: farther})
    assert [together(table, item) for item in (2, 5)] == [{1: 1.0}, pytest.approx({1: farther})]
    assert table.count.tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_only_the_last_three_items_count_as_followed_by_the_target_and_never_backwards() -> None:
    table = CoVisitation(9, 4)
    learn(table, [([5, 4, 3, 2], 1)])
    assert [forward(table, item) for item in (2, 3, 4)] == [
        {1: pytest.approx(math.exp(-back / 30))} for back in range(3)
    ]
    assert forward(table, 5) == forward(table, 1) == {}


def test_a_pair_that_occurs_twice_in_a_batch_is_summed() -> None:
    table = CoVisitation(9, 4)
    learn(table, [([2], 1), ([2], 1), ([1], 2)])
    assert together(table, 1) == {2: 3.0}
    assert (forward(table, 2), forward(table, 1)) == ({1: 2.0}, {2: 1.0})
    assert table.count[1:3].tolist() == [2.0, 1.0]


def test_even_users_get_even_items_and_odd_users_odd_ones() -> None:
    table = CoVisitation(41, 20)
    generator = torch.Generator().manual_seed(0)
    for side in (0, 1) * 40:
        drawn = torch.randint(1, 21, (16, 6), generator=generator) * 2 - side
        table.update(drawn[:, :5], drawn[:, 5], 0.0)
    top = table.score(torch.tensor([[2, 4, 6], [1, 3, 5]]), 0.0).top(15)
    assert (top > 0).all()
    assert (top % 2).tolist() == [[0] * 15, [1] * 15]


def test_one_users_scores_never_show_in_anothers() -> None:
    table = CoVisitation(9, 4)
    learn(table, [([1], 8), ([2], 3)])
    scored = table.score(torch.tensor([[1], [2]]), 0.0)
    assert scored.top(3).tolist() == [[8, 0, 0], [3, 0, 0]]
    assert (scored.at(torch.tensor([[8, 3, 0], [8, 3, 0]]))[..., 0] > 0).tolist() == [
        [True, False, False],
        [False, True, False],
    ]


def test_after_one_half_life_half_is_left_and_new_events_count_whole() -> None:
    table = CoVisitation(9, 4, half_life=100.0)
    learn(table, [([2], 1)], clock=10.0)
    learn(table, [([3], 1)], clock=110.0)
    assert together(table, 1) == pytest.approx({2: 0.5, 3: 1.0})
    assert float(table.count[1]) == pytest.approx(1.5)
    assert table.touched.tolist() == [0.0, 110.0, 10.0, 110.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert together(table, 2) == {1: 1.0}


def test_a_full_row_weakens_its_weakest_until_a_newcomer_is_as_strong() -> None:
    table = CoVisitation(9, 2)
    learn(table, [([2], 1)] * 3)
    learn(table, [([3], 1)] * 2)
    assert together(table, 1) == {2: 3.0, 3: 2.0}
    learn(table, [([4], 1)])
    assert together(table, 1) == {2: 3.0, 3: 1.5}
    learn(table, [([4], 1)])
    assert together(table, 1) == {2: 3.0, 3: 1.0}
    learn(table, [([4], 1)])
    assert together(table, 1) == {2: 3.0, 4: 1.0}


def test_a_newcomer_inherits_nothing_from_the_neighbour_it_replaces() -> None:
    table = CoVisitation(9, 1)
    learn(table, [([1], 2)])
    assert forward(table, 1) == {2: 1.0}
    learn(table, [([4], 1), ([4], 1)])
    assert (together(table, 1), forward(table, 1)) == ({4: 2.0}, {})


def test_of_more_newcomers_than_seats_the_strongest_are_seated() -> None:
    table = CoVisitation(30, 3)
    learn(table, [([9, 8, 7, 6, 5], 1), ([5], 1)])
    assert sorted(together(table, 1)) == [5, 6, 7]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), m=st.integers(1, 6))
def test_rows_stay_bounded_and_never_name_a_neighbour_twice(seed: int, m: int) -> None:
    table, pairs = CoVisitation(40, m, half_life=HALF_LIFE), Pairs()
    for number, batch in enumerate(random_stream(8, 40, seed)):
        learn(table, batch, 16.0 * number)
        pairs.update(batch, 16.0 * number)
    everything = table.describe(torch.arange(40))
    assert everything.rows.shape == everything.together.shape == everything.forward.shape == (40, m)
    left = torch.exp2((table.touched - pairs.clock) / HALF_LIFE)
    for item in range(1, 40):
        row = together(table, item)
        assert len(row) == int((everything.rows[item] > 0).sum())
        for other, weight in row.items():
            assert 0 < weight * float(left[item]) <= pairs.together[item, other] * 1.001
        for other, weight in forward(table, item).items():
            assert 0 < weight * float(left[item]) <= pairs.forward[item, other] * 1.001
    assert not everything.rows[0].any()


def test_a_frequent_neighbour_outlives_a_flood_of_chance_ones() -> None:
    table = CoVisitation(2000, 4)
    for number in range(200):
        learn(table, [([2], 1), *(([3 + number * 9 + chance], 1) for chance in range(9))])
    assert together(table, 1)[2] > 100


def test_items_beyond_the_window_are_not_read() -> None:
    table = CoVisitation(9, 4, window=2)
    learn(table, [([4, 3, 2], 1)])
    assert sorted(together(table, 1)) == [2, 3]
    assert table.score(torch.tensor([[4, 5, 6], [2, 5, 6]]), 0.0).top(2).tolist() == [[0, 0], [0, 0]]
    assert table.score(torch.tensor([[5, 2, 6]]), 0.0).top(1).tolist() == [[1]]


def test_an_unknown_target_and_an_empty_batch_change_nothing() -> None:
    table = CoVisitation(9, 4)
    before = {name: tensor.clone() for name, tensor in table.state().items()}
    assert learn(table, [([1, 2], 0)]) == []
    assert learn(table, []) == []
    assert learn(table, [([], 0)]) == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in table.state().items())


def test_a_first_event_without_history_counts() -> None:
    table = CoVisitation(9, 4)
    assert learn(table, [([], 3)]) == [3]
    assert float(table.count[3]) == 1.0


def test_scoring_changes_nothing() -> None:
    """Invariant 5: prediction is pure."""
    table = CoVisitation(30, 4)
    for number, batch in enumerate(random_stream(4, 30)):
        learn(table, batch, float(number))
    before = {name: tensor.clone() for name, tensor in table.state().items()}
    scored = table.score(torch.tensor([[1, 2, 3]]), 999.0)
    scored.top(5), scored.at(torch.tensor([[1, 2]]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in table.state().items())


def test_an_item_that_takes_a_cleared_row_inherits_nothing() -> None:
    table = CoVisitation(9, 2)
    learn(table, [([2], 1), ([3], 1), ([2], 3)])
    table.clear(torch.tensor([2]))
    assert [together(table, item) for item in (1, 2, 3)] == [{3: 1.0}, {}, {1: 1.0}]
    assert (float(table.count[2]), float(table.touched[2])) == (0.0, 0.0)
    learn(table, [([4], 1)])
    assert together(table, 1) == {3: 1.0, 4: 1.0}


def test_it_learns_the_same_after_it_grew() -> None:
    small, large = CoVisitation(30, 5), CoVisitation(70, 5)
    for number, batch in enumerate(random_stream(6, 30)):
        learn(small, batch, 16.0 * number)
        learn(large, batch, 16.0 * number)
        if number == 2:
            with torch.inference_mode():
                small.grow(70)
    assert all(torch.equal(tensor, large.state()[name]) for name, tensor in small.state().items())
    small.grow(10)
    assert len(small.count) == 70


def test_the_same_stream_gives_the_same_bits() -> None:
    """Invariant 8: same log, same seed, same weights."""
    first, second = CoVisitation(60, 4), CoVisitation(60, 4)
    for table in (first, second):
        for number, batch in enumerate(random_stream(20, 60)):
            learn(table, batch, 16.0 * number)
    assert all(torch.equal(tensor, second.state()[name]) for name, tensor in first.state().items())


def test_a_loaded_table_goes_on_as_the_saved_one_does() -> None:
    saved, loaded = CoVisitation(30, 5), CoVisitation(4, 5)
    first, second = random_stream(2, 30)
    learn(saved, first, 5.0)
    loaded.load(saved.state())
    for table in (saved, loaded):
        learn(table, second, 9.0)
    assert all(torch.equal(tensor, loaded.state()[name]) for name, tensor in saved.state().items())
    learn(saved, first, 10.0)
    assert not torch.equal(saved.state()["together"], loaded.state()["together"])


def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing() -> None:
    table, other = CoVisitation(9, 4), CoVisitation(9, 5)
    learn(other, [([2], 1)])
    short = {**table.state(), "count": torch.zeros(3)}
    wrong = {**table.state(), "touched": torch.zeros(9)}
    missing = {name: tensor for name, tensor in table.state().items() if name != "forward"}
    cases = ((other.state(), "neighbours"), (short, "count"), (wrong, "touched"), (missing, "forward"))
    for state, name in cases:
        with pytest.raises(StateMismatch, match=f"saved co-visitation: {name} is ") as caught:
            table.load(state)
        assert caught.value.field == name
    assert not table.count.any()


def test_only_items_that_were_used_together_take_memory_and_a_forgotten_ones_goes_to_the_next() -> None:
    table = CoVisitation(100_000, 4)
    learn(table, [([], 7), ([5], 6)])
    assert table.state()["neighbours"].shape == (3, 4)  # slot 0 is nobody's
    assert float(table.count[7]) == 1.0
    table.clear(torch.tensor([5]))
    learn(table, [([8], 6)])
    assert table.state()["neighbours"].shape == (3, 4)
    assert together(table, 8) == {6: 1.0}
    assert together(table, 5) == {}


def test_items_named_twice_to_be_forgotten_leave_a_slot_for_one_other_only() -> None:
    table = CoVisitation(9, 4)
    learn(table, [([2], 1)])
    table.clear(torch.tensor([2, 2]))
    learn(table, [([3], 4)])
    assert (together(table, 3), together(table, 4), together(table, 1)) == ({4: 1.0}, {3: 1.0}, {})


def test_a_placed_item_has_the_neighbours_that_were_described() -> None:
    source, mirror = CoVisitation(9, 4), CoVisitation(9, 4)
    learn(source, [([5, 4], 1), ([2], 3)])
    rows = torch.arange(1, 9)
    mirror.place(rows, source.describe(rows))
    assert all(torch.equal(a, b) for a, b in zip(mirror.describe(rows), source.describe(rows), strict=True))
    source.clear(torch.tensor([1]))
    mirror.place(rows, source.describe(rows))
    assert together(mirror, 1) == together(mirror, 4) == {}


def test_it_names_the_item_of_the_past_that_speaks_most_for_each_shown_one() -> None:
    table = CoVisitation(9, 4)
    learn(table, [([1], 3), ([1], 3), ([2], 3), ([2], 4)])
    place, weight = table.speakers(torch.tensor([[1, 2]]), torch.tensor([[3, 4, 5, 0]]))
    assert place[0, :2].tolist() == [0, 1]
    assert (weight[0] > 0).tolist() == [True, True, False, False]
