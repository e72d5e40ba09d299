"""Items: what can be recommended, as companies publish it on the compacted items topic."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from schemas.decoding import Invalid, Refused, WireDecoder, parse_id, parse_time

MAX_TEXT_CHARACTERS = 8192
MAX_NAMES = 1000


class Item(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One item, as it is worked with after it was checked.

    Attributes:
        title: may be empty; the item then lives from behaviour alone.
        text: description; what is longer than `MAX_TEXT_CHARACTERS` is cut, since no encoder reads it.
        scenarios: where it may be recommended; None is everywhere.
        published_at: epoch seconds.
    """

    item_id: str
    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    scenarios: tuple[str, ...] | None = None
    hidden: bool = False
    published_at: float | None = None

    @property
    def prose(self) -> str:
        """All that a language model should read of it."""
        return ". ".join(part for part in (self.title, self.text, ", ".join(self.categories)) if part)


class ItemRecord(msgspec.Struct, kw_only=True):
    """One record of the items topic, as it is published."""

    item_id: str | int
    title: str | None = None
    text: str | None = None
    categories: list[str | int] | None = None
    scenarios: list[str | int] | None = None
    hidden: bool | None = None
    published_at: str | int | float | None = None
    attributes: dict[str, Any] | None = None


_decoder = WireDecoder(ItemRecord)


def decode_item(value: bytes, received: float, counts: Counter[str]) -> Item | Invalid:
    """Decode and check one record of the items topic; bad data is an `Invalid`, never an exception.

    Args:
        value: the record's value, JSON. A null value (delete) is the caller's affair: it has only a key.
        received: the broker's time of the record, epoch seconds.
        counts: grows by `unknown_fields` and `clamped_times`.
    """
    try:
        wire = _decoder.decode(value, counts)
        published = wire.published_at
        return Item(
            item_id=parse_id("item_id", wire.item_id),
            title=(wire.title or "").replace("\0", "")[:MAX_TEXT_CHARACTERS],
            text=(wire.text or "").replace("\0", "")[:MAX_TEXT_CHARACTERS],
            categories=_names("categories", wire.categories or []),
            scenarios=None if wire.scenarios is None else _names("scenarios", wire.scenarios),
            hidden=bool(wire.hidden),
            published_at=None if published is None else parse_time("published_at", published, received, counts),
        )
    except Refused as refused:
        return refused.invalid


def _names(field: str, values: list[str | int]) -> tuple[str, ...]:
    """Each name once, in the order given."""
    if len(values) > MAX_NAMES:
        raise Refused("too-many", f"{field} has {len(values)} names; at most {MAX_NAMES} are allowed")
    return tuple(dict.fromkeys(parse_id(field, value) for value in values))


def decode_item_key(key: bytes | None) -> str | Invalid:
    """The item id that a delete (a record with a key and no value) speaks of."""
    try:
        return parse_id("key", (key or b"").decode())
    except UnicodeDecodeError:
        return Invalid("bad-id", "the key of a delete is not UTF-8")
    except Refused as refused:
        return refused.invalid
