"""Fixtures of the system tests."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.compose import services
from tests.system.installation import Installation


def environment(broker: str, prefix: str, data: Path) -> dict[str, str]:
    """Of an installation with a database of its own, in its data folder."""
    return {"HEADSTREAM_DATA": str(data), "HEADSTREAM_KAFKA_BROKER": broker, "HEADSTREAM_KAFKA_PREFIX": prefix}


@pytest.fixture
def alone(broker: str, prefix: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation for one test, of which nothing runs yet."""
    made = Installation(tmp_path, environment(broker, prefix, tmp_path))
    yield made
    made.close()


@pytest.fixture(scope="module")
def installation(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One SERVE and one LEARN for all tests of a module, which use users and items of their own.

    Half of the users of `travel` are in its control group.
    """
    data = tmp_path_factory.mktemp("installation")
    more = {"HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "5", "HEADSTREAM_SCENARIOS_TRAVEL_CONTROL": "0.5"}
    made = Installation(data, environment(broker, f"m-{os.urandom(4).hex()}.", data) | more)
    made.start("serve")
    made.start("learn")
    try:
        yield made
    finally:
        made.close()


class Composed(Installation):
    """The services of the compose file as processes here: their commands and environments, each with its own disk."""

    def __init__(self, folder: Path, hosts: Mapping[str, str], **more: str) -> None:
        """Hosts are where other services, by the addresses they have there, are found here; `more` are variables.

        All containers are one machine here, so each of them takes a free port, unless it is told one.
        """
        self._services, self._hosts = services(), hosts
        free = {f"HEADSTREAM_{name}_PORT": "0" for name in ("METRICS_SERVE", "METRICS_LEARN", "GATEWAY")}
        self._more = free | more
        super().__init__(folder, self._environment_of("serve"))

    def start(self, command: str, name: str | None = None, **environment: str) -> None:
        """Start a container of this service, so to speak."""
        assert self._services[command]["command"] == ["headstream", command]
        disk = {"HEADSTREAM_DATA": str(self._folder / f"disk of {name or command}")}
        super().start(command, name, **self._environment_of(command) | disk | environment)

    def _environment_of(self, service: str) -> dict[str, str]:
        environment = dict(self._services[service]["environment"])
        for name, host in self._hosts.items():
            environment = {key: value.replace(name, host) for key, value in environment.items()}
        return environment | self._more


@pytest.fixture
def composed(broker: str, prefix: str, postgres: str, tmp_path: Path) -> Iterator[Composed]:
    """What `docker compose up` starts, but for the containers: Kafka and PostgreSQL are the suite's."""
    wanted = services()["postgres"]["environment"]
    role, database = wanted["POSTGRES_USER"], wanted["POSTGRES_DB"]
    server = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD '{wanted['POSTGRES_PASSWORD']}'")
        connection.exec_driver_sql(f"CREATE DATABASE {database} OWNER {role}")
    url = sa.make_url(postgres)
    hosts = {"kafka:9092": broker, "@postgres/": f"@{url.host}:{url.port}/", "0.0.0.0": "127.0.0.1"}
    more = {"HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "2", "HEADSTREAM_SERVE_BATCH_RECORDS": "20"}
    made = Composed(tmp_path, hosts, HEADSTREAM_KAFKA_PREFIX=prefix, **more)
    yield made
    made.close()
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {database} WITH (FORCE)")
        connection.exec_driver_sql(f"DROP ROLE {role}")
    server.dispose()
