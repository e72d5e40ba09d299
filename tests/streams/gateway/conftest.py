"""Fixtures of GATEWAY's tests: the whole application on a port of its own, on a real Kafka and a real database."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from schemas.settings import Gateway as GatewaySettings
from schemas.settings import Kafka, Scenario, Settings
from schemas.tables import ErasureKey, Table
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.gateway.address import listen, url_of
from streams.gateway.doorkeeper import Doorkeeper
from streams.gateway.gateway import Gateway
from streams.gateway.process import make_server
from streams.history import History
from streams.store import Store, open_engine

TOKEN = "open sesame"
NOBODY = "127.0.0.1:9"
"""No broker listens there."""


class Door(httpx.Client):
    """A client of a running application; what it sends shows the token."""

    def __init__(self, gateway: Gateway, url: str) -> None:
        super().__init__(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        self.gateway = gateway
        self.url = url


def settings_of(prefix: str, data: Path, **more: float | str) -> Settings:
    events = {"view": 1.0, "click": 2.0, "dislike": -1.0}
    return Settings(
        data=str(data),
        kafka=Kafka(prefix=prefix, partitions=2),
        gateway=GatewaySettings(port=0, **more),  # type: ignore[arg-type]
        scenarios={name: Scenario(events=events) for name in ("shop", "news")},
    )


@contextmanager
def opened(settings: Settings, broker: str, url: str) -> Iterator[Door]:
    """The application of these settings, answering, on a fresh database."""
    engine = open_engine(url)
    Table.metadata.drop_all(engine)
    Table.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(ErasureKey).values(number=1, key=b"k" * 32))  # as the migration does
    serve, learn = (Store(engine, f"{settings.kafka.prefix}{name}", "test") for name in ("serve", "learn"))
    doorkeeper = Doorkeeper(TOKEN, "It is a secret.")
    gateway = Gateway(settings, broker, history=History(engine), serve=serve, learn=learn, doorkeeper=doorkeeper)
    ready = threading.Event()
    server = make_server(gateway, ready.set)
    listening = listen("127.0.0.1", 0)
    url_here = url_of(listening)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="door")
    thread.start()
    try:
        assert ready.wait(20)
        with Door(gateway, url_here) as door:
            yield door
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        Table.metadata.drop_all(engine)
        engine.dispose()


@pytest.fixture(scope="module")
def shared_prefix(broker: str) -> str:
    """Topics that the tests of a module share."""
    prefix = f"g-{os.urandom(4).hex()}."
    ensure_topics(broker, Topics(settings_of(prefix, Path())).all(), replication=1)
    return prefix


@pytest.fixture
def door(broker: str, shared_prefix: str, tmp_path: Path) -> Iterator[Door]:
    with opened(settings_of(shared_prefix, tmp_path), broker, f"sqlite:///{tmp_path / 'door.db'}") as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def either_door(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Door]:
    """On each kind of database, and without Kafka: for what is read from the database alone."""
    url = f"sqlite:///{tmp_path / 'door.db'}" if request.param == "sqlite" else request.getfixturevalue("postgres")
    with opened(settings_of("t.", tmp_path), NOBODY, url) as found:
        yield found


@pytest.fixture
def closed_door(tmp_path: Path) -> Iterator[Door]:
    """Behind which no Kafka answers."""
    with opened(settings_of("t.", tmp_path, timeout_seconds=0.5), NOBODY, f"sqlite:///{tmp_path / 'door.db'}") as found:
        yield found
