"""Similar items are those whose vectors point the same way, whatever is popular and however long the vectors are."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.nn import functional

from learner.items import ItemTable
from learner.shelf import search_shelf
from learner.similarity import FETCHED_AT_LEAST, most_similar
from tests.learner.builders import assert_near, small_model

NOTHING = torch.zeros(1, 0, dtype=torch.long)


def table_of(vectors: Tensor) -> ItemTable:
    """Items in rows from 1, all on one shelf."""
    table = ItemTable(("shop",), small_model())
    for number, vector in enumerate(vectors):
        row = table.add(f"item-{number}")
        table.vectors[row] = vector
        table.eligible[0, row] = True
    return table


def similar(table: ItemTable, item: int, k: int, excluded: Tensor = NOTHING) -> tuple[list[int], list[float]]:
    rows, cosines = most_similar(table, [item], k, search_shelf(table, 0), excluded)
    return rows[0].tolist(), cosines[0].tolist()


def test_neither_popularity_nor_the_length_of_a_vector_makes_an_item_similar() -> None:
    east, north = torch.eye(8)[:2]
    table = table_of(torch.stack([east, 0.2 * (east + 0.1 * north), 5.0 * (east + north), 3.0 * north, -east]))
    table.bias[0, 4] = 50.0
    rows, cosines = similar(table, 1, 4)
    assert rows == [2, 3, 4, 5]
    assert_near(torch.tensor(cosines), torch.tensor([0.995037, 0.707107, 0.0, -1.0]))


def test_an_item_of_which_nothing_is_known_gets_what_the_index_puts_first() -> None:
    table = table_of(torch.cat([torch.zeros(1, 8), torch.eye(8)[:3]]))
    table.bias[0, 2:5] = torch.tensor([0.0, 2.0, 1.0])
    assert similar(table, 1, 2) == ([3, 4], [0.0, 0.0])


def test_each_item_of_a_batch_is_answered_as_it_would_be_alone() -> None:
    table = table_of(torch.randn(30, 8, generator=torch.Generator().manual_seed(3)))
    excluded = torch.tensor([[4, 0], [7, 9]])
    rows, _ = most_similar(table, [1, 2], 5, search_shelf(table, 0), excluded)
    assert rows.tolist() == [similar(table, item, 5, excluded[item - 1 : item])[0] for item in (1, 2)]


@settings(max_examples=60, deadline=None)
@given(
    eligible=st.lists(st.booleans(), min_size=20, max_size=20),
    item=st.integers(1, 20),
    excluded=st.lists(st.integers(0, 20), max_size=4),
    allowed=st.none() | st.lists(st.integers(1, 20), max_size=20),
    k=st.integers(1, 30),
)
def test_of_what_is_permitted_the_nearest_are_found_and_never_too_few(
    eligible: list[bool], item: int, excluded: list[int], allowed: list[int] | None, k: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    table = table_of(torch.randn(20, 8, generator=generator))
    table.bias[0] = 10 * torch.randn(table.allocated, generator=generator)
    table.eligible[0, 1:21] = torch.tensor(eligible)
    among = None if allowed is None else torch.tensor(allowed, dtype=torch.long)
    banned = torch.tensor([excluded], dtype=torch.long)
    rows, cosines = most_similar(table, [item], k, search_shelf(table, 0), banned, among)
    alike = functional.cosine_similarity(table.vectors, table.vectors[item], dim=1)
    permitted = [row for row in range(1, 21) if eligible[row - 1] and row not in (item, *excluded)]
    permitted = [row for row in permitted if allowed is None or row in allowed]
    best = sorted(permitted, key=lambda row: -float(alike[row]))[:k]
    assert [row for row in rows[0].tolist() if row] == best
    assert_near(cosines[0, : len(best)], alike[best])


def test_on_a_large_shelf_those_with_ordinary_vectors_are_all_found() -> None:
    generator = torch.Generator().manual_seed(2)
    directions = functional.normalize(torch.randn(5 * FETCHED_AT_LEAST, 8, generator=generator), dim=1)
    table = table_of(directions * (0.8 + 0.4 * torch.rand(len(directions), 1, generator=generator)))
    alike = directions @ directions[0]
    expected = (alike.topk(11).indices[1:] + 1).tolist()
    assert similar(table, 1, 10)[0] == expected
