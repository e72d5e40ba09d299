"""Rows of every format become the same events, and a bad row costs itself alone."""

from __future__ import annotations

import gzip
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as property_settings
from hypothesis import strategies as some

from streams.columns import Row
from tests.streams.builders import events_of, good, refused, write, write_records

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
