"""The process: it takes its port or says why not, says when it is ready, and knows what it needs."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from streams.gateway.address import PortTaken, listen, url_of
from tests.streams.gateway.conftest import TOKEN, Door, opened, settings_of
from tests.system.installation import until


def test_a_taken_port_is_named_with_what_to_do() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1 port {port}: .*in use.* set gateway\.port"):
            listen("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(PortTaken, match=r"nowhere\.invalid"):
        listen("nowhere.invalid", 0)


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")])
def test_its_url_is_one_that_a_browser_here_finds(host: str, url: str) -> None:
    with listen(host, 0) as listening:
        assert url_of(listening) == f"{url}{listening.getsockname()[1]}"
        assert listening.family is socket.AF_INET


def test_it_is_ready_when_database_and_broker_answer(door: Door) -> None:
    until(lambda: door.get("/ready").status_code == 200, "it is ready")
    assert door.get("/ready").json() == {"status": "ready"}


def test_it_lives_without_them_and_says_what_is_missing(closed_door: Door) -> None:
    assert closed_door.get("/health").json() == {"status": "alive"}
    answer = closed_door.get("/ready")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not-ready")
    assert "Kafka does not answer" in answer.json()["error"]["message"]
    assert "database" not in answer.json()["error"]["message"]
    health = closed_door.get("/api/health-of-data")
    assert (health.status_code, health.json()["error"]["code"]) == (503, "no-broker")


def test_health_of_data_tells_lag_and_dead_letters(door: Door) -> None:
    gateway = door.gateway
    topic = gateway.topics.events("shop")
    with gateway.serve.engine.begin() as connection:
        gateway.serve.add_tallies(connection, topic, {(0, "dead:bad-id"): 2, (1, "dead:bad-id"): 1, (0, "events"): 5})
    found = door.get("/api/health-of-data").json()
    assert set(found["topics"][topic]) == {"0", "1"}
    assert found["dead_letters"] == [{"topic": topic, "code": "bad-id", "count": 3}]
    assert found["freshness"]["shop"]["learning_lag"] == 5


def test_any_number_of_them_may_run(broker: str, shared_prefix: str, tmp_path: Path) -> None:
    """None of them knows anything that the others do not."""
    settings = settings_of(shared_prefix, tmp_path)
    one, other = (f"sqlite:///{tmp_path / name}" for name in ("one.db", "other.db"))
    with opened(settings, broker, one) as first, opened(settings, broker, other) as second:
        action = {"action": "pause", "scenario": "shop", "author": "eve", "reason": "bots"}
        action_id = first.post("/api/actions", json=action).json()["action_id"]
        assert second.get(f"/api/actions/{action_id}").json()["outcome"] == "pending"
        second.cookies = first.post("/login", json={"token": TOKEN}).cookies
        del second.headers["authorization"]
        assert second.post("/api/actions", json=action, headers={"Origin": second.url}).status_code == 202
