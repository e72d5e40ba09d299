"""The chart counts what was acted on lately."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.chart import Chart


def test_the_most_acted_on_come_first_and_what_the_user_knows_is_left_out() -> None:
    chart = Chart(60.0)
    for item_id in ("a", "b", "b", "c", "c", "c"):
        chart.note(item_id, 0.0)
    assert chart.top(2, without=set()) == ["c", "b"]
    assert chart.top(2, without={"c"}) == ["b", "a"]
    assert chart.top(9, without={"a", "b", "c"}) == []


def test_a_dropped_item_is_shown_to_nobody() -> None:
    chart = Chart(60.0)
    chart.note("a", 0.0)
    chart.note("b", 0.0)
    chart.drop("a")
    chart.drop("never noted")
    assert chart.top(9, without=set()) == ["b"]


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from("abcd")), min_size=1).map(sorted))
def test_only_acts_within_the_span_count(acts: list[tuple[float, str]]) -> None:
    chart = Chart(10.0)
    for at, item_id in acts:
        chart.note(item_id, at)
    now = acts[-1][0]
    assert set(chart.top(9, without=set())) == {item_id for at, item_id in acts if at >= now - 10.0}
