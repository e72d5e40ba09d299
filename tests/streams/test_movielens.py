"""MovieLens is read by time in both of its layouts, and each film stands on one shelf."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.columns import Row
from streams.movielens import shelf
from streams.sources import open_history
from tests.streams.builders import good, refused, write

GROUPLENS = {
    "u.genre": "unknown|0\nAction|1\nAnimation|2\nChildren's|3\nComedy|4\nDrama|5\n\n",
    "u.item": "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|1|1|1|0\n2|Caf\xe9 (1995)|01-Jan-1995||http://x|0|0|0|0|0|1\n",
    "u.data": "9\t2\t3\t881250949\n8\t1\t5\t881250900\n7\t1\tx\n6\t1\t4\t881250949\n",
}
RECBOLE = {
    "ml.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tToy Story\t1995\tAnimation Children's Comedy\n2\tCafé\t1995\tDrama\n",
    "ml.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "9\t2\t3\t881250949\n8\t1\t5\t881250900\n7\t1\tx\n6\t1\t4\t881250949\n",
}


@pytest.mark.parametrize(("files", "encoding", "first"), [(GROUPLENS, "latin-1", 1), (RECBOLE, "utf-8", 2)])
def test_movielens_is_read_by_time_in_both_layouts(
    tmp_path: Path, files: dict[str, str], encoding: str, first: int
) -> None:
    for name, content in files.items():
        write(tmp_path / name, content.encode(encoding))
    history = open_history(f"movielens:{tmp_path}", items=None, event=None)
    assert list(history.items()) == [
        Row(
            first,
            "family",
            {"item_id": "1", "title": "Toy Story (1995)", "categories": ["Animation", "Children's", "Comedy"]},
        ),
        Row(first + 1, "drama", {"item_id": "2", "title": "Café (1995)", "categories": ["Drama"]}),
    ]
    rows = list(history.events())
    assert refused(rows) == {first + 2: "bad-row"}
    assert [
        (row.line, row.scenario, row.record["user_id"], row.record["value"])
        for row in rows
        if isinstance(row.record, dict)
    ] == [
        (first + 1, "family", "8", 5.0),
        (first, "drama", "9", 3.0),
        (first + 3, "family", "6", 4.0),
    ]
    assert {record["event"] for record in good(rows)} == {"rate"}


def test_a_film_stands_on_the_first_shelf_that_one_of_its_genres_belongs_on() -> None:
    genres = [["Comedy", "Horror"], ["Comedy", "War"], ["Comedy", "Romance"], ["Romance"], [], ["Crime", "Musical"]]
    assert [shelf(each) for each in genres] == ["thrill", "action", "comedy", "drama", "drama", "family"]
