"""LEARN's shortlists: the same candidates as from the table, of what was published last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from learner.items import ItemTable
from learner.shelf import search_shelf
from schemas.settings import Index, Model
from streams.shortlists import Shortlists

ITEMS = 200


@pytest.fixture
def table() -> ItemTable:
    """Items of which the shop may recommend all and the news half."""
    made = ItemTable(("shop", "news"), Model(dimension=8))
    generator = torch.Generator().manual_seed(0)
    rows = [made.add(f"i{number}") for number in range(ITEMS)]
    made.vectors[rows] = torch.randn(ITEMS, 8, generator=generator)
    made.bias[:, rows] = torch.randn(2, ITEMS, generator=generator)
    made.eligible[0, rows] = True
    made.eligible[1, rows[::2]] = True
    return made


@pytest.fixture
def shortlists(table: ItemTable) -> Iterator[Shortlists]:
    made = Shortlists(table, Index(exact_items=150, recall=1.0))
    yield made
    made.close()


def found(shortlists: Shortlists, scenario: int, excluded: list[int] | None = None) -> list[int]:
    query = torch.ones(1, 8)
    rows, _ = shortlists.search_of(scenario)(query, 20, None if excluded is None else torch.tensor([excluded]), None)
    return [row for row in rows[0].tolist() if row]


def by_table(table: ItemTable, scenario: int) -> list[int]:
    rows, _ = search_shelf(table, scenario)(torch.ones(1, 8), 20, None, None)
    return rows[0].tolist()


def test_only_a_large_scenario_has_an_index_and_both_find_what_the_table_holds(
    table: ItemTable, shortlists: Shortlists
) -> None:
    shortlists.tell(range(1, ITEMS + 1))
    assert [len(index) for index in shortlists.indexes] == [ITEMS]
    for scenario in (0, 1):
        assert found(shortlists, scenario) == by_table(table, scenario)


def test_an_index_holds_what_was_published_last(table: ItemTable, shortlists: Shortlists) -> None:
    shortlists.tell(range(1, ITEMS + 1))
    before = found(shortlists, 0)
    table.vectors[before[0]] = -10.0
    assert found(shortlists, 0) == before
    shortlists.tell(before[:1])
    assert found(shortlists, 0) == by_table(table, 0) != before


def test_what_may_not_be_recommended_any_more_leaves_the_index_when_that_is_told(
    table: ItemTable, shortlists: Shortlists
) -> None:
    shortlists.tell(range(1, ITEMS + 1))
    best = found(shortlists, 0)[0]
    table.set_eligible(str(table.id_of[best]), ["news"])
    shortlists.tell([best])
    assert best not in found(shortlists, 0)
    assert found(shortlists, 1) == by_table(table, 1)


def test_what_is_excluded_is_not_found(shortlists: Shortlists) -> None:
    shortlists.tell(range(1, ITEMS + 1))
    first, second, *_ = found(shortlists, 0)
    assert found(shortlists, 0, [first, 0])[0] == second
