"""History on disk, read row by row: files of events and items in several formats, and MovieLens folders."""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import msgspec
import pyarrow
import pyarrow.parquet

from schemas.decoding import Invalid
from schemas.errors import ExplainedError

MOVIELENS = "movielens:"
ROWS_LOOKED_AT = 100
"""Rows from which the columns of a file are known."""

Aliases = Mapping[str, tuple[str, ...]]

EVENT_COLUMNS: Aliases = {
    "user_id": ("user", "uid", "customer_id", "visitor_id", "member_id", "account_id", "reviewer_id"),
    "item_id": ("item", "iid", "product_id", "movie_id", "video_id", "article_id", "news_id", "content_id", "sku"),
    "event": ("event_type", "event_name", "feedback_type", "action", "action_type", "behavior", "behaviour",
              "behavior_type", "interaction", "interaction_type", "type"),
    "timestamp": ("time", "ts", "event_time", "datetime", "date_time", "created_at", "time_ms", "unix_time", "date"),
    "event_id": ("feedback_id", "interaction_id"),
    "value": ("weight", "rating", "score", "stars"),
    "scenario": ("domain", "surface", "channel"),
    "recommendation_id": (),
    "context": (),
}  # fmt: skip
ITEM_COLUMNS: Aliases = {
    "item_id": ("item", "iid", "product_id", "movie_id", "video_id", "article_id", "news_id", "content_id", "sku",
                "id"),
    "title": ("name", "movie_title", "product_name", "headline"),
    "text": ("description", "abstract", "summary", "body", "content"),
    "categories": ("category", "genres", "genre", "labels", "tags", "class"),
    "scenarios": ("scenario", "domain", "surface", "channel"),
    "hidden": ("is_hidden",),
    "published_at": ("created_at", "timestamp", "published"),
}  # fmt: skip

COLUMNS_HELP = "Columns, in any order, case and spelling (UserId, user-id): " + "; ".join(
    f"{field} ({', '.join(aliases)})" if aliases else field for field, aliases in EVENT_COLUMNS.items()
)
"""What a person needs to know to make a file of events; for help texts."""


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


class ColumnsMissing(ExplainedError):
    """A file lacks columns that every row needs."""

    def __init__(self, path: Path, missing: Sequence[str], found: Sequence[str], aliases: Aliases) -> None:
        self.path, self.missing, self.found = path, tuple(missing), tuple(found)
        wanted = "; ".join(f"{field} (or {', '.join(aliases[field])})" for field in missing)
        event = ", or say --event NAME to take all rows for one kind" if "event" in missing else ""
        super().__init__(
            f"{path}: no column for {', '.join(missing)}; the columns found are {', '.join(map(repr, found)) or 'none'}"
            f". Name it as one of {wanted}{event}"
        )


class Row(NamedTuple):
    """One row of a source.

    Attributes:
        line: its number in the file, from 1; in Parquet the number of the row.
        scenario: where the source says that it belongs, if it does.
        record: fields of an event or an item, as the decoders of `schemas` take them; or why it could not be read.
    """

    line: int
    scenario: str | None
    record: dict[str, Any] | Invalid


class History(Protocol):
    """Items and events of some past, in the order in which they are to be published. May be read again and again.

    Attributes:
        name: for messages.
        home: scenario that takes everything if the source's own scenarios are not configured.
    """

    name: str
    home: str | None

    def items(self) -> Iterator[Row]: ...

    def events(self) -> Iterator[Row]: ...


def open_history(source: str, *, items: Path | None, event: str | None) -> History:
    """The history that `source` names.

    Args:
        source: `movielens:FOLDER`; a file of events; or a folder with events.* and, if there are any, items.*.
        items: file of items; without it, items.* beside a file called events.*.
        event: name to give to all events, in place of the source's own.

    Raises:
        ExplainedError: nothing readable is there; the columns of the files are checked at once.
    """
    if source.startswith(MOVIELENS):
        return MovieLens(Path(source.removeprefix(MOVIELENS)), event or "rate")
    path = Path(source)
    if path.is_dir():
        path = _the_one(path, "events", _called(path, "events"))
    elif not path.is_file():
        raise SourceMissing(path, f"no such file or folder (a MovieLens folder is written {MOVIELENS}FOLDER)")
    if items is not None and not items.is_file():
        raise SourceMissing(items, "no such file of items")
    if items is None and path.name.startswith("events."):
        beside = _called(path.parent, "items")
        items = _the_one(path.parent, "items", beside) if beside else None
    return Files(path, items, event)


