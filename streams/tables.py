"""Tables: files of rows in several formats, read row by row, where a bad row costs itself alone."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from schemas.decoding import Invalid
from schemas.errors import ExplainedError

Raw = tuple[int, tuple[str, ...], Sequence[Any] | Invalid]
"""The number of a line, the names of its columns, and what stands in them."""

Rows = Generator[Raw, None, None]


class SourceMissing(ExplainedError):
    """There is nothing to read where the source should be."""

    def __init__(self, path: Path, wanted: str) -> None:
        self.path, self.wanted = path, wanted
        super().__init__(f"{path}: {wanted}")


class UnknownFormat(ExplainedError):
    """The name of a file does not say how to read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        super().__init__(f"{path}: its name must end in one of {', '.join(sorted(FORMATS))}, with or without .gz")


class SourceDamaged(ExplainedError):
    """A file cannot be read to its end."""

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{path} is damaged or not what its name says: {reason}")


def suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def table(path: Path) -> Rows:
    """Rows of a file in any of our formats.

    Raises:
        UnknownFormat: the name does not end in one of them.
        SourceDamaged: the file ends before its time, or is none of its format.
    """
    read = FORMATS.get(suffix(path))
    if read is None:
        raise UnknownFormat(path)
    try:
        yield from read(path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise SourceDamaged(path, str(error)) from error


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def _json_lines(path: Path) -> Rows:
    with _open(path) as stream:
        for number, line in enumerate(stream, 1):
            text = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not text:
                continue
            try:
                value = msgspec.json.decode(text)
            except (ValueError, RecursionError) as error:
                yield number, (), Invalid("not-json", f"the line is not JSON: {error}")
                continue
            if isinstance(value, dict):
                yield number, tuple(value), list(value.values())
            else:
                yield number, (), Invalid("not-json", "the line is JSON, but not an object")


class _Lines:
    """Lines of a text, numbered; those that a row swallowed by mistake can be given back."""

    def __init__(self, stream: IO[str], first: str) -> None:
        self._stream = stream
        self._again = deque([first] if first else [])
        self.number = 0
        self.row: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._stream)
        self.number += 1
        self.row.append(line)
        return line

    def give_back(self) -> None:
        """Have all lines of the present row but its first be read again."""
        self._again.extendleft(reversed(self.row[1:]))
        self.number -= len(self.row) - 1


def delimited(
    path: Path, *, header: Sequence[str] | None = None, delimiter: str | None = None, encoding: str = "utf-8-sig"
) -> Rows:
    """Rows of delimited text. Quotes count in .csv alone; a quote that is never closed costs one row, not the rest."""
    # What is not UTF-8 must not end the file: it stays in the row, where the decoder meets it.
    with _open(path) as raw, io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="") as stream:
        first = stream.readline()
        lines = _Lines(stream, first)
        quoted = suffix(path) == ".csv"
        if delimiter is None:
            delimiter = max(",;\t|", key=first.count) if quoted else "\t"
        reader = csv.reader(
            lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        names = () if header is None else tuple(header)
        while True:
            lines.row.clear()
            before = lines.number
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.give_back()
                yield before + 1, (), Invalid("bad-row", f"the row cannot be taken apart: {error}")
                continue
            if not fields:
                continue
            if not names:
                names = tuple(name.strip() for name in fields)
            elif len(fields) == len(names):
                yield before + 1, names, fields
            else:
                lines.give_back()
                reason = f"the row has {len(fields)} fields; the header has {len(names)}"
                yield before + 1, (), Invalid("bad-row", reason)


def _parquet(path: Path) -> Rows:
    # Not at the top: it starts threads, which would hear the stop signals of processes that read no table.
    import pyarrow.parquet

    try:
        yield from _parquet_rows(path, pyarrow.parquet.ParquetFile)
    except pyarrow.ArrowException as error:
        raise SourceDamaged(path, str(error)) from error


def _parquet_rows(path: Path, open_parquet: Callable[[IO[bytes]], Any]) -> Rows:
    with _open(path) as stream:
        # Parquet is read from its end, so what is compressed as a whole must be in memory as a whole.
        source = io.BytesIO(stream.read()) if path.name.lower().endswith(".gz") else stream
        number = 0
        for batch in open_parquet(source).iter_batches(10_000):
            names = tuple(batch.schema.names)
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, names, [_cell(value) for value in values]


def _cell(value: Any) -> Any:
    """A missing integer turns its whole column into floats in many tools; ids must come back from that."""
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return value


FORMATS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".csv": delimited,
    ".tsv": delimited,
    ".inter": delimited,
    ".item": delimited,
    ".parquet": _parquet,
}
