"""History on disk, opened by name: a file of events, a folder with events and items, or a MovieLens folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from schemas.decoding import Invalid
from streams.columns import EVENT_COLUMNS, ITEM_COLUMNS, Row, check_columns, fields
from streams.movielens import MovieLens
from streams.tables import FORMATS, SourceMissing, suffix, table

__all__ = ["Files", "History", "Row", "open_history"]

MOVIELENS = "movielens:"


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
    return sorted(path for path in folder.glob(f"{stem}.*") if path.is_file() and suffix(path) in FORMATS)


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
        check_columns(events, needed, EVENT_COLUMNS)
        if items is not None:
            check_columns(items, ("item_id",), ITEM_COLUMNS)

    def items(self) -> Iterator[Row]:
        if self._items is not None:
            for line, record in fields(table(self._items), ITEM_COLUMNS):
                yield Row(line, None, record)

    def events(self) -> Iterator[Row]:
        for line, record in fields(table(self._events), EVENT_COLUMNS):
            if isinstance(record, Invalid):
                yield Row(line, None, record)
                continue
            scenario = record.pop("scenario", None)
            if self._event is not None:
                record["event"] = self._event
            yield Row(line, None if scenario is None else str(scenario), record)
