"""Migrations: what brings a database to the tables of this version, whoever else is doing the same.

A new one is a file in `versions`, numbered on from the last; `HEAD` names it. The tests fail while tables and
migrations disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from schemas.errors import ExplainedError
from schemas.wording import shown

HEAD = "0006"

ADVISORY_LOCK = int.from_bytes(b"headstrm", signed=True)
"""The lock's number in PostgreSQL, where locks are named by 64 bits that all programs on a database share."""

_version = sa.table("alembic_version", sa.column("version_num"))


class UnknownSchema(ExplainedError):
    """The database was written by another version of Headstream, most likely a newer one.

    Attributes:
        url: the database, without its password.
        found: the migration it is at, which this version does not have.
    """

    def __init__(self, url: str, found: str) -> None:
        super().__init__(
            f"{url}: the database is at migration {found}, which this version of Headstream does not know "
            f"(its newest is {HEAD}); update Headstream, or give it a database of its own with database.url or --data"
        )
        self.url = url
        self.found = found


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version; safe to be called by many processes at once.

    1. Look, without a lock: most starts find nothing to do.
    2. Take the lock that all who migrate this database take, for as long as the transaction lasts.
    3. Migrate within that transaction; who comes second finds it done.

    Raises:
        UnknownSchema: when the database is at a migration that this version does not have.
    """
    with engine.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with engine.begin() as connection:
        _lock(connection)
        _migrate(connection)


def _revision(connection: Connection) -> str | None:
    if not sa.inspect(connection).has_table(_version.name):
        return None
    found: str | None = connection.scalar(sa.select(_version.c.version_num))
    return found


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        return
    # Python's driver begins a transaction only at the first change, and then one that may have to give way. An engine
    # may have begun a proper one already.
    driver: Any = connection.connection.dbapi_connection
    if not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(connection: Connection) -> None:
    # Alembic is slow to import, and nearly every start gets by without it.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    found = _revision(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise UnknownSchema(shown(connection.engine.url.render_as_string(hide_password=True)), found)
    command.upgrade(config, "head")
