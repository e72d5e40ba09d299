"""The item table: rows are given, moved and freed without ever mixing up two items."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
import pytest
import torch
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from learner.covisitation import Neighbours
from learner.items import ItemTable, TableFull
from schemas.records import ItemVector, decode_item_vector, encode
from tests.learner.builders import small_model

SCENARIOS = ("shop", "news")
NAMES = st.sampled_from([f"item-{number}" for number in range(9)])


def table(items: int = 5000) -> ItemTable:
    return ItemTable(SCENARIOS, small_model(items=items))


def fill(items: ItemTable, row: int, seed: int) -> None:
    """Give everything about the row a value of its own."""
    generator = torch.Generator().manual_seed(seed)
    items.vectors[row] = torch.rand(items.vectors.shape[1], generator=generator)
    items.bias[:, row] = torch.rand(2, generator=generator)
    items.eligible[:, row] = True
    neighbours = Neighbours(
        torch.arange(1, 9, dtype=torch.int32)[None],
        torch.rand(1, 8, generator=generator),
        torch.rand(1, 8, generator=generator),
    )
    items.covisitation.place(torch.tensor([row]), neighbours)
    items.covisitation.count[row] = seed + 1.0
    items.covisitation.touched[row] = seed + 2.0
    items.popularity.keys[:, row] = torch.rand(2, 2, generator=generator, dtype=torch.float64)
    items.popularity.events[row] = seed + 3


def record(name: str, row: int, seed: int = 0) -> ItemVector:
    """What LEARN would say of an item that it keeps at this row."""
    source = table()
    source.id_of.extend([None] * row)
    source.id_of[row], source.row_of[name] = name, row
    fill(source, row, seed)
    return source.describe(name, fresh=False)


def test_an_item_keeps_the_row_that_it_was_given() -> None:
    items = table()
    assert [items.add("a"), items.add("b"), items.add("a")] == [1, 2, 1]
    assert items.rows(["b", "unknown", "a"]) == [2, 0, 1]


def test_a_full_table_refuses_by_name() -> None:
    items = table(items=2)
    for name in ("a", "b"):
        items.add(name)
    with pytest.raises(TableFull, match=r'item "c" gets no row: model\.items allows 2 items') as raised:
        items.add("c")
    assert (raised.value.item_id, raised.value.capacity) == ("c", 2)
    assert items.add("a") == 1
    items.remove("b")
    assert items.add("c") == 2


def test_growing_keeps_all_that_was_known() -> None:
    items = table()
    row = items.add("first")
    fill(items, row, 5)
    before = items.describe("first", fresh=False)
    for number in range(1500):
        items.add(f"item-{number}")
    assert items.allocated == 2048
    assert items.describe("first", fresh=False) == before
    assert items.eligible[:, row].all()


def test_a_described_item_is_the_same_wherever_it_is_placed() -> None:
    source, mirror = table(), table()
    for number in range(40):
        fill(source, source.add(f"item-{number}"), number)
    records = source.describe_rows(list(source.row_of.values()), fresh=False)
    assert mirror.place_all([decode_item_vector(encode(each)) for each in records]) == list(range(1, 41))
    assert mirror.describe_rows(list(mirror.row_of.values()), fresh=False) == records


def test_a_record_is_read_by_the_names_of_its_scenarios() -> None:
    source, mirror = table(), ItemTable(("news", "travel", "shop"), small_model())
    fill(source, source.add("a"), 1)
    mirror.place(source.describe("a", fresh=False))
    assert torch.equal(mirror.bias[:, 1], torch.stack([source.bias[1, 1], torch.tensor(0.0), source.bias[0, 1]]))
    assert torch.equal(mirror.popularity.keys[2, 1], source.popularity.keys[0, 1])


def test_the_learners_row_wins_over_whoever_sat_there() -> None:
    items = table()
    items.place(record("old", 3))
    items.set_eligible("old", SCENARIOS)
    items.place(record("new", 3, seed=1))
    assert items.rows(["old", "new"]) == [0, 3]
    assert not items.eligible[:, 3].any()


def test_an_item_that_moves_leaves_nothing_behind() -> None:
    items = table()
    items.place(record("a", 3))
    items.place(record("a", 5, seed=1))
    assert items.rows(["a"]) == [5]
    assert items.id_of[3] is None
    assert items.vectors[3].abs().sum() == 0
    assert items.describe("a", fresh=False) == record("a", 5, seed=1)


def test_of_two_records_of_a_moving_item_the_later_counts() -> None:
    items = table()
    items.place_all([record("a", 3), record("a", 5, seed=1), record("b", 3, seed=2)])
    assert items.rows(["a", "b"]) == [5, 3]
    assert items.describe("b", fresh=False) == record("b", 3, seed=2)


def test_a_neighbour_that_is_not_here_yet_has_a_row_that_can_be_looked_up() -> None:
    source, items = table(), table()
    row = source.add("a")
    fill(source, row, 1)
    far = torch.tensor([[3000, 4999, 5000, 5001, 9000, 0, 0, 0]], dtype=torch.int32)
    source.covisitation.place(torch.tensor([row]), Neighbours(far, torch.ones(1, 8), torch.ones(1, 8)))
    items.place(source.describe("a", fresh=False))
    assert items.covisitation.describe(torch.tensor([row])).rows.tolist() == [[3000, 4999, 5000, 0, 0, 0, 0, 0]]
    assert items.allocated == 5001
    assert items.covisitation.score(torch.tensor([[row]]), 0.0).top(8)[0].tolist()[3:] == [0] * 5


def test_a_row_beyond_the_capacity_is_refused_whole() -> None:
    items = table(items=4)
    with pytest.raises(TableFull):
        items.place_all([record("a", 2), record("b", 5)])
    assert items.row_of == {}


def test_a_removed_items_row_holds_nothing_and_nobody_names_it() -> None:
    items = table()
    gone, other = items.add("gone"), items.add("other")
    for seed, row in enumerate((gone, other)):
        fill(items, row, seed)
    assert items.remove("gone") == gone
    assert items.remove("gone") == 0
    assert items.add("next") == gone
    nothing = table()
    nothing.add("next")
    assert items.describe("next", fresh=False) == nothing.describe("next", fresh=False)
    assert not items.eligible[:, gone].any()
    assert gone not in items.covisitation.describe(torch.tensor([other])).rows[0].tolist()


def test_eligibility_is_per_scenario_and_ends_when_it_is_not_named() -> None:
    items = table()
    items.add("a")
    items.set_eligible("a", ["news", "not configured"])
    assert items.eligible[:, 1].tolist() == [False, True]
    items.set_eligible("a", [])
    assert items.eligible[:, 1].tolist() == [False, False]


def test_a_saved_table_comes_back_whole() -> None:
    items = table()
    for number in range(5):
        fill(items, items.add(f"item-{number}"), number)
    items.remove("item-2")
    again = table()
    again.load({name: tensor.clone() for name, tensor in items.state().items()}, items.names())
    rows = list(items.row_of.values())
    assert again.row_of == items.row_of
    assert again.describe_rows(rows, fresh=False) == items.describe_rows(rows, fresh=False)
    assert torch.equal(again.eligible, items.eligible)
    assert again.add("next") == items.add("next")


class Tables(RuleBasedStateMachine):
    """Any mix of adding, placing and removing: ids and rows stay a pairing, free rows stay blank."""

    def __init__(self) -> None:
        super().__init__()
        self.items = ItemTable(SCENARIOS, small_model(items=12))
        self.expected: dict[str, bytes] = {}

    @rule(name=NAMES, seed=st.integers(0, 99))
    def add(self, name: str, seed: int) -> None:
        fill(self.items, self.items.add(name), seed)
        self._expect(name)

    @rule(name=NAMES, row=st.integers(1, 12), seed=st.integers(0, 99))
    def place(self, name: str, row: int, seed: int) -> None:
        sitting = self.items.id_of[row] if row < len(self.items.id_of) else None
        if sitting is not None:
            self.expected.pop(sitting, None)
        self.items.place(record(name, row, seed))
        self._expect(name)

    @rule(name=NAMES)
    def remove(self, name: str) -> None:
        self.items.remove(name)
        self.expected.pop(name, None)

    def _expect(self, name: str) -> None:
        self.expected[name] = self.items.describe(name, fresh=False).vector

    @invariant()
    def every_item_has_its_own_row_and_vector(self) -> None:
        items = self.items
        assert set(items.row_of) == set(self.expected)
        assert {row: name for name, row in items.row_of.items()} == {
            row: name for row, name in enumerate(items.id_of) if name is not None
        }
        for name, vector in self.expected.items():
            assert items.describe(name, fresh=False).vector == vector

    @invariant()
    def free_rows_are_blank(self) -> None:
        free = [row for row in range(self.items.allocated) if row not in set(self.items.row_of.values())]
        assert self.items.vectors[free].abs().sum() == 0
        assert not self.items.eligible[:, free].any()
        assert self.items.popularity.keys[:, free].max() == -torch.inf


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_records_cross_the_wire_unchanged() -> None:
    sent = record("a", 2)
    assert msgspec.structs.asdict(decode_item_vector(encode(sent))) == msgspec.structs.asdict(sent)
