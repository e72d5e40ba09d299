"""Snapshots of SERVE's mirror: with the records since they give back the mirror; what does not fit is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import Tensor

from learner import table_copy
from learner.covisitation import Neighbours
from learner.items import ItemTable
from learner.ranking import ScenarioModel
from schemas.records import Weights, encode
from schemas.settings import Model, Scenario, Serve, Settings
from schemas.topics import Topics
from streams import snapshot
from streams.mirror import Mirror
from streams.snapshot import GOOD_FOR_SECONDS, Restored, SnapshotRefused, made_for, read_snapshot, write_snapshot
from streams.store import Partition
from streams.tensor_file import read_tensors, write_tensors
from tests.learner.builders import assert_near
from tests.streams.test_mirror import NOW, Record, item

SETTINGS = Settings(
    scenarios={"shop": Scenario(), "video": Scenario()},
    serve=Serve(fresh_impressions=2),
    model=Model(
        dimension=8, heads=1, adapter_rank=1, mixer_units=2, neighbours=4, items=50, neural_candidates=5,
        covisited_candidates=5, popular_candidates=5,
    ),
)  # fmt: skip
TOPICS = Topics(SETTINGS)
ITEMS, VECTORS = (TOPICS.items, 0), (TOPICS.vectors, 0)
IDS = {TOPICS.items: "id of items", TOPICS.vectors: "id of vectors"}
BLANK = ScenarioModel.blank(SETTINGS.model).dump()
NAMES = "abcdefgh"


class World:
    """The topics, LEARN that writes them, and a SERVE that follows each record as it comes."""

    def __init__(self) -> None:
        self.items: list[Record] = []
        self.vectors: list[Record] = []
        self.weights: list[Record] = []
        self.live = Mirror(SETTINGS, torch.device("cpu"))
        self.table = ItemTable(list(SETTINGS.scenarios), SETTINGS.model)
        self._lineage = 0

    @property
    def ends(self) -> dict[Partition, int]:
        return {ITEMS: len(self.items), VECTORS: len(self.vectors)}

    def say(self, record: Record) -> None:
        """A record of the items topic."""
        self.items.append(record)
        self.live.take_items([record])

    def teach(self, name: str, seed: int, fresh: bool) -> None:
        """The item gets a vector, or another one; everything about it is new."""
        fresh = fresh and name not in self.table.row_of
        row, generator = self.table.add(name), torch.Generator().manual_seed(seed)
        table = self.table
        table.vectors[row] = torch.rand(8, generator=generator)
        table.bias[:, row] = torch.rand(2, generator=generator)
        known = torch.tensor([0, *table.row_of.values()], dtype=torch.int32)
        rows = known[torch.randint(0, len(known), (1, 4), generator=generator)]
        weights = torch.rand(2, 1, 4, generator=generator) * (rows > 0)
        table.covisitation.place(torch.tensor([row]), Neighbours(rows, weights[0], weights[1]))
        table.covisitation.count[row] = seed + 1.0
        table.covisitation.touched[row] = seed + 2.0
        keys = torch.rand(2, 1, 2, generator=generator, dtype=torch.float64)
        table.popularity.place(torch.tensor([row]), {0: keys[0], 1: keys[1]}, torch.tensor([seed + 3]))
        self._send(name, fresh)

    def forget(self, name: str) -> None:
        """The item is deleted; those that had it as a neighbour are told anew."""
        row = self.table.row_of.get(name)
        if row is None:
            return
        others = self.table.covisitation.naming(row).tolist()
        self.table.remove(name)
        self._log([Record(name.encode(), None)])
        for other in others:
            if other != row:
                self._send(str(self.table.id_of[other]), False)

    def publish(self) -> None:
        """A publication of all scenarios is whole with this."""
        for scenario in SETTINGS.scenarios:
            weights = Weights(
                scenario=scenario, lineage=str(self._lineage), version=len(self.weights), step=1,
                published_at=NOW + len(self.weights), clock=0.0, scenario_clock=0.0, vectors_through=len(self.vectors),
                published_with=list(SETTINGS.scenarios), trained_through={}, recall=None, tested=0, hits=0, examples=0,
                tensors=BLANK,
            )  # fmt: skip
            record = Record(scenario.encode(), encode(weights))
            self.weights.append(record)
            self.live.take_weights([record])

    def begin_anew(self) -> None:
        """Another LEARN, which gives the items other rows, publishes all of them."""
        names = sorted(self.table.row_of, reverse=True)
        self.table, self._lineage = ItemTable(list(SETTINGS.scenarios), SETTINGS.model), self._lineage + 1
        for number, name in enumerate(names):
            self.teach(name, 100 + number, fresh=False)
        self.publish()

    def _send(self, name: str, fresh: bool) -> None:
        self._log([Record(name.encode(), encode(self.table.describe(name, fresh=fresh)))])

    def _log(self, records: Sequence[Record]) -> None:
        self.vectors.extend(records)
        self.live.take_vectors(records, len(self.vectors))


def compacted(records: Sequence[Record], begin: int) -> list[Record]:
    """What a compacted topic may have left of the records from an offset on: the last one of each key."""
    last = {record.key: offset for offset, record in enumerate(records)}
    return [record for offset, record in enumerate(records) if offset >= begin and last[record.key] == offset]


def write(file: Path, world: World, pause: Callable[[], object] = lambda: None, now: float = NOW) -> None:
    noted = world.live.note()
    positions = {ITEMS: len(world.items), VECTORS: noted.sequence}
    write_snapshot(file, made_for(SETTINGS, IDS), noted, positions, now, pause=pause)


def read(
    file: Path,
    world: World,
    using: Settings = SETTINGS,
    ids: Mapping[str, str] = IDS,
    ends: Mapping[Partition, int] | None = None,
    now: float = NOW,
) -> Restored:
    found = read_snapshot(file, made_for(using, ids), using, world.ends if ends is None else ends, now)
    assert found is not None
    return found


def restored(file: Path, world: World, left: Callable[[Sequence[Record], int], list[Record]]) -> Mirror:
    """A SERVE that starts from the file and reads what the topics have left."""
    found = read(file, world)
    mirror = found.mirror
    mirror.hold()
    mirror.take_items(left(world.items, found.positions[ITEMS]))
    records = left(world.vectors, found.positions[VECTORS])
    for start in range(0, len(records), 3):
        mirror.take_vectors(records[start : start + 3], len(world.vectors))
    mirror.take_vectors([], len(world.vectors))
    mirror.take_weights(left(world.weights, 0))
    mirror.settle()
    return mirror


def told(mirror: Mirror) -> dict[str, Any]:
    """All that a mirror can be asked about."""
    table = mirror.table
    known = sorted(table.row_of.items())
    query = torch.linspace(-1, 1, 8)[None]
    shelves = {}
    for number, name in enumerate(mirror.scenarios):
        found = mirror.indexes[name].search(query, 100)
        expected = query @ table.vectors[found.ids[0]].T + table.bias[number, found.ids[0]]
        assert_near(found.scores, expected.masked_fill(found.ids == 0, -torch.inf))
        shelves[name] = (
            sorted(str(table.id_of[row]) for row in found.ids[0].tolist() if row),
            sorted(str(table.id_of[row]) for row in table.eligible[number].nonzero().flatten().tolist()),
            sorted(table.popularity.used(number).tolist()),
            sorted(table.popularity.top(number, table.eligible[number], 50, 0.0).tolist()),
            mirror.newest(name, NOW, frozenset(), frozenset()),
            mirror.head(name).weights.version,
        )
    free = [row for row in range(table.allocated) if row not in table.row_of.values()]
    return {
        "rows": known,
        "records": [
            msgspec.structs.replace(record, neighbours=b"", together=b"", forward=b"")
            for record in table.describe_rows([row for _, row in known], fresh=False)
        ],
        "shelves": shelves,
        "items": mirror.items,
        "categories": {name: sorted(mirror.rows_in([name])) for name in "xyz"},
        "what lies in free rows": float(table.vectors[free].abs().sum() + table.bias[:, free].abs().sum()),
        "sequence": mirror.sequence,
    }


def neighbours(table: ItemTable, names: Sequence[str]) -> Tensor:
    """Neighbour, together, forward; (names, 4, 3)."""
    return torch.stack([each.double() for each in table.covisitation.describe(torch.tensor(table.rows(names)))], 2)


def assert_neighbours_are_as_learn_has_them(mirror: Mirror, world: World) -> None:
    """But for some that were lost with a row's earlier item, which the item's next record brings again."""
    names = sorted(mirror.table.row_of.keys() & world.table.row_of.keys())
    if names:
        found, expected = neighbours(mirror.table, names), neighbours(world.table, names)
        assert torch.equal(found, torch.where(found == 0, 0.0, expected))


NAME = st.sampled_from(NAMES)
ACTION = st.one_of(
    st.tuples(st.just("teach"), NAME, st.integers(0, 50), st.booleans()),
    st.tuples(st.just("teach"), NAME, st.integers(0, 50), st.booleans()),
    st.tuples(st.just("forget"), NAME),
    st.tuples(st.just("publish")),
    st.tuples(st.just("publish")),
    st.tuples(st.just("say"), NAME, st.sampled_from("xyz"), st.sampled_from([None, ["shop"], []]), st.booleans()),
    st.tuples(st.just("unsay"), NAME),
    st.tuples(st.just("begin anew")),
)
OFTEN = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def act(world: World, action: tuple[Any, ...]) -> None:
    match action:
        case ("teach", name, seed, fresh):
            world.teach(name, seed, fresh)
        case ("forget", name):
            world.forget(name)
        case ("publish",):
            world.publish()
        case ("say", name, category, scenarios, hidden):
            world.say(item(name, categories=[category], scenarios=scenarios, hidden=hidden))
        case ("unsay", name):
            world.say(Record(name.encode(), None))
        case ("begin anew",):
            world.begin_anew()


def full() -> World:
    """A world in which everything is there once."""
    world = World()
    for number, name in enumerate(NAMES):
        world.say(item(name, categories=["x" if number % 2 else "y"]))
        world.teach(name, number, fresh=True)
    world.forget("c")
    world.say(Record(b"c", None))
    world.publish()
    world.say(item("d", hidden=True))
    world.say(item("e", scenarios=["video"]))
    return world


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of a few rows, so that much can happen between them."""
    monkeypatch.setattr(table_copy, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(snapshot, "AT_ONCE", 2)


@OFTEN
@given(
    before=st.lists(ACTION, max_size=25),
    during=st.lists(st.tuples(st.integers(0, 12), ACTION), max_size=25),
    after=st.lists(ACTION, max_size=8),
    compact=st.booleans(),
)
def test_a_snapshot_torn_by_writes_is_made_whole_by_the_records_since(
    tmp_path: Path,
    before: list[tuple[Any, ...]],
    during: list[tuple[int, tuple[Any, ...]]],
    after: list[tuple[Any, ...]],
    compact: bool,
) -> None:
    world = World()
    for action in before:
        act(world, action)

    def meanwhile() -> Iterator[None]:
        for pauses, action in during:
            for _ in range(pauses):
                yield
            act(world, action)
        while True:
            yield

    writes = meanwhile()
    write(tmp_path / "f", world, pause=lambda: next(writes))
    for action in after:
        act(world, action)
    world.live.settle()
    left = compacted if compact else lambda records, begin: list(records[begin:])
    mirror = restored(tmp_path / "f", world, left)
    note(f"noted at {read(tmp_path / 'f', world).positions} of {world.ends}")
    found, expected = told(mirror), told(world.live)
    if compact:  # an item that went and came again meanwhile is not known to be new
        for shelves in (found["shelves"], expected["shelves"]):
            for name, shelf in shelves.items():
                shelves[name] = (*shelf[:4], *shelf[5:])
    assert found == expected
    assert_neighbours_are_as_learn_has_them(mirror, world)


def test_a_snapshot_is_copied_on_one_thread_while_another_one_writes(tmp_path: Path) -> None:
    world, generator = full(), random.Random(0)
    world.live.settle()
    noted, positions = world.live.note(), dict(world.ends)
    arguments = (tmp_path / "f", made_for(SETTINGS, IDS), noted, positions, NOW)
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(write_snapshot, *arguments, pause=lambda: time.sleep(0.002))
        while not written.done():
            name = generator.choice(NAMES)
            world.teach(name, generator.randrange(1000), fresh=bool(generator.randrange(2)))
            if generator.randrange(4) == 0:
                world.forget(generator.choice(NAMES))
            if generator.randrange(4) == 0:
                world.publish()
            world.say(item(name, hidden=generator.randrange(4) == 0))
    assert written.result() == (tmp_path / "f").stat().st_size
    assert len(world.vectors) > len(NAMES)
    world.live.settle()
    mirror = restored(tmp_path / "f", world, lambda records, begin: list(records[begin:]))
    assert told(mirror) == told(world.live)
    assert_neighbours_are_as_learn_has_them(mirror, world)


def test_what_came_into_a_free_row_and_went_again_leaves_nothing(tmp_path: Path) -> None:
    world = full()
    world.say(item("guest"))
    comes = iter([lambda: world.teach("guest", 1, fresh=True)])
    write(tmp_path / "f", world, pause=lambda: next(comes, lambda: None)())
    assert world.live.table.row_of["guest"] == 3
    world.forget("guest")
    world.live.settle()
    assert told(restored(tmp_path / "f", world, compacted)) == told(world.live)


def test_new_items_and_their_impressions_come_back(tmp_path: Path) -> None:
    world = full()
    nothing: frozenset[str] = frozenset()
    world.live.count_impression("shop", "h")
    write(tmp_path / "f", world)
    mirror = read(tmp_path / "f", world).mirror
    assert (mirror.newest("shop", NOW, nothing, nothing), mirror.newest("video", NOW, nothing, nothing)) == ("h", "h")
    mirror.count_impression("shop", "h")
    assert (mirror.newest("shop", NOW, nothing, nothing), mirror.newest("video", NOW, nothing, nothing)) == ("g", "h")


def test_a_restored_mirror_goes_on_growing(tmp_path: Path) -> None:
    world = full()
    write(tmp_path / "f", world)
    for number in range(20):
        world.say(item(f"more-{number}"))
        world.teach(f"more-{number}", number, fresh=True)
    mirror = restored(tmp_path / "f", world, lambda records, begin: list(records[begin:]))
    world.live.settle()
    assert told(mirror) == told(world.live)
    names = sorted(world.table.row_of)
    assert len(names) == 27
    assert torch.equal(neighbours(mirror.table, names), neighbours(world.table, names))


def test_an_empty_mirror_has_a_snapshot_too(tmp_path: Path) -> None:
    world = World()
    write(tmp_path / "f", world)
    assert told(read(tmp_path / "f", world).mirror) == told(world.live)


def test_where_there_is_no_snapshot_there_is_nothing_to_refuse(tmp_path: Path) -> None:
    assert read_snapshot(tmp_path / "f", made_for(SETTINGS, IDS), SETTINGS, {}, NOW) is None


def changed(**more: Any) -> Settings:
    return msgspec.structs.replace(SETTINGS, **more)


def model(**more: Any) -> Settings:
    return changed(model=msgspec.structs.replace(SETTINGS.model, **more))


@pytest.mark.parametrize(
    ("using", "reason"),
    [
        (changed(scenarios={"shop": Scenario()}), r"scenarios = \['shop', 'video'\], now it is \['shop'\]"),
        (changed(scenarios={"video": Scenario(), "shop": Scenario()}), r"now it is \['video', 'shop'\]"),
        (model(dimension=16), r"model.dimension = 8, now it is 16"),
        (model(neighbours=8), r"model.neighbours = 4, now it is 8"),
        (model(encoder="another"), r"model.encoder = '', now it is 'another'"),
        (model(items=7), r"it holds 8 rows, model.items allows 7"),
    ],
)
def test_a_snapshot_for_other_settings_is_refused_with_what_differs(
    tmp_path: Path, using: Settings, reason: str
) -> None:
    world = full()
    write(tmp_path / "f", world)
    with pytest.raises(SnapshotRefused, match=f"{tmp_path / 'f'} is not used: .*{reason}"):
        read(tmp_path / "f", world, using=using)


def test_a_snapshot_of_topics_that_were_made_anew_is_refused(tmp_path: Path) -> None:
    world = full()
    write(tmp_path / "f", world)
    with pytest.raises(SnapshotRefused, match=r"topic headstream.vectors = 'id of vectors', now it is 'another'"):
        read(tmp_path / "f", world, ids={**IDS, TOPICS.vectors: "another"})
    for key in (ITEMS, VECTORS):
        at, end = world.ends[key], world.ends[key] - 1
        with pytest.raises(SnapshotRefused, match=rf"{key[0]}, partition 0, up to offset {at}, but that ends at {end}"):
            read(tmp_path / "f", world, ends={**world.ends, key: end})


def test_an_old_snapshot_is_refused_only_if_deletions_since_may_be_forgotten(tmp_path: Path) -> None:
    world = full()
    world.live.settle()
    write(tmp_path / "f", world)
    later = NOW + GOOD_FOR_SECONDS + 3600
    assert read(tmp_path / "f", world, now=later).written_at == NOW
    world.say(item("a"))
    assert read(tmp_path / "f", world, now=NOW + GOOD_FOR_SECONDS).items == 7
    with pytest.raises(SnapshotRefused, match="it is 21 h old, and of deletions the topics keep the records of 20 h"):
        read(tmp_path / "f", world, now=later)


def test_a_damaged_or_truncated_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    world, file = full(), tmp_path / "f"
    write(file, world)
    content = file.read_bytes()
    for wrong, reason in (
        (content[:-1], "it is no whole file of tensors"),
        (content[:1000], "it is no whole file of tensors"),
        (b"", "it is no whole file of tensors"),
        (content[:-1] + bytes([content[-1] ^ 1]), "it has SHA-256"),
    ):
        file.write_bytes(wrong)
        with pytest.raises(SnapshotRefused, match=f"{file} is not used: {reason}"):
            read(file, world)


@pytest.mark.parametrize("facts", [b"{}", b"[]", b'{"made_for": 1}'])
def test_a_file_whose_facts_are_none_of_ours_is_refused(tmp_path: Path, facts: bytes) -> None:
    write_tensors(tmp_path / "f", facts, [])
    with pytest.raises(SnapshotRefused, match="another version of Headstream wrote it"):
        read(tmp_path / "f", World())


def test_a_file_that_lacks_what_it_should_hold_is_refused(tmp_path: Path) -> None:
    world = full()
    write(tmp_path / "f", world)
    write_tensors(tmp_path / "f", read_tensors(tmp_path / "f").facts, [])
    with pytest.raises(SnapshotRefused, match=r"another version of Headstream wrote it \(KeyError\('names'\)\)"):
        read(tmp_path / "f", world)
