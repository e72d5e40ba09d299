"""The store: offsets with claims, user states and tallies in one SQL transaction, on SQLite or PostgreSQL."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
import sqlalchemy.orm
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from schemas.items import Item
from schemas.records import Weights
from schemas.settings import Settings
from schemas.tables import CatalogueItem, Checkpoint, IndexState, Offset, PublishedHead, Tally, UserState
from streams.patience import Patience

SQLITE_PARAMETERS = 30_000
"""SQLite allows 32,766 bound parameters in one statement."""

SQLITE_PATIENCE_SECONDS = 30
SQLITE_ATTEMPT_SECONDS = 2
"""Who has patience asks again, and ends in time when the process stops."""

CONNECTION = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "tcp_user_timeout": 20_000}
"""A server that is gone without a word is noticed in seconds, not in the hours of the system's defaults."""

REPORT_KEPT_SECONDS = 3600

USER_COLUMNS = ("user_id", "state", "version")

Partition = tuple[str, int]
Effect = Callable[[Connection], None]


_decode_item = msgspec.msgpack.Decoder(Item).decode


class Position(NamedTuple):
    """Where an owner of a partition begins: `next` is None where nothing was ever committed."""

    next: int | None
    claim: int


class Progress(NamedTuple):
    """A stretch of a partition, from `first` to before `next`, worked under `claim`."""

    topic: str
    partition: int
    first: int
    next: int
    claim: int


class StoredUser(NamedTuple):
    """A user's state as read; a write must name this version plus one."""

    state: bytes
    version: int


