"""A process that is stuck when it is told to stop is cut after `stop_seconds`, and says where it was stuck.

The tests share one system, in this order, and each of them ends one of its processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import httpx
import pytest

from schemas.failpoints import FOLDER_VARIABLE
from streams.worker import EXIT_TRY_AGAIN
from tests.system.conftest import environment
from tests.system.installation import Installation, until


@pytest.fixture(scope="module")
def failpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="module")
def system(broker: str, failpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("stuck")
    more = {
        FOLDER_VARIABLE: str(failpoints),
        "HEADSTREAM_STOP_SECONDS": "2",
        "HEADSTREAM_GATEWAY_PORT": "0",
        "HEADSTREAM_GATEWAY_TIMEOUT_SECONDS": "600",
    }
    made = Installation(data, environment(broker, "stuck.", data) | more)
    try:
        for name in ("serve", "learn", "gateway"):
            made.start(name)
        made.item("i1", "Thing")
        made.answer("shop", "nobody")
        yield made
    finally:
        made.close()


def stick(system: Installation, failpoints: Path, name: str) -> None:
    """Let a process fall asleep at this failpoint, over an event."""
    (failpoints / name).write_text("sleep 3600")
    system.event("shop", "u1", "i1")
    system.flush()
    until(lambda: list(failpoints.glob(f".{name}.by.*")), f"somebody came by {name}")


def cut(system: Installation, name: str) -> str:
    """Tell it to stop; returns what it has in its log, of which the last line is its reason."""
    assert system.stop(name) == EXIT_TRY_AGAIN
    log = system.log(name)
    assert "stopping took longer than 2 s; where, the stacks above say" in log.splitlines()[-1]
    assert "the stack of every thread:" in log
    return log


def test_learn(system: Installation, failpoints: Path) -> None:
    stick(system, failpoints, "learn.learnt")
    assert "in _strike" in cut(system, "learn")


def test_a_gateway_that_waits_for_an_answer_of_a_serve_that_is_stuck(system: Installation, failpoints: Path) -> None:
    stick(system, failpoints, "serve.decoded")
    url = until(lambda: re.search(r"GATEWAY answers on (\S+)", system.log("gateway")), "GATEWAY answers")[1]
    refused: list[httpx.HTTPError] = []

    def ask() -> None:
        try:
            httpx.get(f"{url}/api/recommendations/shop/u1", timeout=600)
        except httpx.HTTPError as error:
            refused.append(error)

    asking = Thread(target=ask)
    before = len(system.records(system.topics.requests))
    asking.start()
    until(lambda: len(system.records(system.topics.requests)) > before, "the call waits for its answer")
    log = cut(system, "gateway")
    assert re.search(r"in \S*recommend", log)
    asking.join()
    assert len(refused) == 1


def test_serve(system: Installation) -> None:
    assert "in _strike" in cut(system, "serve")
