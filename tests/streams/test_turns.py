"""A poll is cut into turns that lose nothing, repeat nothing, and take about as long as they are given."""

from __future__ import annotations

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from streams.transport import Part, Poll
from streams.turns import FIRST_RECORDS, LEAST_RECORDS, Turns


def poll_of(*partitions: list[int]) -> Poll:
    """A poll of records at these offsets; the position of each partition is five beyond its last one."""
    poll = Poll("events", 3)
    for number, offsets in enumerate(partitions):
        records = [SimpleNamespace(offset=offset) for offset in offsets]
        poll.parts.append(Part("events", number, records, 0, (offsets[-1] if offsets else 0) + 5))
    return poll


def test_a_turn_is_as_long_as_it_should_be_once_it_is_known_how_long_records_take() -> None:
    turns, sizes = Turns(0.1), []
    for piece in turns.cut(poll_of(list(range(2000)), list(range(2000)))):
        sizes.append(sum(len(part.records) for part in piece.parts))
        turns.took("events", sizes[-1], sizes[-1] / 4000)
    assert sizes[0] == FIRST_RECORDS
    assert set(sizes[3:-1]) == {400}
    assert sum(sizes) == 4000


def test_records_that_take_for_ever_are_still_worked_in_batches() -> None:
    turns = Turns(0.1)
    turns.took("events", 100, 1e6)
    assert [len(piece.parts[0].records) for piece in turns.cut(poll_of(list(range(40))))] == [LEAST_RECORDS] * 2 + [8]


def test_one_topic_has_no_say_in_anothers_turns_and_nothing_is_cut_where_nobody_waits() -> None:
    turns = Turns(0.1)
    turns.took("requests", 100, 10.0)
    assert len(next(turns.cut(poll_of(list(range(500))))).parts[0].records) == FIRST_RECORDS
    endless = Turns(math.inf)
    for _ in range(2000):  # as many as LEARN works in a few minutes
        assert len(list(endless.cut(poll_of(list(range(5)))))) == 1
        endless.took("events", 5, 0.01)
    assert len(list(endless.cut(poll_of(list(range(5000)))))) == 1


@given(st.lists(st.lists(st.integers(0, 500), unique=True).map(sorted), min_size=1, max_size=4), st.integers(1, 60))
def test_pieces_follow_each_other_without_a_gap(partitions: list[list[int]], most: int) -> None:
    whole = poll_of(*partitions)
    left: Poll | None = whole
    at, seen = [0] * len(partitions), [list[int]() for _ in partitions]
    while left is not None:
        piece, left = left.split(most)
        assert piece.epoch == whole.epoch
        for part in piece.parts:
            assert part.follows == at[part.partition]
            assert all(part.follows <= record.offset < part.next for record in part.records)
            at[part.partition] = part.next
            seen[part.partition] += [record.offset for record in part.records]
    assert seen == partitions
    assert at == [part.next for part in whole.parts]
