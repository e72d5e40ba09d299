"""Events: what a user did to an item in a scenario, as companies publish it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import msgspec

from schemas.decoding import Invalid, Refused, WireDecoder, parse_id, parse_time


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One act of one user, as it is worked with after it was checked.

    Attributes:
        time: epoch seconds.
        weight: what the scenario's configuration says this kind of event is worth; negative is dislike.
        event_id: the producer's own id; a repeat of it by the same user counts once.
        recommendation_id: the recommendation that the user acted on, if the producer knows it.
    """

    user_id: str
    item_id: str
    event: str
    weight: float
    time: float
    event_id: str | None = None
    value: float | None = None
    recommendation_id: str | None = None


class EventRecord(msgspec.Struct, kw_only=True):
    """One record of an events topic, as it is published."""

    user_id: str | int
    item_id: str | int
    event: str
    timestamp: str | int | float | None = None
    event_id: str | int | None = None
    value: float | None = None
    recommendation_id: str | int | None = None
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_decoder = WireDecoder(EventRecord)


def decode_event(
    value: bytes, received: float, scenario: str, weights: Mapping[str, float], counts: Counter[str]
) -> Event | Invalid:
    """Decode and check one record of an events topic; bad data is an `Invalid`, never an exception.

    Args:
        value: the record's value, JSON.
        received: the broker's time of the record, epoch seconds; stands in for an absent timestamp.
        scenario: the topic's scenario, for the message.
        weights: the scenario's event names and their weights.
        counts: grows by `unknown_fields` and `clamped_times`.
    """
    try:
        wire = _decoder.decode(value, counts)
        weight = weights.get(wire.event)
        if weight is None:
            known = ", ".join(weights)
            raise Refused("unknown-event", f'scenario "{scenario}": event "{wire.event[:80]}" is not one of {known}')
        return Event(
            user_id=parse_id("user_id", wire.user_id),
            item_id=parse_id("item_id", wire.item_id),
            event=wire.event,
            weight=weight,
            time=received if wire.timestamp is None else parse_time("timestamp", wire.timestamp, received, counts),
            event_id=None if wire.event_id is None else parse_id("event_id", wire.event_id),
            value=wire.value,
            recommendation_id=(
                None if wire.recommendation_id is None else parse_id("recommendation_id", wire.recommendation_id)
            ),
        )
    except Refused as refused:
        return refused.invalid
