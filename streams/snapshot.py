"""SERVE's snapshot: its mirror in one file, from which it starts in seconds; the topics say what has changed since.

The snapshot is fuzzy. It is copied on a thread of its own while the worker thread goes on changing the mirror, so it
never was the mirror of any moment. First, between two changes, it is noted how far the topics had been put to use, and
which items were known in which rows; then the tables are copied slice by slice. What changes meanwhile is copied old,
new or torn. But a record of the items or the vectors topic is all that is known of an item, and the last one wins: so
all that was copied torn is overwritten when the records since the noted positions are read again, as they are at every
start. The weights are not in the snapshot; their topic holds a record per scenario, and is always read whole.

What cannot be read again are deletions, once the broker has removed their records: a snapshot is good for as long as it
keeps them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import torch

from learner.table_copy import NotedTable, Part, parts, restored
from schemas.decoding import UNREADABLE
from schemas.items import Item
from schemas.settings import Settings
from schemas.topics import DELETIONS_KEPT_MILLISECONDS, Topics
from streams.mirror import Mirror, Noted
from streams.store import Partition
from streams.tensor_file import DamagedFile, Sliced, TensorFile, packed, read_tensors, unpacked, write_tensors

VERSION = 1
AT_ONCE = 1 << 12
"""Items and names that are encoded at a time."""

READING_SECONDS = 4 * 3600.0
GOOD_FOR_SECONDS = DELETIONS_KEPT_MILLISECONDS / 1000 - READING_SECONDS
"""Age up to which no deletion since can be gone from the topics before it is read, however slowly that goes."""

_encode = msgspec.msgpack.Encoder().encode
_decode_names = msgspec.msgpack.Decoder(list[str | None]).decode
_decode_items = msgspec.msgpack.Decoder(list[Item]).decode


class SnapshotRefused(Exception):
    """A snapshot that SERVE does not start from.

    Attributes:
        file: which.
        reason: why.
    """

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"the snapshot {file} is not used: {reason}")
        self.file = file
        self.reason = reason


class Facts(msgspec.Struct, kw_only=True):
    """What a snapshot says of itself.

    Attributes:
        made_for: what must be the same for it to be used.
        written_at: when it was noted, epoch seconds.
        positions: for each topic, by partition, the offset of the first record that may not be in it.
    """

    made_for: dict[str, Any]
    written_at: float
    lineage: str | None
    positions: dict[str, dict[int, int]]


class _New(msgspec.Struct):
    """What is known of new items; as in `Noted`."""

    new: dict[str, list[tuple[str, float]]]
    impressions: list[tuple[str, str, int]]


_decode_new = msgspec.msgpack.Decoder(_New).decode


@dataclass(frozen=True)
class Restored:
    """What a snapshot gave.

    Attributes:
        items: how many items it holds.
        positions: where to read on.
        written_at: when it was noted, epoch seconds.
    """

    mirror: Mirror
    items: int
    positions: dict[Partition, int]
    written_at: float


def made_for(settings: Settings, topic_ids: Mapping[str, str]) -> dict[str, Any]:
    """What a snapshot fits and nothing else.

    Args:
        topic_ids: the broker's own ids of the topics: one that was made anew has the old name and another id.
    """
    topics, model = Topics(settings), settings.model
    return {
        "version": VERSION,
        "scenarios": list(settings.scenarios),
        "model.dimension": model.dimension,
        "model.neighbours": model.neighbours,
        "model.encoder": model.encoder,
        **{f"topic {name}": topic_ids.get(name, "") for name in (topics.items, topics.vectors)},
    }


def write_snapshot(
    file: Path,
    purpose: Mapping[str, Any],
    noted: Noted,
    positions: Mapping[Partition, int],
    now: float,
    *,
    pause: Callable[[], object] = lambda: None,
) -> int:
    """Copy a mirror into a file while it goes on changing.

    Args:
        purpose: see `made_for`.
        positions: up to which each partition had been put to use when the mirror was noted.
        now: when that was, epoch seconds.
        pause: called between slices of the copy.

    Returns:
        The size of the file in bytes.
    """
    by_topic: dict[str, dict[int, int]] = {}
    for (topic, partition), position in positions.items():
        by_topic.setdefault(topic, {})[partition] = position
    facts = Facts(made_for=dict(purpose), written_at=now, lineage=noted.lineage, positions=by_topic)
    return write_tensors(file, msgspec.json.encode(facts), _contents(noted), pause=pause)


def _contents(noted: Noted) -> Iterator[Sliced]:
    for part in parts(noted.table):
        yield _sliced(part)
    new = _encode(_New(noted.new, noted.impressions))
    for name, chunks in (("names", _names(noted)), ("items", _items(noted)), ("new", iter((new,)))):
        yield Sliced(name, torch.uint8, (-1,), packed(chunks))


def _sliced(part: Part) -> Sliced:
    return Sliced(part.name, part.dtype, part.shape, part.slices)


def _names(noted: Noted) -> Iterator[bytes]:
    names = iter(noted.table.names)
    while some := list(islice(names, AT_ONCE)):
        yield _encode(some)


def _items(noted: Noted) -> Iterator[bytes]:
    item_ids = iter(noted.item_ids)
    while some := list(islice(item_ids, AT_ONCE)):
        yield _encode([item for item_id in some if (item := noted.items.get(item_id)) is not None])


def read_snapshot(
    file: Path, purpose: Mapping[str, Any], settings: Settings, ends: Mapping[Partition, int], now: float
) -> Restored | None:
    """The mirror that a snapshot makes; None if there is no file.

    Args:
        purpose: see `made_for`.
        ends: of all partitions of the items and the vectors topic.
        now: epoch seconds.

    Raises:
        SnapshotRefused: it is damaged, or made for something else, or too old.
    """
    try:
        content = read_tensors(file)
    except FileNotFoundError:
        return None
    except DamagedFile as damaged:
        raise SnapshotRefused(file, f"it {damaged.reason}") from None
    try:
        facts = msgspec.json.decode(content.facts, type=Facts)
    except UNREADABLE as error:
        raise SnapshotRefused(file, f"another version of Headstream wrote it ({error})") from None
    positions = {
        (topic, partition): position
        for topic, by_partition in facts.positions.items()
        for partition, position in by_partition.items()
    }
    _check(file, facts, purpose, positions, ends, now)
    try:
        with _no_collector():
            mirror = _mirror(content, facts, settings)
    except (*UNREADABLE, ValueError, LookupError) as error:
        raise SnapshotRefused(file, f"another version of Headstream wrote it ({error!r})") from None
    except _TooManyRows as too_many:
        raise SnapshotRefused(file, str(too_many)) from None
    return Restored(mirror, len(mirror.items), positions, facts.written_at)


def _check(
    file: Path,
    facts: Facts,
    purpose: Mapping[str, Any],
    positions: Mapping[Partition, int],
    ends: Mapping[Partition, int],
    now: float,
) -> None:
    for field in sorted(purpose.keys() | facts.made_for.keys()):
        then, present = facts.made_for.get(field), purpose.get(field)
        if then != present:
            raise SnapshotRefused(file, f"it was made for {field} = {then!r}, now it is {present!r}")
    for (topic, partition), position in positions.items():
        end = ends.get((topic, partition), 0)
        if position > end:
            raise SnapshotRefused(
                file,
                f"it holds {topic}, partition {partition}, up to offset {position}, but that ends at {end}: "
                "was the topic made anew?",
            )
    age = now - facts.written_at
    if age > GOOD_FOR_SECONDS and any(positions.get(key, 0) < end for key, end in ends.items()):
        raise SnapshotRefused(
            file,
            f"it is {age / 3600:.0f} h old, and of deletions the topics keep the records of "
            f"{GOOD_FOR_SECONDS / 3600:.0f} h for certain",
        )


@contextmanager
def _no_collector() -> Iterator[None]:
    """While a million objects are made that all stay, the garbage collector would look at them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _TooManyRows(Exception):
    """A table that the settings have no room for."""


def _mirror(content: TensorFile, facts: Facts, settings: Settings) -> Mirror:
    tensors = content.tensors
    names = [name for chunk in unpacked(tensors["names"]) for name in _decode_names(chunk)]
    if len(names) - 1 > settings.model.items:
        raise _TooManyRows(f"it holds {len(names) - 1} rows, model.items allows {settings.model.items}")
    items = {item.item_id: item for chunk in unpacked(tensors["items"]) for item in _decode_items(chunk)}
    (chunk,) = unpacked(tensors["new"])
    new = _decode_new(chunk)
    mirror = Mirror(settings, torch.device("cpu"))
    table = restored(tuple(settings.scenarios), settings.model, torch.device("cpu"), tensors, names)
    mirror.restore(
        Noted(
            sequence=facts.positions[Topics(settings).vectors][0],
            lineage=facts.lineage,
            table=NotedTable(table, names, tensors["paired"]),
            item_ids=list(items),
            items=items,
            new=new.new,
            impressions=new.impressions,
        )
    )
    return mirror
