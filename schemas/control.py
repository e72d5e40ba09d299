"""Control records: what an operator orders on the control topic, checked before LEARN acts on it."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

import msgspec

from schemas.decoding import Invalid, Refused, WireDecoder, parse_id, parse_time

Action = Literal["pause", "resume", "promote", "rollback", "consolidate"]
ACTIONS: tuple[str, ...] = get_args(Action)

MAX_REASON_CHARACTERS = 1000
MAX_VERSION = (1 << 63) - 1
"""What SQL can hold."""


class Control(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """One order; the same `action_id` is carried out once, however often the record comes.

    Attributes:
        action: `pause` and `resume` a scenario's learning; `promote` what it has learnt to its good version, and serve
            it; `rollback` to a version that is kept; `consolidate` all scenarios into a new generation.
        scenario: None where the action is for all of them.
        version: that a rollback goes to; None is the last good one.
        requested_at: epoch seconds.
    """

    action_id: str
    action: Action
    scenario: str | None = None
    version: int | None = None
    author: str
    reason: str
    requested_at: float


class _Wire(msgspec.Struct, kw_only=True):
    action_id: str | int
    action: str
    scenario: str | int | None = None
    version: int | None = None
    author: str
    reason: str
    requested_at: str | int | float | None = None


_decoder = WireDecoder(_Wire)
encode_control = msgspec.json.Encoder().encode


def decode_control(value: bytes, received: float, counts: Counter[str]) -> Control | Invalid:
    """Decode and check one record of the control topic; bad data is an `Invalid`, never an exception.

    Whether the scenario and the version exist is for LEARN to say.
    """
    try:
        wire = _decoder.decode(value, counts)
        if wire.action not in ACTIONS:
            raise Refused("bad-action", f'action is "{wire.action[:40]}"; allowed are {", ".join(ACTIONS)}')
        if (wire.scenario is None) != (wire.action == "consolidate"):
            wanted = "no scenario, since it is for all of them" if wire.scenario is not None else "a scenario"
            raise Refused("bad-scope", f"{wire.action} takes {wanted}")
        if wire.version is not None and (wire.action != "rollback" or not 1 <= wire.version <= MAX_VERSION):
            raise Refused(
                "bad-version", f"version is {wire.version}; a rollback takes one, from 1 on, nothing else does"
            )
        return Control(
            action_id=parse_id("action_id", wire.action_id),
            action=wire.action,  # type: ignore[arg-type]  # checked above
            scenario=None if wire.scenario is None else parse_id("scenario", wire.scenario),
            version=wire.version,
            author=parse_text("author", wire.author),
            reason=parse_text("reason", wire.reason),
            requested_at=received
            if wire.requested_at is None
            else parse_time("requested_at", wire.requested_at, received, counts),
        )
    except Refused as refused:
        return refused.invalid


def parse_text(field: str, value: str) -> str:
    """What people shall read later: there must be something, and no more than they would read.

    Raises:
        Refused: with code `bad-text`.
    """
    text = value.replace("\0", "").strip()
    if not text:
        raise Refused("bad-text", f"{field} is empty; say {'who orders this' if field == 'author' else 'why'}")
    if len(text) > MAX_REASON_CHARACTERS:
        raise Refused("bad-text", f"{field} has {len(text)} characters; at most {MAX_REASON_CHARACTERS} are allowed")
    return text