def _called(folder: Path, stem: str) -> list[Path]:
    return sorted(path for path in folder.glob(f"{stem}.*") if path.is_file() and _suffix(path) in FORMATS)


def _the_one(folder: Path, stem: str, found: Sequence[Path]) -> Path:
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise SourceMissing(folder, f"it must hold one file {stem}.jsonl, .csv or .parquet; found {names}")
    return found[0]


class Files:
    """A file of events and perhaps one of items, in their own order."""

    home: str | None = None

    def __init__(self, events: Path, items: Path | None, event: str | None) -> None:
        self.name = str(events)
        self._events, self._items, self._event = events, items, event
        needed = ("user_id", "item_id") if event is not None else ("user_id", "item_id", "event")
        _check_columns(events, needed, EVENT_COLUMNS)
        if items is not None:
            _check_columns(items, ("item_id",), ITEM_COLUMNS)

    def items(self) -> Iterator[Row]:
        if self._items is not None:
            for line, record in _fields(_table(self._items), ITEM_COLUMNS):
                yield Row(line, None, record)

    def events(self) -> Iterator[Row]:
        for line, record in _fields(_table(self._events), EVENT_COLUMNS):
            if isinstance(record, Invalid):
                yield Row(line, None, record)
                continue
            scenario = record.pop("scenario", None)
            if self._event is not None:
                record["event"] = self._event
            yield Row(line, None if scenario is None else str(scenario), record)


SHELVES: tuple[tuple[str, frozenset[str]], ...] = (
    ("family", frozenset({"Children's", "Animation", "Musical", "Fantasy"})),
    ("thrill", frozenset({"Thriller", "Crime", "Mystery", "Horror", "Film-Noir"})),
    ("action", frozenset({"Action", "Adventure", "Sci-Fi", "War", "Western"})),
    ("comedy", frozenset({"Comedy"})),
)
LAST_SHELF = "drama"

RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")
"""Of GroupLens' u.data, which has no header."""
FILM_COLUMNS = ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")
"""Of RecBole's NAME.item."""


def shelf(genres: Sequence[str]) -> str:
    """The first shelf that one of the film's genres belongs on."""
    return next((name for name, wanted in SHELVES if not wanted.isdisjoint(genres)), LAST_SHELF)


class MovieLens:
    """MovieLens 100k as GroupLens or RecBole lay it out: ratings by time, films with title, year and genres.

    Its own scenarios are five shelves by genre.
    """

    home: str | None = "video"

    def __init__(self, folder: Path, event: str) -> None:
        self.name = f"MovieLens in {folder}"
        self._event = event
        recbole = sorted(folder.glob("*.inter"))
        if (folder / "u.data").is_file():
            files = [folder / "u.data", folder / "u.item", folder / "u.genre"]
        elif len(recbole) == 1:
            files = [recbole[0], recbole[0].with_suffix(".item")]
        else:
            raise SourceMissing(folder, "it must hold u.data, u.item and u.genre, or one NAME.inter with its NAME.item")
        for path in files:
            if not path.is_file():
                raise SourceMissing(path, "no such file, but a MovieLens folder needs it")
        self._ratings = files[0]
        if recbole:
            _check_columns(self._ratings, RATING_COLUMNS[:2], EVENT_COLUMNS)
        films = list(_grouplens_films(*files[1:]) if len(files) == 3 else _recbole_films(files[1]))
        self._films = films
        self._events: list[Row] = []
        self._shelf_of = {row.record["item_id"]: row.scenario for row in films if not isinstance(row.record, Invalid)}

    def items(self) -> Iterator[Row]:
        return iter(self._films)

    def events(self) -> Iterator[Row]:
        """Ratings by time, those of one second in the order of the file; unreadable ones come first."""
        if not self._events:
            self._events = list(self._read_events())
        return iter(self._events)

    def _read_events(self) -> Iterator[Row]:
        ratings: list[tuple[float, Row]] = []
        ours = self._ratings.name == "u.data"
        rows = _delimited(self._ratings, header=RATING_COLUMNS) if ours else _table(self._ratings)
        for line, record in _fields(rows, EVENT_COLUMNS):
            if isinstance(record, Invalid):
                yield Row(line, None, record)
                continue
            time = record.get("timestamp")
            if not isinstance(time, int | float):
                yield Row(line, None, Invalid("bad-time", f"timestamp {time!r} is not an epoch number"))
                continue
            record["event"] = self._event
            ratings.append((time, Row(line, self._shelf_of.get(record["item_id"], LAST_SHELF), record)))
        ratings.sort(key=itemgetter(0))
        for _, row in ratings:
            yield row


