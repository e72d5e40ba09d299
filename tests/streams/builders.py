"""Settings, events and files of history for the tests of this folder, and what is read from such files."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from schemas.decoding import Invalid
from schemas.settings import Kafka, Scenario, Settings
from streams.sources import Row, open_history

ODD_HEADER = """favori,UserId,ItemId,Timestamp
favori,3423,186758,2022-06-24 21:20:11\x20
favori,3423,186758,2022-06-24 21:20:13\x20
"""

WEIGHTS = {"view": 1.0, "like": 2.0, "rate": 1.0}


def settings_of(prefix: str = "t.", scenarios: Sequence[str] = ("shop", "video")) -> Settings:
    return Settings(
        kafka=Kafka(prefix=prefix, partitions=2), scenarios={name: Scenario(events=WEIGHTS) for name in scenarios}
    )


def event(user: str | int, *, name: str = "view", **more: object) -> dict[str, Any]:
    return {"user_id": user, "item_id": "i", "event": name, **more}


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


def events_of(source: Path | str, *, event: str | None = None) -> list[Row]:
    return list(open_history(str(source), items=None, event=event).events())


def good(rows: list[Row]) -> list[dict[str, Any]]:
    return [row.record for row in rows if not isinstance(row.record, Invalid)]


def refused(rows: list[Row]) -> dict[int, str]:
    return {row.line: row.record.code for row in rows if isinstance(row.record, Invalid)}
