"""However long a line is and however much a file unpacks to, no more of it is held than is allowed, and it is said."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from streams import tables
from streams.tables import LONGEST_LINE, SourceDamaged, UnpackedTooLarge
from tests.streams.builders import event, events_of, good, refused, write, write_records

GOOD = b'{"user_id": "u", "item_id": "i", "event": "view"}\n'
ALLOWED = 100


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", ALLOWED)


def test_a_line_of_json_that_is_too_long_costs_itself_and_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl.gz"
    long = 8 * LONGEST_LINE
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(GOOD)
        packed.write(b'{"user_id": "')
        for _ in range(long >> 20):
            packed.write(b"x" * (1 << 20))
        packed.write(b'"}\n' + GOOD)
    tracemalloc.start()
    try:
        rows = events_of(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [row.line for row in rows if isinstance(row.record, dict)] == [1, 3]
    (found,) = [row.record for row in rows if row.line == 2]
    assert (found.code, found.message) == (
        "too-large",
        f"the line has {long + 16:,} bytes; at most {LONGEST_LINE:,} are allowed",
    )
    assert peak < 5 * LONGEST_LINE


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("spare", [-1, 0, 1])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_the_longest_line_that_is_allowed_is_read(tmp_path: Path, spare: int, end: bytes) -> None:
    line = GOOD.strip().ljust(ALLOWED - len(end) - spare) + end
    rows = events_of(write(tmp_path / "history.jsonl", GOOD + line))
    assert refused(rows) == ({} if spare >= 0 else {2: "too-large"})
    assert len(good(rows)) == (2 if spare >= 0 else 1)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("field", ["x" * 300, '"open', '"' + "x" * 300])
def test_a_line_of_delimited_text_that_is_too_long_costs_itself(tmp_path: Path, field: str) -> None:
    long = f"1,{field}\n2,{'y' * 300},view"
    content = f"user_id,item_id,event\n1,2,view\n{long}\n3,4,view\n"
    rows = events_of(write(tmp_path / "history.csv", content))
    assert [row.record["user_id"] for row in rows if isinstance(row.record, dict)] == ["1", "3"]
    assert refused(rows)[4] == "too-large"
    assert set(refused(rows)) == {3, 4}


@pytest.mark.usefixtures("short")
def test_a_header_that_is_too_long_ends_the_reading_with_its_file_and_size(tmp_path: Path) -> None:
    path = write(tmp_path / "history.csv", "user_id,item_id,event," + "x" * 300 + "\n1,2,view,3\n")
    with pytest.raises(SourceDamaged, match=r"history\.csv .* line 1 .* 323 characters; at most 100 are allowed"):
        events_of(path)


@pytest.mark.usefixtures("short")
def test_a_file_of_nothing_but_one_long_line_is_named_with_line_and_size(tmp_path: Path) -> None:
    path = write(tmp_path / "history.json", b"[" + b"1," * 300 + b"1]")
    with pytest.raises(SourceDamaged, match=r"history\.json .* line 1: the line has 603 bytes; at most 100"):
        events_of(path)


def test_a_packed_parquet_file_is_unpacked_as_far_as_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_records(tmp_path / "history.parquet.gz", [event("u")])
    size = len(gzip.decompress(path.read_bytes()))
    monkeypatch.setattr(tables, "LARGEST_UNPACKED_BYTES", size)
    assert good(events_of(path)) == [event("u")]
    monkeypatch.setattr(tables, "LARGEST_UNPACKED_BYTES", size - 1)
    with pytest.raises(UnpackedTooLarge, match=rf"history\.parquet\.gz \(.* more than {size - 1:,} bytes.* unpack it"):
        events_of(path)
