"""SERVE's mirror: publications are put to use whole, items appear and vanish at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import torch

from learner.items import ItemTable
from learner.ranking import ScenarioModel
from schemas.records import OtherVersion, Weights, decode_weights, encode, seal
from schemas.settings import Scenario, Serve, Settings
from streams.mirror import NO_WEIGHTS, Mirror

SETTINGS = Settings(scenarios={"shop": Scenario(), "video": Scenario()}, serve=Serve(fresh_impressions=2))
NOW = 1_700_000_000.0


@dataclass
class Record:
    """What an aiokafka record has."""

    key: bytes
    value: bytes | None
    timestamp: int = int(NOW * 1000)
    headers: tuple[tuple[str, bytes], ...] = ()
    offset: int = 0


def item(name: str, **more: Any) -> Record:
    return Record(name.encode(), json.dumps({"item_id": name, "title": name, **more}).encode())


class Source:
    """Stands where LEARN stands: gives items rows and says their vectors."""

    def __init__(self) -> None:
        self.table = ItemTable(list(SETTINGS.scenarios), SETTINGS.model)

    def vector(self, name: str, value: float, *, fresh: bool = False) -> Record:
        row = self.table.add(name)
        self.table.vectors[row] = value
        return Record(name.encode(), encode(self.table.describe(name, fresh=fresh)))

    def weights(self, scenario: str, version: int, through: int, companions: list[str], lineage: str = "a") -> Record:
        model = ScenarioModel.blank(SETTINGS.model)
        weights = Weights(
            scenario=scenario, lineage=lineage, version=version, step=version, published_at=NOW, clock=0.0,
            scenario_clock=0.0, vectors_through=through, published_with=companions, trained_through={},
            recall=None, tested=0, hits=0, examples=0, tensors=model.dump(),
        )  # fmt: skip
        return Record(scenario.encode(), encode(weights))


def dated(record: Record, published_at: float) -> Record:
    assert record.value is not None
    weights = msgspec.structs.replace(decode_weights(record.value), published_at=published_at)
    return Record(record.key, encode(weights))


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def mirror() -> Mirror:
    return Mirror(SETTINGS, torch.device("cpu"))


def found(mirror: Mirror, scenario: str) -> set[str]:
    query = torch.ones(1, SETTINGS.model.dimension)
    rows = mirror.indexes[scenario].search(query, 100).ids[0].tolist()
    return {str(mirror.table.id_of[row]) for row in rows if row}


def test_a_fresh_vector_is_found_as_soon_as_the_item_is_known_too(mirror: Mirror, source: Source) -> None:
    mirror.take_vectors([source.vector("a", 1.0, fresh=True)], 1)
    assert found(mirror, "shop") == set()
    mirror.take_items([item("a", scenarios=["shop"])])
    assert (found(mirror, "shop"), found(mirror, "video")) == ({"a"}, set())


def test_a_publication_is_put_to_use_whole_or_not_at_all(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("a"), item("b")])
    mirror.take_vectors([source.vector("a", 1.0)], 1)
    mirror.take_weights([source.weights("shop", 1, 2, ["shop", "video"])])
    mirror.take_weights([source.weights("video", 1, 2, ["shop", "video"])])
    assert (found(mirror, "shop"), mirror.head("shop").weights.version) == (set(), 0)
    mirror.take_vectors([source.vector("b", 1.0)], 2)
    assert found(mirror, "shop") == {"a", "b"}
    assert [mirror.head(name).weights.version for name in ("shop", "video")] == [1, 1]
    assert mirror.sequence == 2


def test_weights_wait_for_the_other_scenarios_of_their_publication(mirror: Mirror, source: Source) -> None:
    mirror.take_vectors([source.vector("a", 1.0)], 1)
    mirror.take_weights([source.weights("shop", 1, 1, ["shop", "video"])])
    assert mirror.head("shop").weights.version == 0
    mirror.take_weights([source.weights("video", 1, 1, ["shop", "video"])])
    assert [mirror.head(name).weights.version for name in ("shop", "video")] == [1, 1]


def test_after_catching_up_all_that_a_compacted_topic_still_holds_is_used(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("a")])
    mirror.take_vectors([source.vector("a", 1.0)], 9)
    mirror.take_weights([source.weights("shop", 7, 9, ["shop", "video"])])
    mirror.settle()
    assert mirror.head("shop").weights.version == 7
    assert found(mirror, "shop") == {"a"}


def test_hidden_deleted_and_moved_items_leave_at_once(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item(name) for name in "abc"])
    mirror.take_vectors([source.vector(name, 1.0, fresh=True) for name in "abc"], 3)
    mirror.take_items([item("a", hidden=True), Record(b"b", None), item("c", scenarios=["video"])])
    assert (found(mirror, "shop"), found(mirror, "video")) == (set(), {"c"})
    mirror.take_items([item("a")])
    assert found(mirror, "shop") == {"a"}


def test_a_row_given_to_another_item_no_longer_answers_for_the_first(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("old", scenarios=["video"]), item("new", scenarios=["shop"])])
    mirror.take_vectors([source.vector("old", 1.0, fresh=True)], 1)
    source.table.remove("old")
    mirror.take_vectors([source.vector("new", 1.0, fresh=True)], 2)
    assert (found(mirror, "shop"), found(mirror, "video")) == ({"new"}, set())


def test_an_item_that_moved_is_not_found_where_it_was(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("a"), item("b")])
    mirror.take_vectors([source.vector("a", 1.0, fresh=True)], 1)
    source.table.remove("a")
    moved = [source.vector("b", 1.0), source.vector("a", 1.0)]
    mirror.take_vectors([Record(b"a", None), moved[1]], 3)
    mirror.settle()
    assert (found(mirror, "shop"), mirror.table.row_of) == ({"a"}, {"a": 2})
    mirror.take_vectors([moved[0]], 4)
    mirror.settle()
    assert found(mirror, "shop") == {"a", "b"}


def test_old_weights_that_their_topic_still_holds_cost_nothing_of_what_is_read(mirror: Mirror, source: Source) -> None:
    both = ["shop", "video"]
    mirror.hold()
    mirror.take_items([item("a")])
    mirror.take_vectors([source.vector("a", 1.0)], 9)
    mirror.take_weights([source.weights(name, 7, 2, both, "old") for name in both])
    assert (found(mirror, "shop"), mirror.head("shop").weights.version) == (set(), 0)
    mirror.take_weights([dated(source.weights("shop", 1, 9, ["shop"], "new"), NOW + 1)])
    mirror.settle()
    assert found(mirror, "shop") == {"a"}
    assert [mirror.head(name).weights.version for name in both] == [1, 0]
    mirror.take_weights([source.weights(name, 2, 9, both, "new") for name in both])
    assert [mirror.head(name).weights.version for name in both] == [2, 2]


def test_a_learn_that_began_anew_replaces_every_earlier_vector(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("a"), item("b")])
    mirror.take_vectors([source.vector("a", 1.0), source.vector("b", 1.0)], 2)
    mirror.take_weights([source.weights("shop", 9, 2, ["shop"])])
    again = Source()
    mirror.take_vectors([again.vector("b", 1.0)], 3)
    mirror.take_weights([again.weights("shop", 1, 3, ["shop"], lineage="b")])
    assert found(mirror, "shop") == {"b"}
    assert mirror.head("shop").weights.version == 1


def test_an_item_keeps_the_row_that_an_earlier_lineage_gave_to_one_that_is_gone(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("a"), item("b")])
    earlier = [source.vector("a", 1.0), source.vector("b", 1.0)]
    anew = Source()
    anew.table.add("other")
    mirror.take_vectors([*earlier, anew.vector("a", 2.0)], 3)
    mirror.take_weights([anew.weights(name, 1, 3, ["shop", "video"], "b") for name in ("shop", "video")])
    mirror.settle()
    assert mirror.table.row_of == {"a": 2}


def test_the_newest_item_gets_its_first_impressions_and_then_no_more(mirror: Mirror, source: Source) -> None:
    mirror.take_items([item("a", categories=["x"]), item("b", categories=["y"])])
    mirror.take_vectors([source.vector("a", 1.0, fresh=True), source.vector("b", 1.0, fresh=True)], 2)
    nothing: frozenset[str] = frozenset()
    assert mirror.newest("shop", NOW, nothing, nothing) == "b"
    assert mirror.newest("shop", NOW, frozenset({"b"}), nothing) == "a"
    assert mirror.newest("shop", NOW, nothing, frozenset({"x"})) == "a"
    assert mirror.newest("shop", NOW + 10_000, nothing, nothing) is None
    for _ in range(2):
        mirror.count_impression("shop", "b")
    assert mirror.newest("shop", NOW, nothing, nothing) == "a"
    assert mirror.newest("video", NOW, nothing, nothing) == "b"


def test_weights_of_a_scenario_that_is_not_configured_are_passed_over(mirror: Mirror, source: Source) -> None:
    mirror.take_weights([source.weights("books", 3, 0, ["books", "shop"])])
    assert mirror.head("shop").weights is NO_WEIGHTS


def test_weights_of_another_make_are_named_with_what_to_do(mirror: Mirror, source: Source) -> None:
    foreign = msgspec.structs.replace(SETTINGS.model, mixer_units=SETTINGS.model.mixer_units + 1)
    record = source.weights("shop", 1, 0, ["shop"])
    weights = msgspec.structs.replace(decode_weights(record.value), tensors=ScenarioModel.blank(foreign).dump())
    mirror.take_weights([Record(b"shop", encode(weights))])
    with pytest.raises(OtherVersion, match=r"the published weights of 'shop' .* size mismatch .* another --data"):
        _ = mirror.head("shop").model


def test_weights_that_are_not_as_they_were_sealed_are_passed_over(
    mirror: Mirror, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    mirror.take_weights([source.weights("shop", 1, 0, ["shop"])])
    sealed = source.weights("shop", 2, 0, ["shop"])
    assert sealed.value is not None
    damaged = bytearray(sealed.value)
    damaged[len(damaged) // 2] ^= 1
    mirror.take_weights([Record(sealed.key, bytes(damaged), headers=(seal(sealed.value),), offset=7)])
    assert mirror.head("shop").weights.version == 1
    assert "the weights at offset 7, of b'shop', are damaged and passed over" in caplog.text
    mirror.take_weights([Record(sealed.key, sealed.value, headers=(seal(sealed.value),))])
    assert mirror.head("shop").weights.version == 2
