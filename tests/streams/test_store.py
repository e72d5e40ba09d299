"""The store's promises, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.tables import Table
from streams.store import Conflict, Fenced, Progress, Store, StoredUser, open_engine

TOPIC = "events.shop"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    found = f"sqlite:///{tmp_path / 'store.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = open_engine(found)
    Table.metadata.drop_all(engine)
    Table.metadata.create_all(engine)
    yield found
    Table.metadata.drop_all(engine)
    engine.dispose()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    made = Store(open_engine(url), "serve", "first")
    yield made
    made.close()


@pytest.fixture
def other(url: str) -> Iterator[Store]:
    made = Store(open_engine(url), "serve", "second")
    yield made
    made.close()


def nothing(_connection: Any) -> None:
    """An effect that is only offsets."""


def progress(first: int, end: int, claim: int, partition: int = 0) -> Progress:
    return Progress(TOPIC, partition, first, end, claim)


def test_a_first_claim_begins_without_an_offset(store: Store) -> None:
    assert store.claim([(TOPIC, 0)]) == {(TOPIC, 0): (None, 1)}
    assert store.topic_ids() == {}


def test_offsets_name_the_topic_that_they_are_of(store: Store, other: Store) -> None:
    claim = store.claim([(TOPIC, 0), (TOPIC, 1)], {TOPIC: "first"})[TOPIC, 0].claim
    store.claim([("elsewhere", 0)])
    assert store.topic_ids() == {}  # nothing was worked, so it may as well be another
    store.commit([progress(0, 7, claim)], lambda _: None)
    assert store.topic_ids() == other.topic_ids() == {TOPIC: {"first"}}
    other.claim([(TOPIC, 0)])  # by somebody to whom Kafka names none
    assert store.topic_ids() == {TOPIC: {"first"}}


def test_a_commit_moves_the_offset_and_writes_its_effect(store: Store) -> None:
    claim = store.claim([(TOPIC, 0)])[TOPIC, 0].claim
    assert store.commit([progress(0, 7, claim)], lambda c: store.add_tallies(c, TOPIC, {(0, "events"): 7}))
    assert store.positions()[TOPIC, 0] == (7, claim)
    assert store.tallies()[TOPIC, "events"] == 7


def test_a_commit_under_an_old_claim_changes_nothing(store: Store, other: Store) -> None:
    old = store.claim([(TOPIC, 0), (TOPIC, 1)])
    new = other.claim([(TOPIC, 0)])
    with pytest.raises(Fenced) as fenced:
        store.commit(
            [progress(0, 5, old[TOPIC, 0].claim), progress(0, 5, old[TOPIC, 1].claim, 1)],
            lambda c: store.add_tallies(c, TOPIC, {(0, "events"): 5}),
        )
    assert fenced.value.partitions == ((TOPIC, 0),)
    assert store.positions() == {(TOPIC, 0): (None, new[TOPIC, 0].claim), (TOPIC, 1): (None, 1)}
    assert store.tallies()[TOPIC, "events"] == 0


def test_a_commit_that_does_not_follow_the_last_one_changes_nothing(store: Store) -> None:
    claim = store.claim([(TOPIC, 0)])[TOPIC, 0].claim
    store.commit([progress(0, 5, claim)], nothing)
    with pytest.raises(Fenced):
        store.commit([progress(3, 9, claim)], nothing)
    assert store.positions()[TOPIC, 0].next == 5


def test_a_commit_whose_answer_was_lost_is_recognised_and_not_done_again(store: Store) -> None:
    claim = store.claim([(TOPIC, 0)])[TOPIC, 0].claim
    effect = lambda c: store.add_tallies(c, TOPIC, {(0, "events"): 5})  # noqa: E731
    assert store.commit([progress(0, 5, claim)], effect)
    assert not store.commit([progress(0, 5, claim)], effect)
    assert store.tallies()[TOPIC, "events"] == 5


def test_an_effect_that_fails_takes_the_offset_back_with_it(store: Store) -> None:
    claim = store.claim([(TOPIC, 0)])[TOPIC, 0].claim

    def fail(_connection: Any) -> None:
        raise Conflict("changed")

    with pytest.raises(Conflict):
        store.commit([progress(0, 5, claim)], fail)
    assert store.positions()[TOPIC, 0].next is None


def test_a_user_changed_elsewhere_is_a_conflict_and_nothing_is_written(store: Store, other: Store) -> None:
    with other.engine.begin() as connection:
        other.save_users(connection, {"b": StoredUser(b"theirs", 1)})
    with pytest.raises(Conflict), store.engine.begin() as connection:
        store.save_users(connection, {"a": StoredUser(b"mine", 1), "b": StoredUser(b"mine", 1)})
    assert store.load_users(["a", "b"]) == {"b": (b"theirs", 1)}
    with store.engine.begin() as connection:
        store.save_users(connection, {"b": StoredUser(b"mine", 2)})
    assert store.load_users(["b"]) == {"b": (b"mine", 2)}


def test_ids_in_every_script_are_kept_apart(store: Store) -> None:
    names = ["a/b", "a%b", "A", "a", "日本", "👩‍👩‍👧", " ", "x" * 256, "é", "e\u0301"]
    with store.engine.begin() as connection:
        store.save_users(connection, {name: StoredUser(name.encode(), 1) for name in names})
    assert store.load_users(names) == {name: (name.encode(), 1) for name in names}


def bump(url: str, rounds: int) -> None:
    """In a process of its own: add one to each of twenty users, redoing what was changed elsewhere."""
    store = Store(open_engine(url), "serve", "racer")
    names = [f"u{number}" for number in range(20)]
    for _ in range(rounds):
        while True:
            stored = store.load_users(names)
            rows = {}
            for name in names:
                state, version = stored.get(name, StoredUser(b"0", 0))
                rows[name] = StoredUser(str(int(state) + 1).encode(), version + 1)
            try:
                with store.engine.begin() as connection:
                    store.save_users(connection, rows)
                break
            except Conflict:
                continue
    store.close()


def test_two_processes_at_the_same_users_lose_no_update(url: str, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=bump, args=(url, 25)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0
    users = store.load_users([f"u{number}" for number in range(20)])
    assert {int(user.state) for user in users.values()} == {50}


def test_the_newest_report_on_an_index_is_told_whoever_made_it(store: Store, other: Store) -> None:
    assert store.indexes() == {}
    store.save_indexes({"shop": {"items": 1}, "news": {"items": 2}})
    other.save_indexes({"shop": {"items": 3}})
    assert store.indexes() == {"shop": {"items": 3}, "news": {"items": 2}}
    store.save_indexes({"shop": {"items": 4}})
    assert other.indexes() == {"shop": {"items": 4}, "news": {"items": 2}}


def test_reports_of_processes_that_are_gone_are_forgotten(
    store: Store, other: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.save_indexes({"shop": {"items": 1}})
    monkeypatch.setattr("streams.store.REPORT_KEPT_SECONDS", -1)
    store.save_indexes({"news": {"items": 2}})
    assert store.indexes() == {"news": {"items": 2}}
