"""How bytes from outside become values: ids, times and numbers, or a refusal that says why."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Generic, TypeVar

import msgspec

Wire = TypeVar("Wire", bound=msgspec.Struct)

MAX_ID_BYTES = 256
MAX_RECORD_BYTES = 1 << 20
FUTURE_TOLERANCE_SECONDS = 300.0
EARLIEST_TIME = datetime(1, 1, 1, tzinfo=UTC).timestamp()

UNKNOWN_FIELDS = "unknown_fields"
CLAMPED_TIMES = "clamped_times"

MILLISECONDS_ABOVE = 1e11
MICROSECONDS_ABOVE = 1e14


CODES = (
    "bad-action", "bad-id", "bad-k", "bad-scope", "bad-text", "bad-time", "bad-version", "history-of-item",
    "no-subject", "not-json", "null", "too-large", "too-many", "two-subjects", "unknown-event", "wrong-type",
)  # fmt: skip
"""Every code that an `Invalid` of a record may have."""


UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be, in JSON and in msgpack."""


class Invalid(msgspec.Struct, frozen=True):
    """A record that cannot be taken.

    Attributes:
        code: stable name of the fault, for counters and the `error.code` header.
        message: one sentence for the person who published it.
    """

    code: str
    message: str


class Refused(Exception):
    """Raised by the parsers below; every public decoder turns it into the `Invalid` it carries."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.invalid = Invalid(code, message)


class WireDecoder(Generic[Wire]):
    """Decodes one JSON object into a struct; unknown fields are ignored and counted, never an error."""

    def __init__(self, wire: type[Wire]) -> None:
        # Most records carry no unknown field, so the strict decoder goes first and the common case pays nothing.
        strict = msgspec.defstruct(wire.__name__, [], bases=(wire,), forbid_unknown_fields=True, kw_only=True)
        self._strict: msgspec.json.Decoder[Wire] = msgspec.json.Decoder(strict)
        self._lenient: msgspec.json.Decoder[Wire] = msgspec.json.Decoder(wire)

    def decode(self, value: bytes, counts: Counter[str]) -> Wire:
        """Decode `value`, counting it under `unknown_fields` if it carries more than the schema names.

        Raises:
            Refused: with code `too-large`, `not-json` or `wrong-type`.
        """
        if len(value) > MAX_RECORD_BYTES:
            raise Refused("too-large", f"the value has {len(value)} bytes; at most {MAX_RECORD_BYTES} are allowed")
        try:
            return self._strict.decode(value)
        except msgspec.ValidationError as error:
            if "unknown field" not in str(error):
                raise Refused("wrong-type", str(error)) from None
        except (ValueError, RecursionError) as error:
            raise Refused("not-json", f"the value is not a JSON object: {error}") from None
        try:
            wire = self._lenient.decode(value)
        except msgspec.ValidationError as error:
            raise Refused("wrong-type", str(error)) from None
        except (ValueError, RecursionError) as error:
            raise Refused("not-json", f"the value is not a JSON object: {error}") from None
        counts[UNKNOWN_FIELDS] += 1
        return wire


def parse_id(field: str, value: str | int) -> str:
    """The id as a string; an integer is its decimal string, so 42 and "42" are one.

    Raises:
        Refused: with code `bad-id`.
    """
    try:
        text = value if type(value) is str else str(value)
    except ValueError:
        raise Refused("bad-id", f"{field} is an integer of too many digits") from None
    # Four bytes is the longest UTF-8 form of one character, so short ids need no encoding to be measured.
    if len(text) > MAX_ID_BYTES // 4 and len(text.encode()) > MAX_ID_BYTES:
        raise Refused("bad-id", f"{field} has {len(text.encode())} bytes of UTF-8; at most {MAX_ID_BYTES} are allowed")
    if not text:
        raise Refused("bad-id", f"{field} is empty")
    if "\0" in text:  # PostgreSQL cannot hold it
        raise Refused("bad-id", f"{field} contains the character U+0000")
    return text


def parse_time(field: str, value: str | float, received: float, counts: Counter[str]) -> float:
    """A time as epoch seconds.

    Args:
        field: its name, for the message.
        value: RFC 3339 text (UTC where it has no offset), or an epoch number: seconds, above 1e11 milliseconds,
            above 1e14 microseconds.
        received: the broker's time of the record, epoch seconds.
        counts: `clamped_times` grows by one if the time lies more than five minutes after `received`, which then
            stands in for it: one producer with a fast clock must not make all honest events look late.

    Raises:
        Refused: with code `bad-time`.
    """
    if isinstance(value, str):
        try:
            moment = _parse_moment(value)
        except ValueError:
            raise Refused("bad-time", f"{field} {value[:40]!r} is neither RFC 3339 nor an epoch number") from None
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    else:
        size = abs(value)
        scale = 1.0 if size <= MILLISECONDS_ABOVE else 1e3 if size <= MICROSECONDS_ABOVE else 1e6
        try:
            seconds = value / scale
        except OverflowError:
            raise Refused("bad-time", f"{field} is a number of too many digits") from None
    if seconds < EARLIEST_TIME:
        raise Refused("bad-time", f"{field} lies before the year 1")
    if seconds > received + FUTURE_TOLERANCE_SECONDS:
        counts[CLAMPED_TIMES] += 1
        return received
    return seconds


_LEAP_SECOND = re.compile(r"(:\d\d):60")


def _parse_moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        # RFC 3339 also knows small letters, and the leap second, which epoch time counts as the one before it.
        return datetime.fromisoformat(_LEAP_SECOND.sub(r"\1:59", text.upper(), count=1))
