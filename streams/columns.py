"""Columns: which column of a table holds which field of an event or an item, and its rows under our names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from streams.tables import Rows, SourceDamaged, table

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


def fields(rows: Rows, aliases: Aliases) -> Iterator[tuple[int, dict[str, Any] | Invalid]]:
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


def check_columns(path: Path, needed: Sequence[str], aliases: Aliases) -> None:
    seen: dict[str, Any] = {}
    faults: list[str] = []
    with closing(table(path)) as rows:
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
