"""Migrations: they make exactly the tables of the models, once, whoever else is at it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

import schemas.migrations
from schemas.migrations import HEAD, UnknownSchema, upgrade
from schemas.tables import Table
from streams.store import open_engine

ROOT = Path(__file__).parents[2]

NewDatabase = Callable[[str], str]


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabase]:
    """Makes empty databases of a kind, "sqlite" or "postgresql"."""
    with ExitStack() as stack:

        def make(kind: str) -> str:
            name = f"t_{uuid.uuid4().hex}"
            if kind == "sqlite":
                return f"sqlite:///{tmp_path / name} 100%.db"
            server = sa.create_engine(request.getfixturevalue("postgres"), isolation_level="AUTOCOMMIT")
            stack.callback(server.dispose)
            connection = stack.enter_context(server.connect())
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
            stack.callback(connection.exec_driver_sql, f"DROP DATABASE {name} WITH (FORCE)")
            return server.url.set(database=name).render_as_string(hide_password=False)

        yield make


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    return new_database(request.param)


@pytest.fixture(params=[open_engine, sa.create_engine], ids=["our engine", "a plain engine"])
def engine(request: pytest.FixtureRequest, url: str) -> Iterator[Engine]:
    made: Engine = request.param(url)
    yield made
    made.dispose()


def test_an_empty_database_gets_exactly_the_tables_of_the_models(engine: Engine) -> None:
    upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []
    inspector = sa.inspect(engine)
    for table in Table.metadata.sorted_tables:
        found = inspector.get_pk_constraint(table.name)
        assert found["name"] == table.primary_key.name
        assert found["constrained_columns"] == [column.name for column in table.primary_key]


def test_the_comparison_of_models_and_tables_sees_a_difference(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE users ADD COLUMN stray INTEGER"))
    with engine.connect() as connection:
        [(change, *_rest)] = compare_metadata(MigrationContext.configure(connection), Table.metadata)
    assert change == "remove_column"


def test_a_second_upgrade_changes_nothing_and_takes_no_lock(engine: Engine) -> None:
    upgrade(engine)
    statements: list[str] = []
    sa.event.listen(
        engine, "before_cursor_execute", lambda _c, _cursor, statement, *_rest: statements.append(statement)
    )
    upgrade(engine)
    assert not [each for each in statements if not each.lstrip().upper().startswith(("SELECT", "PRAGMA", "BEGIN"))]
    assert not [each for each in statements if "advisory" in each]


def test_rows_outlive_an_upgrade(engine: Engine) -> None:
    upgrade(engine)
    users = Table.metadata.tables["users"]
    with engine.begin() as connection:
        connection.execute(sa.insert(users).values(user_id="ü/%", state=b"\0\xff", version=7))
    upgrade(engine)
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(sa.select(users))] == [("ü/%", b"\0\xff", 7)]


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(engine: Engine) -> None:
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UnknownSchema, match=r"at migration 9999, .* newest is \d+\); update Headstream") as caught:
        upgrade(engine)
    assert caught.value.found == "9999"
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"


def test_an_upgrade_that_fails_leaves_no_table_behind(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE checkpoints (mine INTEGER)"))
    with pytest.raises(sa.exc.DBAPIError, match="checkpoints"):
        upgrade(engine)
    assert sa.inspect(engine).get_table_names() == ["checkpoints"]


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schemas.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


UPGRADER = """
import sys, alembic.command, sqlalchemy, psycopg
from schemas.migrations import upgrade
print("ready", flush=True)
for url in sys.stdin:
    upgrade(sqlalchemy.create_engine(url.rstrip()))
    print("done", flush=True)
"""


def test_processes_that_upgrade_at_once_all_succeed(new_database: NewDatabase) -> None:
    urls = [new_database(kind) for kind in ("sqlite", "postgresql") for _ in range(4)]
    with ExitStack() as stack:
        command = [sys.executable, "-c", UPGRADER]
        processes = [
            stack.enter_context(
                subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            for _ in range(2)
        ]
        assert [_answer(process) for process in processes] == ["ready", "ready"]
        for url in urls:
            for process in processes:
                assert process.stdin
                process.stdin.write(f"{url}\n")
                process.stdin.flush()
            assert [_answer(process) for process in processes] == ["done", "done"]
    for url in urls:
        engine = open_engine(url)
        with engine.connect() as connection:
            assert connection.scalars(sa.text("SELECT version_num FROM alembic_version")).all() == [HEAD]
        engine.dispose()


def _answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()
