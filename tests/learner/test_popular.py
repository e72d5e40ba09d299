"""What is popular is what is used most of late, less what must not be shown, and no model has a part in it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.items import ItemTable
from learner.popular import most_popular
from learner.ranking import Clocks
from tests.learner.builders import small_model

NAMES = "abcdefgh"


def table_of(used: str) -> tuple[ItemTable, Clocks]:
    """A shop of eight items, used in this order; "h" is hidden."""
    table = ItemTable(("shop",), small_model())
    for name in NAMES:
        table.add(name)
        table.set_eligible(name, () if name == "h" else ("shop",))
    if used:
        table.popularity.update(0, torch.tensor(table.rows(used)), 0.0)
    return table, Clocks(len(used), len(used))


def lists(used: str, excluded: list[str], most: int, allowed: str | None = None) -> list[str]:
    table, clocks = table_of(used)
    rows = None if allowed is None else torch.tensor(table.rows(allowed), dtype=torch.int64)
    found = most_popular(table, 0, clocks, [set(table.rows(each)) for each in excluded], most, rows)
    return ["".join(str(table.id_of[row]) for row, _ in each) for each in found]


def test_the_most_used_come_first_and_what_each_user_must_not_see_is_left_out() -> None:
    assert lists("abbccc", ["", "c", "b"], 2) == ["cb", "ba", "ca"]


def test_a_hidden_item_is_in_no_list_however_popular_and_what_was_never_used_comes_last() -> None:
    """Case E27, of what is popular."""
    (found,) = lists("hhhhg", [""], 100)
    assert (found[0], sorted(found)) == ("g", list("abcdefg"))


def test_only_what_is_allowed_is_listed() -> None:
    assert lists("abbccc", ["", "b"], 5, allowed="abh") == ["ba", "a"]
    assert lists("abbccc", [""], 5, allowed="") == [""]


def test_the_score_is_the_share_of_the_events_and_0_for_what_was_never_used() -> None:
    table, clocks = table_of("ab" * 4000)
    ((first, second, third, *_),) = most_popular(table, 0, clocks, [()], 8)
    assert [first[1], second[1], third[1]] == pytest.approx([0.5, 0.5, 0.0], abs=0.08)


@given(st.text(NAMES, max_size=30), st.lists(st.text(NAMES, max_size=8), min_size=1, max_size=4), st.integers(1, 9))
def test_each_list_is_the_order_of_what_was_used_less_what_is_excluded(
    used: str, excluded: list[str], most: int
) -> None:
    (everything,) = lists(used, [""], 100)
    leading = "".join(name for name in everything if name in used)
    for found, unwanted in zip(lists(used, excluded, most), excluded, strict=True):
        visible = set(NAMES) - {"h"} - set(unwanted)
        wanted = "".join(name for name in leading if name in visible)[:most]
        assert found.startswith(wanted)
        assert len(set(found)) == len(found) == min(most, len(visible))
        assert set(found) <= visible