class Fenced(Exception):
    """Another process has taken these partitions; nothing was written."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self.partitions = tuple(partitions)
        names = ", ".join(f"{topic} {partition}" for topic, partition in partitions)
        super().__init__(f"another process has claimed {names}; this one's results are dropped")


class Conflict(Exception):
    """Some of these users were changed elsewhere since they were read; roll back, read again, redo."""


def database_url(settings: Settings) -> str:
    """The configured database, or SQLite in the data folder."""
    return settings.database.url or f"sqlite:///{Path(settings.data).resolve() / 'headstream.db'}"


def open_engine(url: str, patience: Patience | None = None) -> Engine:
    """An engine whose transactions are what the store needs: on SQLite a writer takes its lock at the beginning.

    No error of it carries the values of a statement, which may name users, into a log.

    Args:
        patience: where it is given, a transaction does not begin before the database is there and takes it.
    """
    if not url.startswith("sqlite"):
        server = sa.create_engine(url, pool_pre_ping=True, connect_args=CONNECTION, hide_parameters=True)
        if patience is not None:

            @sa.event.listens_for(server, "do_connect")
            def connect(dialect: Any, _record: Any, arguments: Any, named: Any) -> Any:
                return patience.wait_for(lambda: dialect.connect(*arguments, **named), dialect.dbapi.OperationalError)

        return server
    waits = SQLITE_PATIENCE_SECONDS if patience is None else SQLITE_ATTEMPT_SECONDS
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": waits, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late to hold off a second writer
        _write_ahead(connection)
        # Offsets and effects live in the same file: a power cut may take the last transactions, but never one
        # without the other, and Kafka brings them again.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA secure_delete=ON")  # what is erased leaves no bytes behind

    @sa.event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads_only", False)
        statement = "BEGIN" if reads else "BEGIN IMMEDIATE"
        if patience is None:
            connection.exec_driver_sql(statement)
        else:
            patience.wait_for(lambda: connection.exec_driver_sql(statement), sa.exc.OperationalError)

    return engine


def _write_ahead(connection: Any) -> None:
    """Turn on SQLite's write-ahead log; the switch ignores the driver's timeout when two processes make it at once."""
    deadline = time.monotonic() + SQLITE_PATIENCE_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


class Store:
    """What one application writes and what anyone may read."""

    def __init__(self, engine: Engine, application: str, owner: str) -> None:
        self.engine = engine
        self._reader = engine.execution_options(reads_only=True)  # takes no write lock on SQLite
        self._application = application
        self._owner = owner
        self._lite = engine.dialect.name == "sqlite"
        insert: Callable[[Any], Any] = sqlite.insert if self._lite else postgresql.insert
        self._insert = insert
        bound = sa.bindparam
        self._advance = (
            sa.update(Offset)
            .where(
                Offset.application == application,
                Offset.topic == bound("of_topic"),
                Offset.partition == bound("of_partition"),
                Offset.claim == bound("under_claim"),
                (Offset.next == bound("from_first")) | Offset.next.is_(None),
            )
            .values(next=bound("to_next"))
        )
        users = insert(UserState)
        save_users = users.on_conflict_do_update(
            index_elements=["user_id"],
            set_={"state": users.excluded.state, "version": users.excluded.version},
            where=UserState.version == users.excluded.version - sa.literal_column("1"),
        ).compile(dialect=engine.dialect, column_keys=list(USER_COLUMNS))
        self._save_users = str(save_users)
        self._user_row: Callable[..., Any] = (
            (lambda *row: row) if save_users.positional else lambda *row: dict(zip(USER_COLUMNS, row, strict=True))
        )
        tallies = insert(Tally)
        self._add_tallies = tallies.on_conflict_do_update(
            index_elements=["topic", "partition", "code"], set_={"count": Tally.count + tallies.excluded.count}
        )

    def close(self) -> None:
        self.engine.dispose()

    # Offsets and their claims

    def topic_ids(self) -> dict[str, set[str]]:
        """By topic, of which topics of its name something was worked; two only while its partitions disagree."""
        query = sa.select(Offset.topic, Offset.topic_id).distinct()
        query = query.where(Offset.application == self._application, Offset.next.is_not(None))
        found: dict[str, set[str]] = {}
        with self._reader.connect() as connection:
            for row in connection.execute(query.where(Offset.topic_id.is_not(None))):
                found.setdefault(row.topic, set()).add(row.topic_id)
        return found

    def claim(
        self, partitions: Iterable[Partition], topic_ids: Mapping[str, str] | None = None
    ) -> dict[Partition, Position]:
        """Take partitions over: from now on a commit under an earlier claim changes nothing.

        Args:
            topic_ids: Kafka's own, by topic; what is worked from now on is of these.
        """
        ids = topic_ids or {}
        rows = [
            {
                "application": self._application,
                "topic": topic,
                "partition": partition,
                "next": None,
                "claim": 1,
                "owner": self._owner,
                "topic_id": ids.get(topic),
            }
            for topic, partition in sorted(partitions)  # one order for all processes: no deadlock
        ]
        if not rows:
            return {}
        statement = self._insert(Offset).values(rows)
        statement = statement.on_conflict_do_update(
            index_elements=["application", "topic", "partition"],
            set_={
                "claim": Offset.claim + 1,
                "owner": self._owner,
                "topic_id": sa.func.coalesce(statement.excluded.topic_id, Offset.topic_id),
            },
        ).returning(Offset.topic, Offset.partition, Offset.next, Offset.claim)
        with self.engine.begin() as connection:
            return {(row.topic, row.partition): Position(row.next, row.claim) for row in connection.execute(statement)}

    def commit(self, progress: Sequence[Progress], effect: Effect) -> bool:
        """Write an effect together with the offsets that it covers, or nothing.

        Returns:
            False if exactly this progress stands there already: the answer to an earlier COMMIT was lost on the way.

        Raises:
            Fenced: a partition was claimed by another process.
            Conflict: `effect` met a user that was changed elsewhere.
        """
        rows = [
            {
                "of_topic": p.topic,
                "of_partition": p.partition,
                "under_claim": p.claim,
                "from_first": p.first,
                "to_next": p.next,
            }
            for p in sorted(progress)
        ]
        with self.engine.begin() as connection:
            # psycopg reports no row count for many rows unless it is asked to keep it
            result = connection.execute(self._advance, rows, execution_options={"preserve_rowcount": True})
            if result.rowcount == len(rows):
                effect(connection)
                return True
            connection.rollback()
        stored = self.positions()
        if all(stored.get((p.topic, p.partition)) == (p.next, p.claim) for p in progress):
            return False
        lost = [
            (p.topic, p.partition)
            for p in progress
            if stored.get((p.topic, p.partition)) not in ((p.first, p.claim), (None, p.claim))
        ]
        raise Fenced(lost or [(p.topic, p.partition) for p in progress])

    @contextmanager
    def holding(self, claims: Mapping[Partition, int]) -> Iterator[Connection]:
        """A transaction during which nobody else can take these partitions over.

        Raises:
            Fenced: somebody has, or there are none.
        """
        query = sa.select(Offset.topic, Offset.partition, Offset.claim).where(
            Offset.application == self._application, Offset.topic.in_({topic for topic, _ in claims})
        )
        query = query.order_by(Offset.topic, Offset.partition).with_for_update()  # in the order of `claim`
        with self.engine.begin() as connection:
            stored = {(row.topic, row.partition): row.claim for row in connection.execute(query)}
            lost = [key for key, claim in claims.items() if stored.get(key) != claim]
            if lost or not claims:
                raise Fenced(lost)
            yield connection

    def positions(self) -> dict[Partition, Position]:
        """Every partition that this application ever claimed."""
        query = sa.select(Offset.topic, Offset.partition, Offset.next, Offset.claim)
        with self._reader.connect() as connection:
            rows = connection.execute(query.where(Offset.application == self._application))
            return {(row.topic, row.partition): Position(row.next, row.claim) for row in rows}

    # Users

    def load_users(self, user_ids: Sequence[str]) -> dict[str, StoredUser]:
        """The states of those users that have one."""
        found: dict[str, StoredUser] = {}
        with self._reader.connect() as connection:
            for start in range(0, len(user_ids), SQLITE_PARAMETERS):
                some = user_ids[start : start + SQLITE_PARAMETERS]
                query = sa.select(UserState.user_id, UserState.state, UserState.version)
                for row in connection.execute(query.where(UserState.user_id.in_(some))):
                    found[row.user_id] = StoredUser(row.state, row.version)
        return found

    def user_versions(self, user_ids: Sequence[str]) -> dict[str, int]:
        """The versions of the states of those users that have one."""
        found: dict[str, int] = {}
        if not user_ids:
            return found
        with self._reader.connect() as connection:
            for start in range(0, len(user_ids), SQLITE_PARAMETERS):
                some = user_ids[start : start + SQLITE_PARAMETERS]
                query = sa.select(UserState.user_id, UserState.version).where(UserState.user_id.in_(some))
                found |= {row.user_id: row.version for row in connection.execute(query)}
        return found

    def save_users(self, connection: Connection, users: Mapping[str, StoredUser]) -> None:
        """Write states whose version is one above the version that was read.

        Raises:
            Conflict: any of them was changed elsewhere; the caller's transaction must be rolled back.
        """
        if not users:
            return
        # As driver SQL: SQLAlchemy's work on each row's parameters would cost as much as the database's.
        rows = [self._user_row(name, *user) for name, user in sorted(users.items())]
        options = {"preserve_rowcount": True}
        result = connection.exec_driver_sql(self._save_users, rows, execution_options=options)
        if result.rowcount != len(rows):
            raise Conflict(f"{len(rows) - result.rowcount} of {len(rows)} users were changed elsewhere")

    # Tallies

    def add_tallies(self, connection: Connection, topic: str, tallies: Mapping[tuple[int, str], int]) -> None:
        """Add to the counts of (partition, code) of a topic."""
        rows = [
            {"topic": topic, "partition": partition, "code": code, "count": count}
            for (partition, code), count in sorted(tallies.items())
            if count
        ]
        if rows:
            connection.execute(self._add_tallies, rows)

    def tallies(self) -> Counter[tuple[str, str]]:
        """Counts of (topic, code) over all partitions."""
        query = sa.select(Tally.topic, Tally.code, sa.func.sum(Tally.count)).group_by(Tally.topic, Tally.code)
        with self._reader.connect() as connection:
            return Counter({(topic, code): int(count) for topic, code, count in connection.execute(query)})

    # What LEARN leaves for people and for its successor

    def save_items(self, connection: Connection, items: Sequence[Item], deleted: Sequence[str]) -> None:
        """Keep the newest form of items, and forget deleted ones."""
        rows = [
            {"item_id": item.item_id, "title": item.title, "hidden": item.hidden, "body": msgspec.msgpack.encode(item)}
            for item in sorted(items, key=lambda item: item.item_id)
        ]
        insert = self._insert(CatalogueItem)
        columns = {name: insert.excluded[name] for name in ("title", "hidden", "body")}
        if rows:
            connection.execute(insert.on_conflict_do_update(index_elements=["item_id"], set_=columns), rows)
        for start in range(0, len(deleted), SQLITE_PARAMETERS):
            some = deleted[start : start + SQLITE_PARAMETERS]
            connection.execute(sa.delete(CatalogueItem).where(CatalogueItem.item_id.in_(some)))

    def load_items(self, item_ids: Sequence[str]) -> dict[str, Item]:
        """Those of these items that are in the catalogue."""
        found: dict[str, Item] = {}
        with self._reader.connect() as connection:
            for start in range(0, len(item_ids), SQLITE_PARAMETERS):
                some = item_ids[start : start + SQLITE_PARAMETERS]
                query = sa.select(CatalogueItem.item_id, CatalogueItem.body).where(CatalogueItem.item_id.in_(some))
                for row in connection.execute(query):
                    found[row.item_id] = _decode_item(row.body)
        return found

    def save_heads(self, heads: Sequence[Weights]) -> None:
        """Say which version of each scenario was published last."""
        columns = ("lineage", "version", "step", "published_at", "recall", "tested", "hits", "examples")
        rows = [{"scenario": h.scenario, **{name: getattr(h, name) for name in columns}} for h in heads]
        insert = self._insert(PublishedHead)
        update = {name: insert.excluded[name] for name in columns}
        with self.engine.begin() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["scenario"], set_=update), rows)

    def heads(self) -> dict[str, PublishedHead]:
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return {head.scenario: head for head in session.scalars(sa.select(PublishedHead))}

    # What SERVE leaves for people

    def save_indexes(self, reports: Mapping[str, Mapping[str, Any]]) -> None:
        """Say how this process's indexes stand, by scenario; what others said long ago goes."""
        now = time.time()
        rows = [
            {"scenario": name, "owner": self._owner, "reported_at": now, "report": msgspec.json.encode(report).decode()}
            for name, report in reports.items()
        ]
        insert = self._insert(IndexState)
        update = {name: insert.excluded[name] for name in ("reported_at", "report")}
        with self.engine.begin() as connection:
            connection.execute(sa.delete(IndexState).where(IndexState.reported_at < now - REPORT_KEPT_SECONDS))
            connection.execute(insert.on_conflict_do_update(index_elements=["scenario", "owner"], set_=update), rows)

    def indexes(self) -> dict[str, dict[str, Any]]:
        """The newest report on each scenario's index."""
        query = sa.select(IndexState.scenario, IndexState.report).order_by(IndexState.reported_at)
        with self._reader.connect() as connection:
            return {scenario: msgspec.json.decode(report) for scenario, report in connection.execute(query)}

    # What LEARN leaves for its successor

    def add_checkpoint(self, connection: Connection, number: int, folder: Path, sha256: str, step: int) -> None:
        row = {"number": number, "folder": str(folder), "sha256": sha256, "step": step, "made_at": time.time()}
        connection.execute(sa.insert(Checkpoint), row)

    def move_checkpoint(self, connection: Connection, number: int, folder: Path, sha256: str) -> None:
        """A checkpoint was written anew, into another folder."""
        moved = sa.update(Checkpoint).where(Checkpoint.number == number)
        connection.execute(moved.values(folder=str(folder), sha256=sha256))

    def checkpoints(self) -> list[Checkpoint]:
        """Complete checkpoints, newest first."""
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return list(session.scalars(sa.select(Checkpoint).order_by(Checkpoint.number.desc())))

    def forget_checkpoint(self, connection: Connection, number: int) -> None:
        connection.execute(sa.delete(Checkpoint).where(Checkpoint.number == number))
