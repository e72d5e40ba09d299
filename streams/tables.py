"""Tables: files of rows in several formats, read row by row, where a bad row costs itself alone."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, AnyStr

import msgspec

from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from schemas.topics import LARGEST_INPUT_BYTES

LONGEST_LINE = LARGEST_INPUT_BYTES
"""Bytes of a line of JSON, characters of one of delimited text; as much as the topics take in one record."""
LARGEST_UNPACKED_BYTES = 1 << 30
"""Of a file that must be held in memory as a whole."""

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


class UnpackedTooLarge(ExplainedError):
    """A compressed file holds more than may be held in memory."""

    def __init__(self, path: Path, allowed: int) -> None:
        self.path, self.allowed = path, allowed
        super().__init__(
            f"{path} ({path.stat().st_size:,} bytes) unpacks to more than {allowed:,} bytes, which is as much as is "
            f"held in memory: unpack it first, since {path.name.removesuffix('.gz')} is read piece by piece"
        )


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


def _bounded(stream: IO[AnyStr]) -> Iterator[tuple[AnyStr, int]]:
    """Each line with its length; of one that is longer than `LONGEST_LINE` only so much is ever in memory."""
    while line := stream.readline(LONGEST_LINE):
        length, ends = len(line), ("\n", "\r") if isinstance(line, str) else (b"\n",)
        rest = line
        while len(rest) == LONGEST_LINE and not rest.endswith(ends):
            rest = stream.readline(LONGEST_LINE)
            length += len(rest)
        yield line, length


def _too_long(length: int, unit: str) -> Invalid:
    return Invalid("too-large", f"the line has {length:,} {unit}; at most {LONGEST_LINE:,} are allowed")


def _json_lines(path: Path) -> Rows:
    with _open(path) as stream:
        for number, (line, length) in enumerate(_bounded(stream), 1):
            if length > LONGEST_LINE:
                yield number, (), _too_long(length, "bytes")
                continue
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

    def __init__(self, stream: IO[str]) -> None:
        self._stream = _bounded(stream)
        self._again: deque[tuple[str, int]] = deque()
        self.number = 0
        self._row: list[tuple[str, int]] = []

    def look(self) -> str:
        """The next line, which stays the next one; empty at the end."""
        if not self._again:
            self._again.extend(islice(self._stream, 1))
        return self._again[0][0] if self._again else ""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line, length = self._again.popleft() if self._again else next(self._stream)
        self.number += 1
        self._row.append((line, length))
        return line

    def begin(self) -> None:
        """What is read from here on is another row."""
        self._row.clear()

    @property
    def longest(self) -> int:
        """The length of the longest line of the row, as it is in the file; `LONGEST_LINE` of it have been read."""
        return max((length for _, length in self._row), default=0)

    def give_back(self) -> None:
        """Have all lines of the present row but its first be read again."""
        self._again.extendleft(reversed(self._row[1:]))
        self.number -= len(self._row) - 1


def delimited(
    path: Path, *, header: Sequence[str] | None = None, delimiter: str | None = None, encoding: str = "utf-8-sig"
) -> Rows:
    """Rows of delimited text. Quotes count in .csv alone; a quote that is never closed costs one row, not the rest."""
    # What is not UTF-8 must not end the file: it stays in the row, where the decoder meets it.
    with _open(path) as raw, io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="") as stream:
        lines = _Lines(stream)
        quoted = suffix(path) == ".csv"
        if delimiter is None:
            delimiter = max(",;\t|", key=lines.look().count) if quoted else "\t"
        reader = csv.reader(
            lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True
        )
        names = () if header is None else tuple(header)
        while True:
            lines.begin()
            before, fault = lines.number, None
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = Invalid("bad-row", f"the row cannot be taken apart: {error}")
            if lines.longest > LONGEST_LINE:
                fault = _too_long(lines.longest, "characters")
                if not names:
                    raise SourceDamaged(path, f"line {before + 1} should name the columns, and {fault.message}")
            if fault is not None:
                lines.give_back()
                yield before + 1, (), fault
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
        source = io.BytesIO(_unpacked(path, stream)) if path.name.lower().endswith(".gz") else stream
        number = 0
        for batch in open_parquet(source).iter_batches(10_000):
            names = tuple(batch.schema.names)
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield number, names, [_cell(value) for value in values]


def _unpacked(path: Path, stream: IO[bytes]) -> bytes:
    unpacked = stream.read(LARGEST_UNPACKED_BYTES + 1)
    if len(unpacked) > LARGEST_UNPACKED_BYTES:
        raise UnpackedTooLarge(path, LARGEST_UNPACKED_BYTES)
    return unpacked


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
