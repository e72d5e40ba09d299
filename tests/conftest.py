"""Fixtures of the whole suite: a real Kafka, a real PostgreSQL, and a check that every test cleans up after itself."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from streams.broker import EmbeddedBroker
from tests.postgres import PostgresServer

GRACE_SECONDS = 5.0
"""How long what a test has told to end may take to do so."""


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Apache Kafka that all tests share; keep topics apart by `prefix`."""
    with EmbeddedBroker(tmp_path_factory.mktemp("kafka")) as embedded:
        yield embedded.address


@pytest.fixture(scope="session")
def kafka_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for tests that start a Kafka of their own and stop it; its name holds what breaks a properties file.

    They share it because preparing a new one costs seconds, so each leaves it stopped and in its place.
    """
    return tmp_path_factory.mktemp("own") / "a, b = ü %d"


@pytest.fixture(scope="module", autouse=True)
def _without_avalanche() -> Iterator[None]:
    """Each LEARN that a test starts spares itself the import, unless it is what the test is about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTREAM_LEARN_AVALANCHE", "false")
        yield


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test uses."""
    return f"t-{uuid.uuid4().hex[:8]}."


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The SQLAlchemy URL of a PostgreSQL made for this run; a machine without PostgreSQL fails its tests."""
    with PostgresServer() as server:
        yield server.url


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test that leaves a process or a thread which would keep the interpreter from ending."""
    threads, processes = set(threading.enumerate()), set(_children())
    yield
    new_threads = [thread for thread in threading.enumerate() if thread not in threads and not thread.daemon]
    for thread in new_threads:
        thread.join(GRACE_SECONDS)
    left_threads = [thread.name for thread in new_threads if thread.is_alive()]
    # What an older process has started is its own affair: a supervisor that outlives the test may replace a child.
    new = [child for child in _children() if child not in processes and processes.isdisjoint(_parents(child))]
    _, alive = psutil.wait_procs(new, timeout=GRACE_SECONDS)
    left_processes = [child.pid for child in alive]
    for child in alive:
        child.kill()
    assert (left_threads, left_processes) == ([], []), "the test left threads or processes behind"


def _parents(child: psutil.Process) -> list[psutil.Process]:
    try:
        return child.parents()
    except psutil.NoSuchProcess:
        return []  # it has ended meanwhile, which the wait for it will find


def _children() -> list[psutil.Process]:
    children = []
    for child in psutil.Process().children(recursive=True):
        try:
            # The tracker that multiprocessing starts at first use serves the whole run.
            if "resource_tracker" not in " ".join(child.cmdline()):
                children.append(child)
        except psutil.NoSuchProcess:
            continue
    return children
