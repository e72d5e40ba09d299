"""Packed lists behave as the lists they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.packed import holds, pack, pack_times, unpack, unpack_times, without, without_oldest

# Few letters, so that one id is often a part of another.
IDS = st.text(st.sampled_from("ab/é🙂"), min_size=1, max_size=3)


@given(st.lists(IDS))
def test_ids_come_back_in_their_order(ids: list[str]) -> None:
    assert unpack(pack(ids)) == ids


@given(st.lists(IDS), IDS)
def test_an_id_is_found_whole_or_not_at_all(ids: list[str], name: str) -> None:
    assert holds(pack(ids), name) == (name in ids)


@given(st.lists(IDS, unique=True), IDS)
def test_an_id_that_is_taken_out_leaves_the_others_as_they_were(ids: list[str], name: str) -> None:
    assert unpack(without(pack(ids), name)) == [each for each in ids if each != name]


@given(st.lists(IDS, min_size=1))
def test_the_oldest_is_the_first(ids: list[str]) -> None:
    assert unpack(without_oldest(pack(ids))) == ids[1:]


@given(st.lists(st.floats(allow_nan=False)))
def test_times_come_back_to_the_bit(times: list[float]) -> None:
    assert unpack_times(pack_times(times)) == tuple(times)
