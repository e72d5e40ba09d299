"""What GATEWAY says of a part that fails: which, since when, what to do; and that it goes on meanwhile."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from schemas.records import Weights
from streams import metrics
from streams.history import Measured
from tests.postgres import PostgresServer
from tests.streams.gateway.conftest import Door, opened, settings_of
from tests.system.installation import until

HTML = {"Accept": "text/html"}
MOMENT = r"since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\. Look whether"


def is_up(part: str) -> float | None:
    return metrics.REGISTRY.get_sample_value("headstream_part_up", {"part": part})


def test_a_database_that_is_away_is_named_everywhere_and_back_again_by_itself(
    broker: str, shared_prefix: str, tmp_path: Path
) -> None:
    with PostgresServer() as server:
        settings = settings_of(shared_prefix, tmp_path)
        with opened(settings, broker, server.url) as door:
            assert door.get("/", headers=HTML).status_code == 200
            server.stop()
            until(lambda: door.gateway.condition.of("database"), "it is noticed", 20)
            assert is_up("database") == 0
            for path in ("/ready", "/api/scenarios", "/api/health-of-data"):
                answer = door.get(path)
                assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
                message = answer.json()["error"]["message"]
                assert message.startswith("The database does not answer (connection ")
                assert re.search(MOMENT, message)
            for path in ("/", "/scenarios/shop", "/data", "/data/lag"):
                page = door.get(path, headers=HTML)
                assert (page.status_code, "The database does not answer (connection " in page.text) == (503, True)
            assert door.get("/health").status_code == 200
            since = door.gateway.condition.of("database")
            server.start()
            until(lambda: not door.gateway.condition.of("database"), "it is back", 20)
            assert since and door.get("/api/scenarios").status_code == 200
            assert is_up("database") == 1


def test_without_kafka_nobody_waits_once_it_is_known_to_be_away(closed_door: Door) -> None:
    closed_door.get("/ready")
    answers = [
        closed_door.post("/api/events/shop", json={"user_id": "u", "item_id": "i", "event": "click"}),
        closed_door.get("/api/recommendations/shop/u"),
        closed_door.get("/api/similar/shop/i"),
    ]
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-broker")
        assert int(answer.headers["retry-after"]) > 0
        assert re.search(MOMENT, answer.json()["error"]["message"])
    assert "<strong>Kafka does not answer" in closed_door.get("/", headers=HTML).text


def test_a_learn_that_is_silent_degrades_but_takes_no_readiness(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.gateway.condition.SILENT_SECONDS", 0.0)
    door.gateway.condition._judged_from = 0.0  # else half a minute is waited after a start
    now = time.time()
    heard = [Measured.one("shop", "lag", now, 0.0), Measured.one("shop", "learning_lag", now - 100, 0.0)]
    door.gateway.history.add(heard)
    head = Weights("shop", "line", 7, 9, now - 120, 1.0, 1.0, 0, ["shop"], {}, None, 0, 0, 1, tensors=b"")
    door.gateway.learn.save_heads([head])
    until(lambda: door.get("/ready").status_code == 200, "it is ready")
    (degraded,) = door.get("/ready").json()["degraded"]
    assert (degraded["part"], degraded["since"]) == ("learn", (now - 100) // 5 * 5)
    assert degraded["says"] == "LEARN says nothing; lists are made with weights that are 2 min old"
    assert (is_up("learn"), is_up("serve")) == (0, 1)
    assert degraded["says"] in door.get("/", headers=HTML).text
    door.gateway.history.add([Measured.one("shop", "learning_lag", time.time(), 0.0)])
    assert door.get("/ready").json() == {"status": "ready"}
