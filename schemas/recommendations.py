"""Requests and recommendations: what is asked for and what users of Headstream consume."""

from __future__ import annotations

from collections import Counter

import msgspec

from schemas.decoding import Invalid, Refused, WireDecoder, parse_id

MAX_K = 1000
MAX_REQUEST_LIST = 10_000


class Request(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One question, as it is worked with after it was checked.

    Attributes:
        user_id: whom to recommend for; None where `item_id` stands in its place, which is always one of the two.
        item_id: what the items must be similar to.
        k: how many items; None is the scenario's own number.
        exclude: items not to show.
        categories: show only items of one of these; empty is all.
        history: items to recommend from in place of the user's own history; oldest first.
    """

    request_id: str
    user_id: str | None = None
    item_id: str | None = None
    scenario: str
    k: int | None = None
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    history: tuple[str, ...] | None = None


class _Wire(msgspec.Struct, kw_only=True):
    request_id: str | int
    user_id: str | int | None = None
    item_id: str | int | None = None
    scenario: str
    k: int | None = None
    exclude: list[str | int] | None = None
    categories: list[str | int] | None = None
    history: list[str | int] | None = None


_decoder = WireDecoder(_Wire)


def decode_request(value: bytes, counts: Counter[str]) -> Request | Invalid:
    """Decode and check one record of the requests topic; bad data is an `Invalid`, never an exception."""
    try:
        wire = _decoder.decode(value, counts)
        if wire.k is not None and not 1 <= wire.k <= MAX_K:
            raise Refused("bad-k", f"k is {wire.k}; 1 to {MAX_K} are allowed")
        _check_subject(wire)
        return Request(
            request_id=parse_id("request_id", wire.request_id),
            user_id=None if wire.user_id is None else parse_id("user_id", wire.user_id),
            item_id=None if wire.item_id is None else parse_id("item_id", wire.item_id),
            scenario=parse_id("scenario", wire.scenario),
            k=wire.k,
            exclude=_ids("exclude", wire.exclude or []),
            categories=_ids("categories", wire.categories or []),
            history=None if wire.history is None else _ids("history", wire.history),
        )
    except Refused as refused:
        return refused.invalid


def _check_subject(wire: _Wire) -> None:
    """A request is for one user or about one item, and only a user has a history."""
    if wire.user_id is None and wire.item_id is None:
        raise Refused("no-subject", "a request needs user_id (recommend for a user) or item_id (items similar to it)")
    if wire.user_id is not None and wire.item_id is not None:
        raise Refused("two-subjects", "user_id and item_id are both given; a request takes one of them")
    if wire.item_id is not None and wire.history is not None:
        raise Refused("history-of-item", "history goes with user_id, not with item_id: an item has none")


def _ids(field: str, values: list[str | int]) -> tuple[str, ...]:
    if len(values) > MAX_REQUEST_LIST:
        raise Refused("too-many", f"{field} has {len(values)} ids; at most {MAX_REQUEST_LIST} are allowed")
    return tuple(parse_id(field, value) for value in values)


class Trigger(msgspec.Struct, frozen=True):
    """The input record that a recommendation answers."""

    topic: str
    partition: int
    offset: int

    @property
    def recommendation_id(self) -> str:
        """Same input record, same id: consumers can drop duplicates."""
        return f"{self.topic}:{self.partition}:{self.offset}"


class ModelVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """The head that ranked: its version in this scenario and the gradient step it was taken at.

    Attributes:
        restores: the earlier version that it serves again, where the scenario was rolled back.
    """

    version: int
    step: int
    restores: int | None = None


class RecommendedItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of a list.

    Attributes:
        score: orders the list; where items similar to an item were asked for it is their cosine, 1 at most.
        source: `model`, `popular`, `fresh` or `explore`; `similar` in an answer to a request with an `item_id`.
        because: the item of the user's own history that speaks most for it.
    """

    item_id: str
    score: float
    source: str
    because: str | None = None


class Recommendation(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """A list of items for one user, or of those similar to one item, best first, with all that made it.

    Attributes:
        user_id: for whom; absent where `item_id` names what the items are similar to.
        generated_at: RFC 3339, UTC.
        trained_through: for each "topic:partition" of events, the last offset that the weights have learnt from.
        index_sequence: position in the vectors topic that the index has taken in.
    """

    recommendation_id: str
    user_id: str | None = None
    item_id: str | None = None
    scenario: str
    request_id: str | None = None
    generated_at: str
    items: list[RecommendedItem]
    trigger: Trigger
    model: ModelVersion
    trained_through: dict[str, int]
    index_sequence: int


encode_recommendation = msgspec.json.Encoder().encode
decode_recommendation = msgspec.json.Decoder(Recommendation).decode
