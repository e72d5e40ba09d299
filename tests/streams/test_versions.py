"""Versions: those that are kept lie the closer together the younger they are, and what is needed always stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.tables import Version
from streams.versions import to_drop

MINUTE = 60.0


def version(number: int, made_at: float) -> Version:
    return Version(
        scenario="shop", version=number, lineage="l", step=number, made_at=made_at, checkpoint=number, metrics="{}",
        note="",
    )  # fmt: skip


def kept_after(minutes: int, most: int) -> list[float]:
    """Ages, in minutes, of what is kept if a version is made every minute for so long."""
    kept: list[Version] = []
    for minute in range(minutes):
        kept.append(version(minute + 1, minute * MINUTE))
        gone = to_drop(kept, minute * MINUTE, most)
        kept = [each for each in kept if each not in gone]
        assert len(kept) <= most
    return sorted((minutes - 1) - each.made_at / MINUTE for each in kept)


def test_one_can_go_back_minutes_an_hour_and_a_day() -> None:
    ages = kept_after(2 * 24 * 60, most=8)
    assert ages[0] == 0
    assert any(1 <= age <= 10 for age in ages)
    assert any(20 <= age <= 180 for age in ages)
    assert any(6 * 60 <= age <= 40 * 60 for age in ages)


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=40, unique=True), st.integers(1, 10), st.data())
def test_no_more_stay_than_allowed_unless_they_are_needed_and_the_newest_stays(
    times: list[int], most: int, data: st.DataObject
) -> None:
    versions = [version(number + 1, float(at)) for number, at in enumerate(sorted(times))]
    needed = set(data.draw(st.lists(st.sampled_from([each.version for each in versions]), max_size=5)))
    gone = {each.version for each in to_drop(versions, 100_000.0, most, needed)}
    left = {each.version for each in versions} - gone
    assert needed <= left
    assert versions[-1].version in left
    assert len(left) <= max(most, len(needed | {versions[-1].version}))