def _grouplens_films(items: Path, genres: Path) -> Iterator[Row]:
    names = [line.rsplit("|", 1)[0] for line in genres.read_text("latin-1").splitlines() if "|" in line]
    header = ("item_id", "title", "released", "video", "link", *names)
    for line, _, values in _delimited(items, header=header, delimiter="|", encoding="latin-1"):
        if isinstance(values, Invalid):
            yield Row(line, None, values)
        else:
            yield _film(
                line,
                values[0],
                values[1],
                [name for name, mark in zip(header, values, strict=True) if mark == "1" and name in names],
            )


def _recbole_films(items: Path) -> Iterator[Row]:
    for line, names, values in _delimited(items):
        if isinstance(values, Invalid):
            yield Row(line, None, values)
            continue
        if missing := [name for name in FILM_COLUMNS if name not in names]:
            raise SourceDamaged(items, f"it has no column {', '.join(missing)}")
        item_id, title, year, genres = (values[names.index(name)] for name in FILM_COLUMNS)
        yield _film(line, item_id, f"{title} ({year})" if year.isdigit() else title, genres.split())


def _film(line: int, item_id: str, title: str, genres: Sequence[str]) -> Row:
    return Row(line, shelf(genres), {"item_id": item_id, "title": title, "categories": list(genres)})


# Fields

Raw = tuple[int, tuple[str, ...], Sequence[Any] | Invalid]
"""The number of a line, the names of its columns, and what stands in them."""

Rows = Generator[Raw, None, None]


def _fields(rows: Rows, aliases: Aliases) -> Iterator[tuple[int, dict[str, Any] | Invalid]]:
    """Rows with our names for their fields; what is empty or has no name of ours is left out."""
    layouts: dict[tuple[str, ...], list[tuple[str, int, Callable[[Any], Any] | None]]] = {}
    for line, names, values in rows:
        if isinstance(values, Invalid):
            yield line, values
            continue
        layout = layouts.get(names)
        if layout is None:
            if len(layouts) > 1000:
                layouts.clear()
            columns = match_columns(names, values, aliases)
            layout = layouts[names] = [(field, place, _CONVERT.get(field)) for field, place in columns.items()]
        record = {}
        for field, place, convert in layout:
            value = values[place]
            # An empty id or event is a fault that the decoder names; anything else that is empty was left out.
            if value is None or (value == "" and field not in _NEVER_EMPTY):
                continue
            record[field] = value if convert is None else convert(value)
        yield line, record


def match_columns(names: Sequence[str], values: Sequence[Any], aliases: Aliases) -> dict[str, int]:
    """The place of the column that holds each field: found by its own name first, then by its aliases in their order.

    Some exports head the column of event names with the name itself; such a one is known by its first row.
    """
    places = {_plain(name): place for place, name in reversed(list(enumerate(names)))}
    columns = {}
    for field, others in aliases.items():
        found = next((places[name] for name in map(_plain, (field, *others)) if name in places), None)
        if found is not None:
            columns[field] = found
    if "event" in aliases and "event" not in columns:
        spare = [place for place, name in enumerate(names) if place not in columns.values() and values[place] == name]
        if len(spare) == 1:
            columns["event"] = spare[0]
    return columns


