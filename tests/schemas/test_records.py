"""What our processes say to each other reads back as it was written."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from schemas.records import (
    Example,
    ItemVector,
    OtherVersion,
    Weights,
    decode_example,
    decode_item_vector,
    decode_weights,
    encode,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
NUMBERS = st.floats(allow_nan=False)
COUNTS = st.integers(0, 2**63 - 1)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: TEXTS,
    int: COUNTS,
    Annotated[int, Meta(ge=1)]: st.integers(1, 2**63 - 1),
    float: NUMBERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    list[str]: st.lists(TEXTS, max_size=3),
    dict[str, int]: st.dictionaries(TEXTS, COUNTS, max_size=3),
    str | None: st.none() | TEXTS,
    float | None: st.none() | NUMBERS,
    int | None: st.none() | COUNTS,
}


def any_of(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return st.builds(kind, **{field.name: BY_TYPE[field.type] for field in msgspec.structs.fields(kind)})


@given(any_of(Example))
def test_an_example_reads_back_as_it_was_written(example: Example) -> None:
    assert decode_example(encode(example)) == example


@given(any_of(ItemVector))
def test_an_item_vector_reads_back_as_it_was_written(vector: ItemVector) -> None:
    assert decode_item_vector(encode(vector)) == vector


@given(any_of(Weights))
def test_weights_read_back_as_they_were_written(weights: Weights) -> None:
    assert decode_weights(encode(weights)) == weights


@given(any_of(Example))
def test_an_example_of_an_older_version_lacks_only_what_may_be_left_out(example: Example) -> None:
    fields: list[Any] = msgspec.msgpack.decode(encode(example))
    example.recommendation_id, example.passed_over, example.used, example.user_since = None, "", "", 0.0
    assert decode_example(msgspec.msgpack.encode(fields[:-4])) == example


def test_an_example_that_another_version_wrote_is_refused_with_what_to_do() -> None:
    fields: list[Any] = msgspec.msgpack.decode(encode(Example(0, 0, "u", 0.0, "view", "i", 1.0, "", b"", "")))
    fields[7] = ["a list", "of strings"]
    with pytest.raises(OtherVersion, match=r"another version of Headstream .* another --data"):
        decode_example(msgspec.msgpack.encode(fields))


def test_a_record_of_another_kind_is_not_taken_for_one() -> None:
    with pytest.raises(OtherVersion, match="a scenario's weights"):
        decode_weights(encode(Example(0, 0, "u", 0.0, "view", "i", 1.0, "", b"", "")))
