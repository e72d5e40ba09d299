"""Broker and database go away under load, and come back: the same processes go on, and every event counts once."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from streams.broker import EmbeddedBroker
from tests.postgres import PostgresServer
from tests.system.conftest import environment
from tests.system.installation import Installation, until

USERS, ITEMS = 20, 10


@contextmanager
def load(system: Installation) -> Iterator[list[int]]:
    """Events of numbered ids, a hundred a second, as long as this lasts; gives the list of what was sent."""
    sent: list[int] = []
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.01):
            number = len(sent)
            system.event("shop", f"u{number % USERS}", f"i{number % ITEMS}", event_id=str(number))
            sent.append(number)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        system.flush()


@pytest.mark.timeout(400)
def test_outages_are_survived_named_and_cost_no_event(kafka_folder: Path, tmp_path: Path) -> None:
    """DESIGN §5, invariants 1 and 3. Case K11."""
    with EmbeddedBroker(kafka_folder) as broker, PostgresServer() as database:
        more = {
            "HEADSTREAM_DATABASE_URL": database.url,
            "HEADSTREAM_GATEWAY_PORT": "0",
            "HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "2",
        }
        system = Installation(tmp_path, environment(broker.address, "outages.", tmp_path) | more)
        try:
            for name in ("learn", "serve", "gateway"):
                system.start(name)
            for number in range(ITEMS):
                system.item(f"i{number}", f"Thing number {number}")
            system.flush()
            url = until(lambda: re.search(r"GATEWAY answers on (\S+)", system.log("gateway")), "GATEWAY answers")[1]
            with httpx.Client(base_url=url, timeout=30) as client:

                def recommended() -> bool:
                    answer = client.get("/api/recommendations/shop/u1")
                    return answer.status_code == 200 and bool(answer.json()["items"])

                def not_ready(part: str) -> bool:
                    return f"{part} does not answer" in client.get("/ready").text

                until(recommended, "it recommends")
                with load(system) as sent:
                    for seconds in (0, 35):  # the second is longer than Kafka's clients wait unless they are told to
                        broker.stop()
                        back_at = time.monotonic() + seconds
                        until(lambda: not_ready("Kafka"), "it is not ready without Kafka", 20)
                        answer = client.get("/api/recommendations/shop/u1")
                        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                        time.sleep(max(0.0, back_at - time.monotonic()))
                        broker.start()
                        until(recommended, "it recommends again within a minute", 60)
                    database.stop()
                    until(lambda: not_ready("The database"), "it is not ready without the database", 20)
                    before = len(sent)
                    until(lambda: len(sent) > before + 300, "lag has grown")
                    database.start()
                    until(recommended, "it recommends again within a minute", 60)
                until(lambda: system.scenarios()["shop"]["examples"] >= len(sent), "all is learnt", 60)
                shop = system.scenarios()["shop"]
                assert shop["events"] == shop["examples"] == len(sent)
                until(lambda: client.get("/ready").status_code == 200, "it is ready again", 20)
            assert {name: process.poll() for name, process in system.processes.items()} == {
                "learn": None, "serve": None, "gateway": None,
            }  # fmt: skip
            assert "the database works again, after" in system.log("serve")
        finally:
            system.close()
