"""Items as companies publish them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from schemas.decoding import CLAMPED_TIMES, Invalid
from schemas.items import MAX_NAMES, MAX_TEXT_CHARACTERS, Item, decode_item, decode_item_key

RECEIVED = 1_750_000_000.0


def decode(counts: Counter[str] | None = None, /, **fields: Any) -> Item | Invalid:
    value = json.dumps({"item_id": "i", **fields}, ensure_ascii=False).encode()
    return decode_item(value, RECEIVED, Counter() if counts is None else counts)


def test_an_item_without_a_title_is_an_item() -> None:
    """Case P2; an empty id is refused, as `test_decoding.py` says of all ids."""
    assert decode() == decode(title="") == decode(title=None, text=None, categories=None) == Item(item_id="i")
    assert Item(item_id="i").prose == ""


def test_every_field_is_taken() -> None:
    counts: Counter[str] = Counter()
    found = decode(
        counts,
        item_id=42,
        title="Lamp",
        text="A lamp.",
        categories=["home", 7, "home"],
        scenarios=["shop", "shop"],
        hidden=True,
        published_at="2025-01-01T00:00:00Z",
        attributes={"price": 9.5, "sizes": [1, "L"], "maker": {"name": "x", "places": [None, True]}},
    )
    assert found == Item(
        item_id="42",
        title="Lamp",
        text="A lamp.",
        categories=("home", "7"),
        scenarios=("shop",),
        hidden=True,
        published_at=1_735_689_600.0,
    )
    assert found.prose == "Lamp. A lamp.. home, 7"
    assert counts == {}


def test_no_scenarios_is_everywhere_and_an_empty_list_nowhere() -> None:
    everywhere, nowhere = decode(scenarios=None), decode(scenarios=[])
    assert isinstance(everywhere, Item)
    assert isinstance(nowhere, Item)
    assert (everywhere.scenarios, nowhere.scenarios) == (None, ())


def test_a_title_of_almost_a_mebibyte_is_cut() -> None:
    """Case P1."""
    found = decode(title="ü" * 500_000, text="x" * (MAX_TEXT_CHARACTERS + 1))
    assert found == Item(item_id="i", title="ü" * MAX_TEXT_CHARACTERS, text="x" * MAX_TEXT_CHARACTERS)


def test_a_title_of_a_mebibyte_is_too_large() -> None:
    """Case P1."""
    found = decode(title="x" * (1 << 20))
    assert isinstance(found, Invalid)
    assert found.code == "too-large"


def test_what_a_database_cannot_hold_is_taken_out_of_texts() -> None:
    assert decode(title="a\0b", text="\0") == Item(item_id="i", title="ab")


@pytest.mark.parametrize("field", ["categories", "scenarios"])
def test_a_list_of_names_is_bounded_and_each_an_id(field: str) -> None:
    assert isinstance(decode(**{field: [str(number) for number in range(MAX_NAMES)]}), Item)
    for wrong, code in ((["a"] * (MAX_NAMES + 1), "too-many"), ([""], "bad-id"), (["x" * 257], "bad-id")):
        found = decode(**{field: wrong})
        assert isinstance(found, Invalid)
        assert (found.code, field in found.message) == (code, True)


@pytest.mark.parametrize(
    "attributes", ['{"price": NaN}', '{"price": Infinity}', '{"price": 1e400}', '{"price": [1e999]}']
)
def test_an_attribute_that_is_not_finite_is_refused(attributes: str) -> None:
    """Case E33."""
    found = decode_item(f'{{"item_id":"i","attributes":{attributes}}}'.encode(), RECEIVED, Counter())
    assert isinstance(found, Invalid)
    assert found.code in ("not-json", "wrong-type")


def test_a_time_of_publication_in_the_future_is_clamped_and_counted() -> None:
    counts: Counter[str] = Counter()
    found = decode(counts, published_at=RECEIVED + 86_400)
    assert isinstance(found, Item)
    assert (found.published_at, counts) == (RECEIVED, {CLAMPED_TIMES: 1})


@pytest.mark.parametrize("hidden", ["yes", 1, "true"])
def test_hidden_is_true_or_false(hidden: object) -> None:
    found = decode(hidden=hidden)
    assert isinstance(found, Invalid)
    assert (found.code, "hidden" in found.message) == ("wrong-type", True)


def test_a_delete_names_its_item_by_key() -> None:
    assert decode_item_key("a/ü".encode()) == "a/ü"
    assert decode_item_key(b"42") == "42"
    for key in (None, b"", b"\x00\x85", b"x" * 257):
        found = decode_item_key(key)
        assert isinstance(found, Invalid)
        assert found.code == "bad-id"