def _plain(name: str) -> str:
    """`User-Id`, `userId` and RecBole's `user_id:token` are one name."""
    return "".join(filter(str.isalnum, name.partition(":")[0].casefold()))


def _check_columns(path: Path, needed: Sequence[str], aliases: Aliases) -> None:
    seen: dict[str, Any] = {}
    faults: list[str] = []
    with closing(_table(path)) as rows:
        for line, names, values in islice(rows, ROWS_LOOKED_AT):
            if isinstance(values, Invalid):
                faults.append(f"line {line}: {values.message}")
            else:
                seen = {**dict(zip(names, values, strict=True)), **seen}
    if faults and not seen:
        raise SourceDamaged(path, f"none of its first {len(faults)} rows can be read; {faults[0]}")
    columns = match_columns(list(seen), list(seen.values()), aliases)
    if missing := [field for field in needed if field not in columns]:
        raise ColumnsMissing(path, missing, list(seen), aliases)


def _number(value: Any) -> Any:
    """A finite number where there is one; anything else stays, for the decoder to refuse by name."""
    if not isinstance(value, str):
        return float(value) if isinstance(value, Decimal) else value
    try:
        number = float(value)
    except ValueError:
        return value
    return number if math.isfinite(number) else value


_OFFSET_BEFORE_UTC = re.compile(r"\s*([+-]\d\d:?\d\d)?\s*UTC$")


def _time(value: Any) -> Any:
    """An epoch number or RFC 3339 text; text that is neither stays, for the decoder to refuse by name."""
    if not isinstance(value, str):
        return value.isoformat() if isinstance(value, datetime | date) else value
    text = value.strip()
    number = _number(text)
    if not isinstance(number, str):
        return int(number) if number.is_integer() else number
    if text.endswith("UTC"):
        return _OFFSET_BEFORE_UTC.sub(lambda found: found[1] or "+00:00", text)
    return text


def _names(value: Any) -> Any:
    return [name for part in value.split("|") if (name := part.strip())] if isinstance(value, str) else value


def _truth(value: Any) -> Any:
    return value.strip().lower() in ("true", "1", "yes") if isinstance(value, str) else bool(value)


def _prose(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) else value


_NEVER_EMPTY = frozenset({"user_id", "item_id", "event"})
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "timestamp": _time,
    "published_at": _time,
    "value": _number,
    "categories": _names,
    "scenarios": _names,
    "hidden": _truth,
    "title": _prose,
    "text": _prose,
}


# Formats


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _table(path: Path) -> Rows:
    """Rows of a file in any of our formats.

    Raises:
        UnknownFormat: the name does not end in one of them.
        SourceDamaged: the file ends before its time, or is none of its format.
    """
    read = FORMATS.get(_suffix(path))
    if read is None:
        raise UnknownFormat(path)
    try:
        yield from read(path)
    except (OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
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


def _delimited(
    path: Path, *, header: Sequence[str] | None = None, delimiter: str | None = None, encoding: str = "utf-8-sig"
) -> Rows:
    """Rows of delimited text. Quotes count in .csv alone; a quote that is never closed costs one row, not the rest."""
    # What is not UTF-8 must not end the file: it stays in the row, where the decoder meets it.
    with _open(path) as raw, io.TextIOWrapper(raw, encoding, errors="surrogateescape", newline="") as stream:
        first = stream.readline()
        lines = _Lines(stream, first)
        quoted = _suffix(path) == ".csv"
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
    with _open(path) as stream:
        # Parquet is read from its end, so what is compressed as a whole must be in memory as a whole.
        source = io.BytesIO(stream.read()) if path.name.lower().endswith(".gz") else stream
        number = 0
        for batch in pyarrow.parquet.ParquetFile(source).iter_batches(10_000):
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
    ".csv": _delimited,
    ".tsv": _delimited,
    ".inter": _delimited,
    ".item": _delimited,
    ".parquet": _parquet,
}
