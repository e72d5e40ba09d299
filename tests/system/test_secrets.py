"""Whatever fails, however it fails: no secret stands in what is printed, logged, shown over HTTP or written to disk."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from streams.kafka_files import free_port
from tests.postgres import PostgresServer
from tests.system.conftest import environment
from tests.system.installation import HEADSTREAM, Installation, until
from tests.system.secured import PASSWORD, Secured, secured_kafka

TOKEN, DATABASE = "t0ken-of-gateway-9471", "p4ssword-of-database"
MARKS = (PASSWORD, TOKEN, DATABASE)
ENDED_SECONDS = 120


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def database() -> Iterator[PostgresServer]:
    """It trusts whoever comes, with any password."""
    with PostgresServer() as server:
        yield server


def marked(secured: Secured, database: PostgresServer, data: Path) -> dict[str, str]:
    """All three secrets, given by the environment."""
    return {
        **environment("", "marked.", data),
        **secured.variables("SCRAM-SHA-512"),
        "HEADSTREAM_GATEWAY_TOKEN": TOKEN,
        "HEADSTREAM_GATEWAY_PORT": "0",
        "HEADSTREAM_DATABASE_URL": database.url.replace("postgres@", f"postgres:{DATABASE}@"),
        "HEADSTREAM_DATABASE_PATIENCE_SECONDS": "2",
        "HEADSTREAM_KAFKA_WATCHDOG_SECONDS": "3",
        "COLUMNS": "1000",
    }


def told(text: str) -> list[str]:
    """The secrets in a text, with what stands around the first of each."""
    return [text[max(0, at - 100) : at + 100] for mark in MARKS if (at := text.find(mark)) >= 0]


def told_on_disk(folder: Path) -> list[str]:
    """The same of every file below; Kafka's own folder is not there."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [f"{path}: {each}" for path in files for each in told(path.read_bytes().decode(errors="replace"))]


def test_processes_that_crash_hang_and_lose_their_database_tell_nothing(
    secured: Secured, database: PostgresServer, tmp_path: Path
) -> None:
    orders = tmp_path / "failpoints"
    orders.mkdir()
    data = tmp_path / "data"
    data.mkdir()
    made = Installation(
        data,
        marked(secured, database, data) | {"_HEADSTREAM_FAILPOINTS": str(orders)},
        own_broker=secured.open,
    )
    try:
        made.start("gateway")
        made.start("serve")
        answers = until(lambda: re.search(r"GATEWAY answers on (\S+)", made.log("gateway")), "GATEWAY answers")[1]
        shown = [httpx.get(f"{answers}{path}").text for path in ("/", "/ready", "/metrics", "/openapi.json", "/api")]
        wrong = {"Authorization": "Bearer wrong"}
        shown.append(httpx.post(f"{answers}/api/items", json={"item_id": "i"}, headers=wrong).text)
        right = {"Authorization": f"Bearer {TOKEN}"}
        taken = httpx.post(f"{answers}/api/items", json={"item_id": "i", "title": "i"}, headers=right)
        assert taken.json()["taken"] == 1
        metrics = until(lambda: re.search(r"metrics are at (\S+)", made.log("serve")), "SERVE offers metrics")[1]
        shown.append(httpx.get(metrics).text)

        (orders / "serve.decoded").write_text("full")
        made.event("shop", "u", "i")
        made.flush()
        assert made.processes.pop("serve").wait(ENDED_SECONDS) == 70
        assert "Traceback" in made.log("serve")

        (orders / "serve.decoded").write_text("sleep 600")
        made.start("serve", "hanging")
        assert made.processes.pop("hanging").wait(ENDED_SECONDS) == 75
        assert "the stack of every thread" in made.log("hanging")

        made.start("serve", "waiting")
        until(lambda: "Worker ready" in made.log("waiting"), "SERVE works")
        database.stop()
        made.event("shop", "u", "i")
        made.flush()
        assert made.processes.pop("waiting").wait(ENDED_SECONDS) == 75
        shown += [httpx.get(f"{answers}{path}", timeout=30).text for path in ("/ready", "/metrics", "/api/scenarios")]
        failed = made.fails("status")
        assert "database" in failed
        shown.append(failed)
    finally:
        made.close()
        if not database.running:
            database.start()
    assert [each for text in shown for each in told(text)] == []
    assert told_on_disk(tmp_path) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"HEADSTREAM_KAFKA_PASSWORD": f"{PASSWORD}-and-more"}, "let user"),
        ({"HEADSTREAM_DATABASE_URL": f"postgresql+psycopg://me:{DATABASE}@127.0.0.1:one/x"}, "database"),
        ({"HEADSTREAM_KAFKA_PARTITIONS": "many"}, "partitions"),
        ({"HEADSTREAM_GATEWAY_TOKEN": TOKEN[:8]}, "gateway.token"),
    ],
)
def test_what_is_wrong_with_the_settings_is_said_without_the_secrets_beside_it(
    secured: Secured, database: PostgresServer, tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    ended = run(("gateway",), marked(secured, database, tmp_path) | wrong, tmp_path)
    assert (ended.returncode, said in ended.stderr) == (1, True), ended.stderr
    assert told(ended.stdout + ended.stderr) == []
    assert TOKEN[:8] not in ended.stderr


@pytest.mark.parametrize(
    "settings",
    [
        f'[kafka]\npassword = "{PASSWORD}"\npartition = 4\n',
        f'[kafka]\npassword = ["{PASSWORD}"]\n',
        f'[kafka]\npassword = "{PASSWORD}\n',
        f'[database]\nurl = "postgresql+psycopg://me:{DATABASE}@h/x"\npatience_seconds = -1\n',
        f'[gateway]\ntoken = "{TOKEN}"\nport = -1\n',
    ],
)
def test_a_file_of_settings_that_is_wrong_is_not_shown(tmp_path: Path, settings: str) -> None:
    (tmp_path / "headstream.toml").write_text(settings)
    ended = run(("status",), {}, tmp_path)
    assert ended.returncode == 1
    assert told(ended.stdout + ended.stderr) == []


def test_a_broker_that_is_away_is_named_without_the_password(
    secured: Secured, database: PostgresServer, tmp_path: Path
) -> None:
    away = {"HEADSTREAM_KAFKA_BROKER": f"127.0.0.1:{free_port()}"}
    ended = run(("status",), marked(secured, database, tmp_path) | away, tmp_path)
    assert (ended.returncode, away["HEADSTREAM_KAFKA_BROKER"] in ended.stderr) == (1, True)
    assert told(ended.stdout + ended.stderr) == []


def run(command: tuple[str, ...], variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **variables}
    return subprocess.run(
        [*HEADSTREAM, *command], env=here, cwd=folder, capture_output=True, text=True, timeout=ENDED_SECONDS
    )
