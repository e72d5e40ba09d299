"""Rows of every format become the same events, a bad row costs itself alone, and a useless file says why."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as property_settings
from hypothesis import strategies as some

from schemas.decoding import Invalid
from schemas.events import Event, decode_event
from streams.sources import (
    COLUMNS_HELP,
    EVENT_COLUMNS,
    ColumnsMissing,
    Row,
    SourceDamaged,
    SourceMissing,
    UnknownFormat,
    open_history,
    shelf,
)

ODD_HEADER = """favori,UserId,ItemId,Timestamp
favori,3423,186758,2022-06-24 21:20:11\x20
favori,3423,186758,2022-06-24 21:20:13\x20
"""

STRANGE_IDS = [
    "a/b",
    "50%",
    "a%2Fb",
    "what?",
    "#1",
    "two words",
    "\N{ROCKET}",
    "\N{RIGHT-TO-LEFT MARK}x",
    "é" * 150,
    "..",
]

in_place = property_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])

text = some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
event = some.fixed_dictionaries(
    {"user_id": text, "item_id": text, "event": text, "timestamp": some.integers(1, 2_000_000_000)}
)


def events_of(source: Path | str, *, event: str | None = None) -> list[Row]:
    return list(open_history(str(source), items=None, event=event).events())


def good(rows: list[Row]) -> list[dict[str, Any]]:
    return [row.record for row in rows if not isinstance(row.record, Invalid)]


def refused(rows: list[Row]) -> dict[int, str]:
    return {row.line: row.record.code for row in rows if isinstance(row.record, Invalid)}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_records(path: Path, records: list[dict[str, Any]]) -> Path:
    """The same records in the format that the name asks for."""
    if ".parquet" in path.suffixes:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
        content = path.read_bytes()
    elif ".csv" in path.suffixes:
        lines = StringIO(newline="")
        writer = csv.DictWriter(lines, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
        content = lines.getvalue().encode()
    else:
        content = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    return write(path, gzip.compress(content) if path.suffix == ".gz" else content)


FORMATS = ["jsonl", "csv", "parquet", "jsonl.gz", "csv.gz", "parquet.gz"]


@pytest.mark.parametrize("ending", FORMATS)
def test_every_format_yields_the_same_events(tmp_path: Path, ending: str) -> None:
    records = [{"user_id": each, "item_id": f"i{each}", "event": "view", "timestamp": 5} for each in STRANGE_IDS]
    rows = events_of(write_records(tmp_path / f"history.{ending}", records))
    assert good(rows) == records
    assert [row.scenario for row in rows] == [None] * len(records)


@given(records=some.lists(event, min_size=1, max_size=5))
@in_place
def test_any_text_survives_a_file_of_json_lines(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    assert good(events_of(write_records(tmp_path / "history.jsonl", records))) == records


@given(records=some.lists(event, min_size=1, max_size=5))
@in_place
def test_any_text_survives_a_csv_file(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    assert good(events_of(write_records(tmp_path / "history.csv", records))) == records


@given(records=some.lists(event, min_size=1, max_size=5))
@in_place
def test_any_text_survives_a_parquet_file(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    assert good(events_of(write_records(tmp_path / "history.parquet", records))) == records


@pytest.mark.parametrize("ending", ["jsonl", "csv", "csv.gz"])
@given(content=some.binary(max_size=200))
@in_place
def test_no_bytes_after_a_good_start_stop_the_reading(tmp_path: Path, ending: str, content: bytes) -> None:
    start = {"jsonl": b'{"user_id":"u","item_id":"i","event":"view"}\n'}.get(
        ending, b"user_id,item_id,event\nu,i,view\n"
    )
    whole = start + content
    path = write(tmp_path / f"history.{ending}", gzip.compress(whole) if ending.endswith("gz") else whole)
    rows = events_of(path)
    assert rows[0].record == {"user_id": "u", "item_id": "i", "event": "view"}


def test_an_odd_header_is_understood_and_times_without_a_zone_pass_on(tmp_path: Path) -> None:
    rows = events_of(write(tmp_path / "feedback.csv", ODD_HEADER))
    assert rows == [
        Row(2, None, {"user_id": "3423", "item_id": "186758", "event": "favori", "timestamp": "2022-06-24 21:20:11"}),
        Row(3, None, {"user_id": "3423", "item_id": "186758", "event": "favori", "timestamp": "2022-06-24 21:20:13"}),
    ]


def test_one_name_for_all_events_replaces_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "feedback.csv", ODD_HEADER)
    assert [record["event"] for record in good(events_of(path, event="like"))] == ["like", "like"]
    without = write(tmp_path / "bare.csv", "user,item\n1,2\n")
    assert good(events_of(without, event="like")) == [{"user_id": "1", "item_id": "2", "event": "like"}]


@pytest.mark.parametrize(
    ("field", "alias"), [(field, alias) for field in EVENT_COLUMNS for alias in EVENT_COLUMNS[field]]
)
def test_an_alias_is_understood_in_any_spelling_and_listed_in_the_help(tmp_path: Path, field: str, alias: str) -> None:
    assert alias in COLUMNS_HELP
    row = {"user_id": "u", "item_id": "i", "event": "e", field: "7"}
    spelt = alias.title().replace("_", "") if len(alias) % 2 else alias.upper().replace("_", " ")
    renamed = {spelt if name == field else name: value for name, value in row.items()}
    (found,) = events_of(write_records(tmp_path / "history.csv", [renamed]))
    assert isinstance(found.record, dict)
    value = found.scenario if field == "scenario" else str(found.record[field]).removesuffix(".0")
    assert value == "7"


def test_a_column_by_its_own_name_goes_before_an_alias(tmp_path: Path) -> None:
    path = write(tmp_path / "history.csv", "type,user,user_id,item_id,event\nphone,x,u,i,view\n")
    assert good(events_of(path)) == [{"user_id": "u", "item_id": "i", "event": "view"}]


def test_missing_columns_are_named_with_those_found_and_the_names_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "history.csv", "who,item_id,event\n1,2,view\n")
    with pytest.raises(ColumnsMissing) as caught:
        events_of(path)
    assert (caught.value.missing, caught.value.found) == (("user_id",), ("who", "item_id", "event"))
    assert "'who'" in str(caught.value)
    assert "customer_id" in str(caught.value)
    with pytest.raises(ColumnsMissing, match="--event NAME"):
        events_of(write(tmp_path / "bare.csv", "user,item\n1,2\n"))


def test_bad_rows_of_a_csv_file_are_named_by_line_and_the_others_stay(tmp_path: Path) -> None:
    content = "user_id,item_id,event\n1,2,view\n1,2\n\n1,2,view,4\n3,4,view\n"
    rows = events_of(write(tmp_path / "history.csv", content))
    assert refused(rows) == {3: "bad-row", 5: "bad-row"}
    assert [row.line for row in rows if isinstance(row.record, dict)] == [2, 6]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    lines = ["user_id,item_id,event", "1,2,view", '1,"3,view', *(f"{user},4,view" for user in range(20_000))]
    rows = events_of(write(tmp_path / "history.csv", "\n".join(lines)))
    assert refused(rows) == {3: "bad-row"}
    assert len(good(rows)) == 20_001
    assert rows[-1] == Row(20_003, None, {"user_id": "19999", "item_id": "4", "event": "view"})


def test_bad_lines_of_json_are_named_and_the_others_stay(tmp_path: Path) -> None:
    lines = [
        b'{"user_id": "u", "item_id": "i", "event": "view"}',
        b"not json",
        b"[1]",
        b'{"user_id": NaN}',
        b'{"value": 1e999}',
        b"[" * 100_000,
        b'{"user_id": "\xff"}',
        b"",
        b'{"user_id": 12345678901234567890123, "item_id": 4, "event": "view"}',
    ]
    rows = events_of(write(tmp_path / "history.jsonl", b"\n".join(lines)))
    assert refused(rows) == dict.fromkeys(range(2, 8), "not-json")
    assert [row.line for row in rows if isinstance(row.record, dict)] == [1, 9]


def test_empty_ids_stay_to_be_refused_and_other_empty_cells_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "history.csv", "user_id,item_id,event,timestamp,value,scenario\n,i,view,,,\n")
    assert events_of(path) == [Row(2, None, {"user_id": "", "item_id": "i", "event": "view"})]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1650000000", 1650000000),
        ("1650000000.5", 1650000000.5),
        ("1650000000123", 1650000000123),
        ("2022-06-24T21:20:11+02:00", "2022-06-24T21:20:11+02:00"),
        ("2019-10-01 00:00:00 UTC", "2019-10-01 00:00:00+00:00"),
        ("2022-06-24 21:20:11 +0000 UTC", "2022-06-24 21:20:11+0000"),
        ("nan", "nan"),
        ("yesterday", "yesterday"),
    ],
)
def test_times_are_read_as_they_are_written_in_files(tmp_path: Path, written: str, read: object) -> None:
    path = write(tmp_path / "history.csv", f"user_id,item_id,event,timestamp\nu,i,view,{written}\n")
    assert good(events_of(path))[0]["timestamp"] == read


def test_parquet_gives_back_ids_that_became_floats_and_times_of_its_own_type(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "user_id": pyarrow.array([42.0, float("nan")]),
            "item_id": pyarrow.array(["i", "i"]),
            "event": pyarrow.array(["view", "view"]).dictionary_encode(),
            "timestamp": pyarrow.array(
                [datetime(2022, 6, 24, 21, 20, 11), datetime(2022, 6, 24)], pyarrow.timestamp("us")
            ),
            "rating": pyarrow.array([4.5, None]),
        }
    )
    path = tmp_path / "history.parquet"
    pyarrow.parquet.write_table(table, path)
    assert events_of(path) == [
        Row(
            1, None, {"user_id": 42, "item_id": "i", "event": "view", "timestamp": "2022-06-24T21:20:11", "value": 4.5}
        ),
        Row(2, None, {"item_id": "i", "event": "view", "timestamp": "2022-06-24T00:00:00"}),
    ]


def test_tabs_and_semicolons_divide_as_well_and_a_byte_order_mark_is_no_letter(tmp_path: Path) -> None:
    expected = [{"user_id": "1", "item_id": 'a "2', "event": "view"}]
    assert good(events_of(write(tmp_path / "a.tsv", 'user_id\titem_id\tevent\n1\ta "2\tview\n'))) == expected
    assert good(events_of(write(tmp_path / "b.csv", '\ufeffuser_id;item_id;event\n1;a "2;view\n'))) == expected


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


def test_times_without_a_zone_mean_utc_to_the_decoder(tmp_path: Path) -> None:
    (row, _) = events_of(write(tmp_path / "feedback.csv", ODD_HEADER))
    decoded = decode_event(msgspec.json.encode(row.record), 2e9, "shop", {"favori": 1.0}, Counter())
    assert isinstance(decoded, Event)
    assert decoded.time == datetime(2022, 6, 24, 21, 20, 11, tzinfo=UTC).timestamp()
