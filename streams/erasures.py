"""Erasures: who was erased, as the database knows it, what was removed for it, and the file without what was deleted.

A user is known here by a keyed hash alone. Whoever holds the database can test a guessed id against it, and can read no
id from it.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
import sqlalchemy.orm
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from schemas.reports import Erasure as Wish
from schemas.tables import ErasedUser, Erasure, ErasureCount, ErasureKey, UserState

log = logging.getLogger(__name__)

Part = Literal["serve", "learn"]
PARTS: tuple[Part, ...] = ("serve", "learn")

POSTGRES_KEEPS = (
    "PostgreSQL keeps the bytes of deleted rows until VACUUM has passed and others have taken their place (VACUUM FULL "
    "users removes them at once, and holds SERVE up meanwhile), and in its write-ahead log and backups."
)

HASHES_AT_ONCE = 30_000
FILE_PATIENCE_SECONDS = 5.0


class Erased(NamedTuple):
    """An erasure of one user.

    Attributes:
        until: events dated up to then are refused, epoch seconds.
        at: when it was carried out, epoch seconds.
        version: that the next version of the user's row is counted from.
    """

    until: float
    at: float
    version: int


class Erasures:
    """Reads and writes what the database knows of erasures."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reader = engine.execution_options(reads_only=True)
        self._insert: Callable[[Any], Any] = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert

    @cached_property
    def _key(self) -> bytes:
        with self._reader.connect() as connection:
            return bytes(connection.execute(sa.select(ErasureKey.key)).scalar_one())

    def hash_of(self, user_id: str) -> str:
        """What stands for a user here."""
        return hashlib.blake2b(user_id.encode(), digest_size=32, key=self._key).hexdigest()

    # Who was erased

    def sequence(self, connection: Connection | None = None) -> int:
        """How many erasures there were; what was read of users before it grew may be of an erased past."""
        query = sa.select(sa.func.max(ErasedUser.sequence))
        if connection is not None:
            return connection.scalar(query) or 0
        with self._reader.connect() as own:
            return own.scalar(query) or 0

    def of(self, user_ids: Collection[str]) -> dict[str, Erased]:
        """Those of these users that were erased, by id."""
        user_of = {self.hash_of(user_id): user_id for user_id in user_ids}
        hashes, found = list(user_of), {}
        with self._reader.connect() as connection:
            for start in range(0, len(hashes), HASHES_AT_ONCE):
                query = sa.select(ErasedUser.user_hash, ErasedUser.until, ErasedUser.erased_at, ErasedUser.version)
                some = ErasedUser.user_hash.in_(hashes[start : start + HASHES_AT_ONCE])
                for row in connection.execute(query.where(some)):
                    found[user_of[row.user_hash]] = Erased(row.until, row.erased_at, row.version)
        return found

    def erase(self, connection: Connection, wish: Wish, now: float) -> bytes | None:
        """Delete a user's row, whoever else is at it; returns the state that stood in it.

        1. Raise the row's version: who is about to write it waits for us, and we for who has written it.
        2. Delete it. 3. Put down which version it had: a row that is made from what was read before cannot be told
        from a new user's by its version alone, so `sequence` grows with it, and such a batch is rolled back.
        """
        user_hash = self.hash_of(wish.user_id)
        before = connection.execute(
            sa.select(ErasedUser.until, ErasedUser.version).where(ErasedUser.user_hash == user_hash)
        ).first()
        past = before.version if before else 0
        held = self._insert(UserState).values(user_id=wish.user_id, state=b"", version=past + 1)
        held = held.on_conflict_do_update(
            index_elements=["user_id"], set_={"version": UserState.version + 1}
        ).returning(UserState.state, UserState.version)
        state, version = connection.execute(held).one()
        connection.execute(sa.delete(UserState).where(UserState.user_id == wish.user_id))
        row = {
            "user_hash": user_hash,
            "until": max(wish.requested_at, before.until if before else wish.requested_at),
            "erased_at": now,
            "version": max(version, past),
            "sequence": self.sequence(connection) + 1,
        }
        self._put(connection, ErasedUser, ["user_hash"], row)
        return bytes(state) or None

    # Receipts

    def begin(self, connection: Connection, erasure_id: str, part: Part, wish: Wish, now: float) -> bool:
        """Open a part of a receipt; False if it is open already, since the record came again."""
        row = {
            "erasure_id": erasure_id,
            "part": part,
            "requested_at": wish.requested_at,
            "reason": wish.reason,
            "begun_at": now,
            "done_at": None,
        }
        statement = self._insert(Erasure).values(row).on_conflict_do_nothing().returning(Erasure.part)
        return connection.execute(statement).first() is not None

    def set_counts(self, connection: Connection, erasure_id: str, counts: Mapping[str, int]) -> None:
        """So much was removed from these places, all in all."""
        for place, count in counts.items():
            row = {"erasure_id": erasure_id, "place": place, "count": count}
            self._put(connection, ErasureCount, ["erasure_id", "place"], row)

    def add_count(self, connection: Connection, erasure_id: str, place: str, count: int) -> None:
        """So much more was removed from a place."""
        insert = self._insert(ErasureCount).values(erasure_id=erasure_id, place=place, count=count)
        update = {"count": ErasureCount.count + insert.excluded.count}
        connection.execute(insert.on_conflict_do_update(index_elements=["erasure_id", "place"], set_=update))

    def finish(self, erasure_ids: Collection[str], part: Part) -> None:
        """Nothing is left to be removed here."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(Erasure)
                .where(Erasure.erasure_id.in_(list(erasure_ids)), Erasure.part == part, Erasure.done_at.is_(None))
                .values(done_at=time.time())
            )

    def unfinished(self, part: Part) -> list[str]:
        query = sa.select(Erasure.erasure_id).where(Erasure.part == part, Erasure.done_at.is_(None))
        with self._reader.connect() as connection:
            return list(connection.scalars(query))

    def parts(self, erasure_id: str) -> dict[str, Erasure]:
        """What is on record of an erasure, by part."""
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            found = session.scalars(sa.select(Erasure).where(Erasure.erasure_id == erasure_id))
            return {each.part: each for each in found}

    def counts(self, erasure_id: str) -> dict[str, int]:
        """What was removed, by place."""
        query = sa.select(ErasureCount.place, ErasureCount.count.label("count_of")).where(
            ErasureCount.erasure_id == erasure_id
        )
        with self._reader.connect() as connection:
            return {row.place: row.count_of for row in connection.execute(query)}

    def _put(self, connection: Connection, table: Any, keys: Sequence[str], row: Mapping[str, Any]) -> None:
        insert = self._insert(table).values(row)
        others = {name: insert.excluded[name] for name in row if name not in keys}
        connection.execute(insert.on_conflict_do_update(index_elements=list(keys), set_=others))

    # The database's own files

    @property
    def left(self) -> list[str]:
        """What the database keeps of deleted rows that is not ours to remove, in sentences."""
        return [] if self._engine.dialect.name == "sqlite" else [POSTGRES_KEEPS]

    def scrub(self, user_ids: Collection[str] | None) -> bool:
        """Have SQLite's files hold no byte of rows that were deleted; False if others are at them, to be tried again.

        `secure_delete` blanks what is deleted, but not the copies that lie in pages which were split once. They are
        looked for, and the file is made anew only where there are any. PostgreSQL is left to its own VACUUM.

        Args:
            user_ids: whom to look for; None makes the file anew in any case.
        """
        if self._engine.dialect.name != "sqlite" or not self._engine.url.database:
            return True
        file = Path(self._engine.url.database)
        connection = sqlite3.connect(file, timeout=FILE_PATIENCE_SECONDS, isolation_level=None)
        try:
            connection.execute("PRAGMA secure_delete=ON")
            if not _emptied_log(connection):
                return False
            if user_ids is None or _holds_any(file, [user_id.encode() for user_id in user_ids]):
                connection.execute("VACUUM")
                return _emptied_log(connection)
        except sqlite3.OperationalError as error:
            log.warning("the database's file is cleared later of what was erased: %s", error)
            return False
        finally:
            connection.close()
        return True


def _emptied_log(connection: sqlite3.Connection) -> bool:
    """Move all of the write-ahead log into the file, and cut it to nothing."""
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _holds_any(file: Path, wanted: Sequence[bytes]) -> bool:
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(each) >= 0 for each in wanted)
