"""Patience with the database: what it does not take now is taken later, once; and waiting has an end."""

from __future__ import annotations

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from schemas.migrations import upgrade
from streams import metrics
from streams.patience import Patience
from streams.store import Progress, Store, open_engine
from tests.postgres import PostgresServer
from tests.system.installation import until

TOPIC = "events"


def is_up() -> float | None:
    return metrics.REGISTRY.get_sample_value("headstream_database_up")


def advance(store: Store, partition: int, claim: int, steps: int) -> None:
    """Count so many events one after the other; what was cut off is done again, as a worker does."""
    at = 0
    while at < steps:
        progress = [Progress(TOPIC, partition, at, at + 1, claim)]
        with suppress(sa.exc.DBAPIError):
            store.commit(progress, lambda connection: store.add_tallies(connection, TOPIC, {(0, "events"): 1}))
            at += 1


def count(engine: Engine, writers: int, steps: int) -> None:
    """So many writers at the same row, each with offsets of its own."""
    store = Store(engine, "application", "owner")
    claims = store.claim([(TOPIC, number) for number in range(writers)])
    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(lambda number: advance(store, number, claims[TOPIC, number].claim, steps), range(writers)))
    assert store.tallies()[TOPIC, "events"] == writers * steps
    assert {position.next for position in store.positions().values()} == {steps}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    made = open_engine(f"sqlite:///{tmp_path / 'a.db'}", Patience(60))
    upgrade(made)
    return made


def test_a_transaction_waits_for_a_lock_that_is_held_longer_than_an_attempt(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case E34."""
    monkeypatch.setattr("streams.store.SQLITE_ATTEMPT_SECONDS", 0.1)
    patient = open_engine(f"sqlite:///{tmp_path / 'a.db'}", Patience(60))
    holder = sqlite3.connect(tmp_path / "a.db", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as pool:
        counting = pool.submit(count, patient, 1, 3)
        while is_up() != 0:
            assert not counting.done()
        holder.execute("ROLLBACK")
        counting.result(20)
    assert is_up() == 1
    for each in (patient, engine):
        each.dispose()
    holder.close()


def test_sixteen_writers_at_once_count_everything_once(engine: Engine, postgres: str) -> None:
    """Case E34."""
    count(engine, writers=16, steps=20)
    engine.dispose()
    server = open_engine(postgres, Patience(60))
    upgrade(server)
    try:
        count(server, writers=16, steps=20)
    finally:
        with server.begin() as connection:
            connection.exec_driver_sql("DROP SCHEMA public CASCADE")
            connection.exec_driver_sql("CREATE SCHEMA public")
        server.dispose()


def test_a_transaction_waits_for_a_server_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    """Case E34."""
    with PostgresServer() as server:
        engine = open_engine(server.url, Patience(60))
        upgrade(engine)
        server.stop()
        with ThreadPoolExecutor(1) as pool:
            counting = pool.submit(count, engine, 1, 3)
            while is_up() != 0:
                assert not counting.done()
            server.start()
            counting.result(30)
        engine.dispose()
    assert "the database fails (for 0 s, at most 60 s are waited): connection failed" in caplog.text
    assert "the database works again, after" in caplog.text


def test_sixteen_writers_count_everything_once_though_their_server_is_cut_off_again_and_again() -> None:
    """DESIGN §5, invariant 1: also where the answer to a COMMIT was lost on the way."""
    with PostgresServer() as server:
        engine = open_engine(server.url, Patience(120))
        upgrade(engine)
        looking = Store(engine, "application", "test")
        with ThreadPoolExecutor(1) as pool:
            counting = pool.submit(count, engine, 16, 40)
            for already in (50, 200, 350):
                until(lambda already=already: looking.tallies()[TOPIC, "events"] >= already, f"{already} are counted")
                server.stop()
                server.start()
            assert not counting.done()
            counting.result(120)
        engine.dispose()


def test_a_full_disk_commits_neither_effect_nor_offset_and_nothing_is_lost_once_there_is_space(tmp_path: Path) -> None:
    """Case S24."""
    engine = open_engine(f"sqlite:///{tmp_path / 'a.db'}", Patience(60))
    upgrade(engine)
    store = Store(engine, "application", "owner")
    claim = store.claim([(TOPIC, 0)])[TOPIC, 0].claim
    pages: list[int] = [12]

    def limit(connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages[0]}")
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS filling (content BLOB)")
        connection.exec_driver_sql("INSERT INTO filling VALUES (zeroblob(100000))")
        store.add_tallies(connection, TOPIC, {(0, "events"): 5})

    with pytest.raises(sa.exc.OperationalError, match="full"):
        store.commit([Progress(TOPIC, 0, 0, 5, claim)], limit)
    assert (store.positions()[TOPIC, 0].next, store.tallies()) == (None, {})
    pages[0] = 1 << 20
    assert store.commit([Progress(TOPIC, 0, 0, 5, claim)], limit)
    assert (store.positions()[TOPIC, 0].next, store.tallies()[TOPIC, "events"]) == (5, 5)
    engine.dispose()


def test_patience_has_an_end_and_a_process_that_stops_waits_no_longer() -> None:
    def fail() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        Patience(0.0).wait_for(fail, OSError)
    stopping = Patience(3600)
    threading.Timer(0.1, stopping.end).start()
    with pytest.raises(OSError, match="no space left"):
        stopping.wait_for(fail, OSError)
    with pytest.raises(OSError, match="no space left"):  # what is not named is not waited for
        Patience(3600).wait_for(fail, ValueError)
