"""An erased user stays erased, whoever else has them in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from schemas.events import Event
from schemas.migrations import upgrade
from schemas.packed import unpack
from schemas.reports import Erasure
from schemas.settings import Serve
from schemas.tables import Table
from streams.erasures import Erased, Erasures
from streams.receipts import is_erased, named_in, read_receipt
from streams.store import Conflict, Store, StoredUser, open_engine
from streams.users import UserCache

WISH = Erasure(user_id="ada", requested_at=100.0, reason="a test")


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    found = f"sqlite:///{tmp_path / 'store.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    engine = open_engine(found)
    with engine.begin() as connection:
        Table.metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE IF EXISTS alembic_version"))
    upgrade(engine)
    yield Store(engine, "serve", "test")
    with engine.begin() as connection:
        Table.metadata.drop_all(connection)
        connection.execute(sa.text("DROP TABLE alembic_version"))
    engine.dispose()


def act(store: Store, cache: UserCache, user: str, item: str, at: float = 50.0) -> None:
    """An event as SERVE works it, whose transaction ends with the check."""
    users = cache.load([user])
    event = Event(user_id=user, item_id=item, event="view", weight=1.0, time=at, event_id=None)
    users[user].apply(event, "shop", Serve(), 10)
    rows = cache.rows(users)
    with store.engine.begin() as connection:
        store.save_users(connection, rows)
        cache.check(connection)
    cache.keep(rows)


def erase(store: Store, now: float = 101.0) -> bytes | None:
    with store.engine.begin() as connection:
        return Erasures(store.engine).erase(connection, WISH, now)


def history(cache: UserCache, user: str = "ada") -> list[str]:
    return unpack(cache.load([user])[user].items)


def test_an_erased_user_is_unknown_to_every_worker_at_once_and_others_are_not(store: Store) -> None:
    first, second = UserCache(store, 10), UserCache(store, 10)
    act(store, first, "ada", "a")
    act(store, first, "bob", "b")
    assert history(second) == ["a"]
    assert erase(store) is not None
    for cache in (first, second):
        assert history(cache) == []
        assert not cache.has_row("ada")
        assert history(cache, "bob") == ["b"]
        assert cache.is_past("ada", 100.0) and not cache.is_past("ada", 100.1) and not cache.is_past("bob", 0.0)
    assert store.load_users(["ada"]) == {}


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_what_was_read_before_an_erasure_is_never_written_after_it(store: Store, before: int, after: int) -> None:
    stale, fresh = UserCache(store, 10), UserCache(store, 10)
    for number in range(before):
        act(store, stale, "ada", f"old-{number}")
    users = stale.load(["ada"])
    erase(store)
    for number in range(after):  # whatever version the new row has by now, the stale one is not taken for its successor
        act(store, fresh, "ada", f"new-{number}", at=200.0)
    with pytest.raises(Conflict), store.engine.begin() as connection:
        store.save_users(connection, stale.rows(users))
        stale.check(connection)
    assert history(UserCache(store, 10)) == [f"new-{number}" for number in range(after)]


def test_an_erasure_done_again_changes_nothing_but_what_came_since(store: Store) -> None:
    act(store, UserCache(store, 10), "ada", "a")
    assert erase(store, 101.0) is not None
    assert erase(store, 102.0) is None
    act(store, UserCache(store, 10), "ada", "b", at=200.0)
    version = store.load_users(["ada"])["ada"].version
    assert version > 2
    found = Erasures(store.engine).of(["ada", "bob"])
    assert (list(found), found["ada"].until, found["ada"].at) == (["ada"], 100.0, 102.0)


def test_a_receipt_is_done_when_both_are_through_and_counts_once(store: Store) -> None:
    erasures = Erasures(store.engine)
    assert read_receipt(erasures, "e", ()).status == "pending"
    with store.engine.begin() as connection:
        assert erasures.begin(connection, "e", "serve", WISH, 1.0)
        assert not erasures.begin(connection, "e", "serve", WISH, 2.0)
        erasures.set_counts(connection, "e", {"lists": 2})
        erasures.add_count(connection, "e", "checkpoints", 1)
        erasures.add_count(connection, "e", "checkpoints", 1)
    erasures.finish(["e"], "serve")
    assert erasures.unfinished("serve") == []
    found = read_receipt(erasures, "e", ())
    assert (found.status, found.removed, found.reason) == ("under way", {"lists": 2, "checkpoints": 2}, "a test")
    with store.engine.begin() as connection:
        erasures.begin(connection, "e", "learn", WISH, 3.0)
    erasures.finish(["e"], "learn")
    assert read_receipt(erasures, "e", ()).status == "done"


def test_the_file_holds_no_byte_of_whom_it_was_searched_for(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    store = Store(open_engine(f"sqlite:///{file}"), "serve", "test")
    upgrade(store.engine)
    drawn = random.Random(1)
    names = [f"user-{drawn.randrange(10**9):09d}" for _ in range(4000)]
    for start in range(0, len(names), 100):  # in no order, so that pages are split, and copies stay in them
        rows = {name: StoredUser(name.encode() * drawn.randrange(1, 60), 1) for name in names[start : start + 100]}
        with store.engine.begin() as connection:
            store.save_users(connection, rows)
    gone, erasures = names[::20], Erasures(store.engine)
    with store.engine.begin() as connection:
        for name in gone:
            erasures.erase(connection, Erasure(user_id=name, requested_at=1.0), 2.0)
    assert erasures.scrub(gone)
    content = file.read_bytes() + (tmp_path / "store.db-wal").read_bytes()
    assert [name for name in gone if name.encode() in content] == []
    assert len(store.load_users(names)) == len(names) - len(gone)
    store.close()


def test_whoever_has_the_file_open_delays_that_and_no_more(tmp_path: Path) -> None:
    store = Store(open_engine(f"sqlite:///{tmp_path / 'store.db'}"), "serve", "test")
    upgrade(store.engine)
    erasures = Erasures(store.engine)
    with store.engine.execution_options(reads_only=True).connect() as reader:
        reader.execute(sa.text("SELECT count(*) FROM users"))
        act(store, UserCache(store, 10), "ada", "a")
        assert not erasures.scrub(["ada"])
    assert erasures.scrub(["ada"])
    store.close()


@pytest.mark.parametrize(
    ("key", "value", "users"),
    [
        (b"ada", None, {"ada"}),
        (None, b'{"user_id": "ada", "item_id": ""}', {"ada"}),
        (None, b'{"user_id" : 42, "item', {"42"}),
        (None, b'{"user_id":"a\\u0064a"', {"ada"}),
        (b"\xff", b"\xff", {"\ufffd"}),
        (None, b'{"user_id": ""}', set()),
    ],
)
def test_a_letter_names_its_user_even_where_it_is_no_json(
    key: bytes | None, value: bytes | None, users: set[str]
) -> None:
    assert named_in(key, value) == users


def test_a_letter_of_before_is_the_erased_users_and_a_later_one_is_not() -> None:
    erased = {"ada": Erased(100.0, 101.0, 1)}
    assert is_erased({"x", "ada"}, 101.0, erased)
    assert not is_erased({"ada"}, 101.5, erased) and not is_erased({"x"}, 1.0, erased)
