"""What our own processes say to each other: examples to LEARN, item vectors and weights to SERVE. Msgpack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from schemas.decoding import UNREADABLE
from schemas.errors import ExplainedError

Record = TypeVar("Record")


class OtherVersion(ExplainedError):
    """Something of our own that this version cannot read."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(
            f"{what} was written by another version of Headstream ({reason}). Go back to that version, or begin anew "
            "with another --data folder (or database) and another kafka.prefix."
        )


class Example(msgspec.Struct, array_like=True):
    """One event as a question to learn from: given this history, the user acted on this item.

    The history is exactly what serving saw before the event, so LEARN needs no user state and sees no skew.

    Attributes:
        partition: of the events topic of this scenario; with `offset` it names the source record.
        time: of the event, epoch seconds.
        item_id: the target.
        history: item ids, of all scenarios, oldest first; `history_times` (epoch seconds) runs beside it.
        excluded: what serving would not have shown: items the user has acted on, and disliked ones.
        recommendation_id: of the list that the item was chosen from, as the event says or as SERVE remembers; None
            where the user has found it otherwise.
        passed_over: what stood above this item in the list that the user had chosen it from, where the scenario learns
            from that.
        used: where items may return, those that the user has acted on in this scenario, oldest first. All five are as
            `schemas.packed` packs them.
        user_since: time of the user's first event, epoch seconds; 0 where nobody remembers.
    """

    partition: int
    offset: int
    user_id: str
    time: float
    event: str
    item_id: str
    weight: float
    history: str
    history_times: bytes
    excluded: str
    recommendation_id: str | None = None
    passed_over: str = ""
    used: str = ""
    user_since: float = 0.0


class ItemVector(msgspec.Struct, array_like=True):
    """What SERVE needs to know of one item. Arrays are little-endian bytes.

    Attributes:
        row: the item's row in LEARN's tables, from 1; neighbours are named by row.
        fresh: made from text alone for an item that was just published, to be shown at once; any other record waits
            for the weights that were published with it.
        vector: float32, (dimension,).
        scenarios: names, in the order of `bias` and `popularity`.
        bias: float32, (scenarios,).
        popularity: natural log of the decayed count, slow and fast half-life, plus the decay's clock, so that it holds
            until the item's next event; float64, (scenarios, 2).
        neighbours: rows, 0 where empty; int32, (neighbours,).
        together, forward: co-visitation weights beside `neighbours`; float32, (neighbours,).
        count: decayed number of events.
        touched: clock of the co-visitation decay at which `together`, `forward` and `count` hold.
        events: how many events it ever had.
    """

    item_id: str
    row: Annotated[int, Meta(ge=1)]
    fresh: bool
    vector: bytes
    scenarios: list[str]
    bias: bytes
    popularity: bytes
    neighbours: bytes
    together: bytes
    forward: bytes
    count: float
    touched: float
    events: int


class Weights(msgspec.Struct, array_like=True):
    """All that ranks one scenario, as one consistent whole.

    Attributes:
        lineage: names the run of LEARN that the rows of item vectors belong to.
        version: grows by one with each publication of this scenario.
        step: gradient steps taken.
        published_at: epoch seconds.
        clock: events seen, over all scenarios; `scenario_clock`: in this one. Decays count in them.
        vectors_through: the vectors topic must have been read up to this offset for the item side to match.
        published_with: the scenarios whose weights belong to the same publication; they are put to use together.
        trained_through: "topic:partition" of events → last offset learnt from.
        recall: prequential recall@10 of recent examples, None before the first; `hits` of `tested` over all.
        examples: how many this scenario has learnt from.
        tensors: safetensors bytes of trunk, head and mixer.
        restores: the earlier version that this one serves again; None where it is what was learnt by now.
    """

    scenario: str
    lineage: str
    version: int
    step: int
    published_at: float
    clock: float
    scenario_clock: float
    vectors_through: int
    published_with: list[str]
    trained_through: dict[str, int]
    recall: float | None
    tested: int
    hits: int
    examples: int
    tensors: bytes
    restores: int | None = None


encode = msgspec.msgpack.Encoder().encode
_example_decoder = msgspec.msgpack.Decoder(Example)
_vector_decoder = msgspec.msgpack.Decoder(ItemVector)
_weights_decoder = msgspec.msgpack.Decoder(Weights)


SEAL = "sha256"


def seal(value: bytes) -> tuple[str, bytes]:
    """The header by which a reader knows that a record is as it was written."""
    return SEAL, hashlib.sha256(value).hexdigest().encode()


def is_whole(value: bytes, headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record is as it was when it was sealed; one that never was is taken for whole."""
    return all(header == seal(value) for header in headers if header[0] == SEAL)


def decode_example(value: bytes) -> Example:
    """Read what `encode` wrote.

    Raises:
        OtherVersion: it is no example as we write them.
    """
    return _decoded("a training example", _example_decoder, value)


def decode_item_vector(value: bytes) -> ItemVector:
    """Read what `encode` wrote.

    Raises:
        OtherVersion: it is no vector as we write them.
    """
    return _decoded("an item's vector", _vector_decoder, value)


def decode_weights(value: bytes) -> Weights:
    """Read what `encode` wrote.

    Raises:
        OtherVersion: they are no weights as we write them.
    """
    return _decoded("a scenario's weights", _weights_decoder, value)


def _decoded(what: str, decoder: msgspec.msgpack.Decoder[Record], value: bytes) -> Record:
    try:
        return decoder.decode(value)
    except UNREADABLE as error:
        raise OtherVersion(what, str(error)) from None
