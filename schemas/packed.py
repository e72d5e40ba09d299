"""Lists of ids and of times in one piece: kept with every user and sent with every example, they are copied whole.

A list of some fifty strings is fifty objects all over the memory, and with thousands of users each of them is a miss
of the cache; packed, it is one. A packed list of ids is a string in which each id ends with U+0000, which no id holds;
a packed list of times is float64, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

END = "\0"
TIME_BYTES = 8


def pack(ids: Iterable[str]) -> str:
    return "".join([name + END for name in ids])


def unpack(packed: str) -> list[str]:
    return packed.split(END)[:-1]


def holds(packed: str, name: str) -> bool:
    return END + name + END in END + packed


def without(packed: str, name: str) -> str:
    """The list less an id, which it may hold once."""
    return (END + packed).replace(END + name + END, END, 1)[1:]


def without_oldest(packed: str) -> str:
    return packed[packed.index(END) + 1 :]


pack_time = struct.Struct("<d").pack


def pack_times(times: Iterable[float]) -> bytes:
    return b"".join(map(pack_time, times))


def unpack_times(packed: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(packed) // TIME_BYTES}d", packed)
