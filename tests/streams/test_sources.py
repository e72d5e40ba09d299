"""A source is opened by name with the items beside it, can be read again, and a useless one says why."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from streams.sources import Row, open_history
from streams.tables import SourceDamaged, SourceMissing, UnknownFormat
from tests.streams.builders import ODD_HEADER, events_of, good, write


def test_one_name_for_all_events_replaces_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "feedback.csv", ODD_HEADER)
    assert [record["event"] for record in good(events_of(path, event="like"))] == ["like", "like"]
    without = write(tmp_path / "bare.csv", "user,item\n1,2\n")
    assert good(events_of(without, event="like")) == [{"user_id": "1", "item_id": "2", "event": "like"}]


def test_items_beside_the_events_are_found_with_their_categories(tmp_path: Path) -> None:
    write(tmp_path / "events.jsonl", '{"user_id":"u","item_id":"i","event":"view"}\n')
    write(tmp_path / "items.csv", "item_id,title,text,categories,hidden\n007,Tea,,hot|drink,\n8,Ice,cold,,true\n")
    for source in (tmp_path, tmp_path / "events.jsonl"):
        assert list(open_history(str(source), items=None, event=None).items()) == [
            Row(2, None, {"item_id": "007", "title": "Tea", "categories": ["hot", "drink"]}),
            Row(3, None, {"item_id": "8", "title": "Ice", "text": "cold", "hidden": True}),
        ]


def test_a_history_can_be_read_twice(tmp_path: Path) -> None:
    history = open_history(str(write(tmp_path / "feedback.csv", ODD_HEADER)), items=None, event=None)
    assert list(history.events()) == list(history.events())


def test_what_cannot_be_read_says_so_before_anything_else_happens(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="no such file or folder"):
        events_of(tmp_path / "absent.csv")
    with pytest.raises(SourceMissing, match=r"events\.jsonl"):
        events_of(tmp_path)
    with pytest.raises(UnknownFormat, match=r"\.parquet"):
        events_of(write(tmp_path / "history.xlsx", "x"))
    with pytest.raises(SourceDamaged, match="damaged"):
        events_of(write(tmp_path / "history.parquet", "x"))
    whole = gzip.compress(b"".join(b'{"user_id":%d,"item_id":1,"event":"view"}\n' % n for n in range(9000)))
    with pytest.raises(SourceDamaged, match="damaged"):
        events_of(write(tmp_path / "history.jsonl.gz", whole[: len(whole) // 2]))
    with pytest.raises(SourceDamaged, match="line 1: the line is JSON, but not an object"):
        events_of(write(tmp_path / "array.json", '[{"user_id": 1}]'))
    with pytest.raises(SourceMissing, match=r"u\.data"):
        open_history(f"movielens:{tmp_path}", items=None, event=None)
