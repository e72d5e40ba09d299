"""Inputs: bytes that a decoder may meet, of good ones and hostile pieces; a seed and a number give them again."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

LARGEST_BYTES = 3 << 20

DEEP = 100_000

HOSTILE_JSON = (
    b"null", b"true", b"0", b"-0.0", b"1e400", b"-1e400", b"1e-400", b"NaN", b"Infinity", b"1" * 10_000,
    b"-" + b"9" * 10_000, b"9223372036854775808", b"18446744073709551616", b"1.7e308", b"1e30", b"0.1", b"01", b'""',
    b'"' + b"x" * 300 + b'"', b'"' + b"x" * 2_000_000 + b'"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"',
    b'"\x00"',
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xf0\x9f\x9b\x92"', b'"\xe2\x80\x8f"', b'"9999-12-31T23:59:59Z"',
    b'"0001-01-01T00:00:00+23:59"', b'"2024-02-30"', b'"12:00"', b'"2016-12-31T23:59:60Z"', b'"2024-W01-1"', b'"1e400"',
    b"[]", b"{}", b"[[]]", b"[null]", b'["a",1,"a"]', b"[" + b"1," * 2_000 + b"1]", b"[" * DEEP,
    b"[" * DEEP + b"]" * DEEP,
    b'{"a":' * DEEP + b"1" + b"}" * DEEP, b'{"a":1,"a":2}', b'"\\', b'"', b",", b"\xef\xbb\xbf",
)  # fmt: skip
"""What may stand where JSON has a value."""

HOSTILE_BYTES = (
    *(piece for piece in HOSTILE_JSON if len(piece) < 100_000), b"\x00", b"\xff", b"\r\n", b"\n", b"\r", b"\t", b";",
    b"'",
    b"%00", b"%2F", b"%", b"+", b"&", b"=", b"#", b"..", b"/", b"?", b"[a]", b"[[a]]", b"a.b.c=1", b"\x85",
    b"\xe2\x80\xa8",
    struct.pack(">BI", 0xDD, 0xFFFFFFFF), struct.pack(">BI", 0xDF, 0xFFFFFFFF), struct.pack(">BI", 0xC6, 0xFFFFFFFF),
    struct.pack(">BI", 0xDB, 0x7FFFFFFF), struct.pack(">BQ", 0xCF, 1 << 63), struct.pack(">Bd", 0xCB, float("nan")),
    struct.pack(">Bd", 0xCB, float("inf")), struct.pack(">BIb", 0xC9, 0xFFFFFFFF, -1), b"\x91" * 100_000, b"\xc0",
    b"\xc1",
    (1 << 63).to_bytes(8, "little"), ((1 << 64) - 1).to_bytes(8, "little"), (1 << 40).to_bytes(8, "little"), bytes(8),
)  # fmt: skip
"""What may stand anywhere: text of other formats, and declared lengths (msgpack's,
    safetensors') that nothing follows."""

Change = Callable[[random.Random, bytes], bytes]


def make(seed: int, name: str, number: int, good: Sequence[bytes]) -> bytes:
    """Input `number` of a campaign against the decoder `name`, which takes what is `good`."""
    chance = random.Random(f"{seed} {name} {number}")
    content = chance.choice(good)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        content = chance.choice(CHANGES)(chance, content)
    if chance.random() < 0.1:
        content = _splice(chance, content, chance.choice(good))
    return content[:LARGEST_BYTES]


def _place(chance: random.Random, content: bytes) -> tuple[int, int]:
    begin = chance.randint(0, len(content))
    return begin, min(len(content), begin + int(2 ** (chance.random() * 8)) - 1)


def _flip(chance: random.Random, content: bytes) -> bytes:
    if not content:
        return content
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def _cut(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randint(0, len(content))]


def _drop(chance: random.Random, content: bytes) -> bytes:
    begin, end = _place(chance, content)
    return content[:begin] + content[end:]


def _repeat(chance: random.Random, content: bytes) -> bytes:
    begin, end = _place(chance, content)
    return content[:end] + content[begin:end] * chance.choice((1, 2, 50)) + content[end:]


def _insert(chance: random.Random, content: bytes) -> bytes:
    begin, end = _place(chance, content)
    return content[:begin] + chance.choice(HOSTILE_BYTES) + content[chance.choice((begin, end)) :]


def _scatter(chance: random.Random, content: bytes) -> bytes:
    begin, end = _place(chance, content)
    return content[:begin] + chance.randbytes(end - begin) + content[end:]


def _splice(chance: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: chance.randint(0, len(content))] + other[chance.randint(0, len(other)) :]


def _field(chance: random.Random, content: bytes) -> bytes:
    """Where it is a JSON object: one field gets a hostile value, another name, comes twice, or goes."""
    try:
        fields: list[tuple[str, Any]] = json.loads(content, object_pairs_hook=list)
    except (ValueError, RecursionError):
        return _insert(chance, content)
    if not isinstance(fields, list) or not fields or not all(isinstance(each, tuple) for each in fields):
        return _insert(chance, content)
    pieces = [(json.dumps(name).encode(), _written(value)) for name, value in fields]
    at, kind = chance.randrange(len(pieces)), chance.random()
    name, value = pieces[at]
    if kind < 0.7:
        pieces[at] = name, chance.choice(HOSTILE_JSON)
    elif kind < 0.8:
        pieces[at] = chance.choice(HOSTILE_JSON[-20:]), value
    elif kind < 0.9:
        pieces.append((name, chance.choice(HOSTILE_JSON)))
    else:
        del pieces[at]
    return b"{" + b",".join(name + b":" + value for name, value in pieces) + b"}"


def _written(value: Any) -> bytes:
    """As it was read, but for objects in it, which were read as lists of pairs."""
    if isinstance(value, list) and value and all(isinstance(each, tuple) for each in value):
        return b"{" + b",".join(json.dumps(name).encode() + b":" + _written(each) for name, each in value) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(_written, value)) + b"]"
    return json.dumps(value).encode()


CHANGES: tuple[Change, ...] = (_flip, _cut, _drop, _repeat, _insert, _scatter, _field, _field, _field)
