"""Columns are found by any of their names, and what they hold is understood or left for the decoder to refuse."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from schemas.events import Event, decode_event
from streams.columns import COLUMNS_HELP, EVENT_COLUMNS, ColumnsMissing, Row
from tests.streams.builders import ODD_HEADER, events_of, good, write, write_records


def test_an_odd_header_is_understood_and_times_without_a_zone_pass_on(tmp_path: Path) -> None:
    """Case E25."""
    rows = events_of(write(tmp_path / "feedback.csv", ODD_HEADER))
    assert rows == [
        Row(2, None, {"user_id": "3423", "item_id": "186758", "event": "favori", "timestamp": "2022-06-24 21:20:11"}),
        Row(3, None, {"user_id": "3423", "item_id": "186758", "event": "favori", "timestamp": "2022-06-24 21:20:13"}),
    ]


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


def test_times_without_a_zone_mean_utc_to_the_decoder(tmp_path: Path) -> None:
    (row, _) = events_of(write(tmp_path / "feedback.csv", ODD_HEADER))
    decoded = decode_event(msgspec.json.encode(row.record), 2e9, "shop", {"favori": 1.0}, Counter())
    assert isinstance(decoded, Event)
    assert decoded.time == datetime(2022, 6, 24, 21, 20, 11, tzinfo=UTC).timestamp()
