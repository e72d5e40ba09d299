"""Reports and orders beside the main flow: drift, erasures, and the headers of dead letters."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from schemas.control import parse_text
from schemas.decoding import Invalid, Refused, WireDecoder, parse_id, parse_time

Severity = Literal["page", "note", "news"]
"""`page`: somebody should look now. `note`: worth knowing beside the charts. `news`: what was done, by whom or what."""


class DriftReport(msgspec.Struct, kw_only=True, frozen=True):
    """A signal of a scenario that left its reference, or an act upon a model, and why.

    Attributes:
        report_id: the same for the same occurrence: consumers can drop repeats.
        signal: one of `schemas.signals.SIGNALS`; for an act the signal it was for, or "" where a person wanted it.
        status: `alarm` and `cleared` of a signal; `promoted`, `rolled_back`, `paused`, `resumed`, `consolidated` and
            `refused` of acts.
        value: now, and `reference`: before; their difference was judged against `threshold`. None where the report is
            about no number.
        window: how many examples `value` is taken over.
        detected_at: RFC 3339, UTC.
        action: what was done about it, in a word or two; "" is nothing.
        reason: a sentence for people.
    """

    report_id: str
    scenario: str
    signal: str
    status: str
    severity: Severity
    value: float | None
    reference: float | None
    threshold: float | None
    window: int
    detected_at: str
    action: str
    reason: str


encode_report = msgspec.json.Encoder().encode
decode_report = msgspec.json.Decoder(DriftReport).decode


PLACES = {
    "user states": "user states",
    "history": "events remembered of the user",
    "lists": "lists that the user was sent last, kept to know clicks on them",
    "replay rows": "examples kept for replay",
    "probe rows": "examples kept to test what is forgotten",
    "checkpoints": "checkpoints rewritten, those of versions to roll back to among them",
    "damaged checkpoints": "checkpoints that cannot be read, and were deleted whole",
    "examples": "examples that were not learnt yet and will not be, so far",
}
"""Where an erasure removes something, and what it counts there."""


class Erasure(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The wish that everything of one user goes.

    Attributes:
        requested_at: epoch seconds; events dated up to then do not count any more, whenever they come.
        erasure_id: names the receipt; None takes the record's own place for it.
        reason: for whoever looks at the receipt later; it should not say who the user is.
    """

    user_id: str
    requested_at: float
    erasure_id: str | None = None
    reason: str = ""


class _ErasureWire(msgspec.Struct, kw_only=True):
    user_id: str | int
    requested_at: str | int | float | None = None
    erasure_id: str | int | None = None
    reason: str | None = None


encode_erasure = msgspec.json.Encoder().encode


_erasure_decoder = WireDecoder(_ErasureWire)


def decode_erasure(value: bytes, received: float, counts: Counter[str]) -> Erasure | Invalid:
    """Decode and check one record of the erasures topic; bad data is an `Invalid`, never an exception.

    What is yet to happen is not erased: a time after the record's own is taken for that.
    """
    try:
        wire = _erasure_decoder.decode(value, counts)
        asked = wire.requested_at
        return Erasure(
            user_id=parse_id("user_id", wire.user_id),
            requested_at=received
            if asked is None
            else min(received, parse_time("requested_at", asked, received, counts)),
            erasure_id=None if wire.erasure_id is None else parse_id("erasure_id", wire.erasure_id),
            reason=parse_text("reason", wire.reason) if wire.reason else "",
        )
    except Refused as refused:
        return refused.invalid


def dead_letter_headers(
    invalid: Invalid, topic: str, partition: int, offset: int, timestamp: int
) -> list[tuple[str, bytes]]:
    """What is added to the untouched key, value and headers of a record that could not be taken.

    Args:
        timestamp: of the record, milliseconds since the epoch.
    """
    return [
        ("error.code", invalid.code.encode()),
        ("error.message", f"{invalid.message} (topic {topic}, partition {partition}, offset {offset})".encode()),
        ("source.topic", topic.encode()),
        ("source.partition", str(partition).encode()),
        ("source.offset", str(offset).encode()),
        ("source.timestamp", str(timestamp).encode()),
    ]
