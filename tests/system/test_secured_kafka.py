"""Headstream on a Kafka behind TLS and SCRAM: every process and command gets in, and says why where it does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system.conftest import environment
from tests.system.installation import HEADSTREAM, Installation, until
from tests.system.secured import MECHANISM, PASSWORD, USER, Secured, secured_kafka

REFUSED_SECONDS = 50
"""A refusal takes seconds; what tries again for a minute has not understood it."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


def variables(kafka: Secured, data: Path) -> dict[str, str]:
    password = data / "kafka.password"
    password.write_text(f"{PASSWORD}\n")
    return environment(kafka.address, "secured.", data) | {
        "HEADSTREAM_KAFKA_SECURITY": "sasl_ssl",
        "HEADSTREAM_KAFKA_CA_FILE": str(kafka.ca_file),
        "HEADSTREAM_KAFKA_MECHANISM": MECHANISM,
        "HEADSTREAM_KAFKA_USERNAME": USER,
        "HEADSTREAM_KAFKA_PASSWORD_FILE": str(password),
    }


@pytest.fixture(scope="module")
def within(secured: Secured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """SERVE, LEARN and GATEWAY; the test itself looks in by the unguarded door."""
    data = tmp_path_factory.mktemp("within")
    made = Installation(data, variables(secured, data) | {"HEADSTREAM_GATEWAY_PORT": "0"}, own_broker=secured.open)
    for process in ("serve", "learn", "gateway"):
        made.start(process)
    try:
        yield made
    finally:
        made.close()


def test_an_event_goes_in_and_a_recommendation_comes_out(within: Installation) -> None:
    answers = until(lambda: re.search(r"GATEWAY answers on (\S+)", within.log("gateway")), "GATEWAY answers")
    token = (Path(within.settings.data) / "gateway.token").read_text().strip()
    with httpx.Client(base_url=answers[1], headers={"Authorization": f"Bearer {token}"}, timeout=30) as door:
        items = [{"item_id": name, "title": name, "scenarios": ["shop"]} for name in ("boot", "lamp", "shoe")]
        assert door.post("/api/items", json=items).json()["taken"] == 3
        event = {"user_id": "u", "item_id": "shoe", "event": "click"}
        assert door.post("/api/events/shop", json=event).json()["taken"] == 1

        def recommended() -> set[str]:
            found = door.get("/api/recommendations/shop/u?k=3").json().get("items", [])
            return {each["item_id"] for each in found}

        until(lambda: recommended() == {"boot", "lamp"}, "what is left is recommended")
        assert door.get("/ready").status_code == 200
    until(lambda: len(within.examples("shop")) == 1, "the example reached LEARN's topic")
    until(lambda: within.status()["scenarios"]["shop"]["examples"] == 1, "LEARN has learnt from it")


def test_commands_get_in_too(within: Installation) -> None:
    shown = within.command("watch", "shop", "--from-beginning", "--count", "1", "--json")
    assert '"user_id":"u"' in shown
    findings = {each["name"]: each["status"] for each in json.loads(within.command("doctor", "--json"))}
    assert findings["broker"] == "ok"
    events = Path(within.settings.data) / "events.jsonl"
    events.write_text('{"user_id": "v", "item_id": "boot", "event": "click"}\n')
    replayed = json.loads(within.command("replay", str(events), "--scenario", "shop", "--json"))
    assert replayed["taken"] == 1


@pytest.mark.parametrize("command", [("serve",), ("learn",), ("gateway",), ("status",), ("watch", "shop")])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"HEADSTREAM_KAFKA_PASSWORD": "wr0ng-of-kafka", "HEADSTREAM_KAFKA_PASSWORD_FILE": ""}, "let user"),
        ({"HEADSTREAM_KAFKA_CA_FILE": "other"}, "certificate is not trusted"),
    ],
)
def test_who_is_not_let_in_ends_with_a_sentence(
    secured: Secured, tmp_path: Path, command: tuple[str, ...], wrong: dict[str, str], said: str
) -> None:
    given = variables(secured, tmp_path) | wrong
    if given["HEADSTREAM_KAFKA_CA_FILE"] == "other":
        given["HEADSTREAM_KAFKA_CA_FILE"] = str(secured.other_ca_file)
    done = subprocess.run(
        [*HEADSTREAM, *command],
        env={**os.environ, **given, "HEADSTREAM_GATEWAY_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=REFUSED_SECONDS,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "kafka.ca_file" in done.stderr or "kafka.password" in done.stderr
    assert "Traceback" not in done.stderr
    assert "0ng-of-kafka" not in done.stdout + done.stderr
