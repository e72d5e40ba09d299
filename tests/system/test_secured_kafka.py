"""Headstream on a Kafka behind TLS that asks who comes: every library gets in, and who does not hears why."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from schemas.settings import Kafka
from schemas.topics import Topic
from streams.access import aiokafka, cluster, faust
from streams.administration import end_offsets, ensure_topics
from streams.handshake import AccessRefused
from streams.outbox import Outbox
from tests.system.conftest import environment
from tests.system.installation import HEADSTREAM
from tests.system.secured import PASSWORD, WAYS, Secured, secured_kafka

REFUSED_SECONDS = 50
"""A refusal takes seconds; what tries again for a minute has not understood it."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as kafka:
        yield kafka


async def first_value(told: dict[str, Any], topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(**told, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        return (await asyncio.wait_for(consumer.getone(), 30)).value  # type: ignore[no-any-return]
    finally:
        await consumer.stop()


@pytest.mark.parametrize("way", WAYS)
def test_each_library_gets_in_on_each_way(secured: Secured, way: str) -> None:
    there, topic = cluster(Kafka(**secured.settings(way))), f"by-{way.lower()}"  # type: ignore[arg-type]
    ensure_topics(there, [Topic(topic, 1, {})], replication=1)  # the handshake, and kafka-python
    outbox = Outbox(there)  # librdkafka
    outbox.send(topic, None, way.encode())
    outbox.flush()
    outbox.close()
    assert end_offsets(there, [topic]) == {(topic, 0): 1}
    assert asyncio.run(first_value(aiokafka(there), topic)) == way.encode()
    by_faust = credentials_to_aiokafka_auth(faust(there)["broker_credentials"], None)
    assert asyncio.run(first_value({"bootstrap_servers": str(there), **by_faust}, topic)) == way.encode()


@pytest.mark.parametrize(
    ("way", "wrong", "said"),
    [
        *((way, {"password": "wr0ng"}, 'does not let user "headstream" in') for way in WAYS[:3]),
        ("certificate", {"certificate_file": ""}, "kafka.certificate_file"),
    ],
)
def test_each_way_in_is_shut_for_others(secured: Secured, way: str, wrong: dict[str, str], said: str) -> None:
    settings = Kafka(**{**secured.settings(way), **wrong})  # type: ignore[arg-type]
    with pytest.raises(AccessRefused, match=said) as refused:
        end_offsets(cluster(settings), [], timeout=REFUSED_SECONDS)
    assert "wr0ng" not in str(refused.value)


def variables(kafka: Secured, data: Path) -> dict[str, str]:
    """With the password in a file."""
    password = data / "kafka.password"
    password.write_text(f"{PASSWORD}\n")
    where = {"HEADSTREAM_KAFKA_PASSWORD": "", "HEADSTREAM_KAFKA_PASSWORD_FILE": str(password)}
    return environment("", "secured.", data) | kafka.variables("SCRAM-SHA-512") | where


def run(command: tuple[str, ...], given: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HEADSTREAM, *command],
        env={**os.environ, **given, "HEADSTREAM_GATEWAY_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=REFUSED_SECONDS,
    )


def test_doctor_gets_in_too(secured: Secured, tmp_path: Path) -> None:
    done = run(("doctor", "--json"), variables(secured, tmp_path))
    assert {each["name"]: each["status"] for each in json.loads(done.stdout)}["broker"] == "ok"


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
    done = run(command, given)
    assert done.returncode == 1
    assert said in done.stderr
    assert "kafka.ca_file" in done.stderr or "kafka.password" in done.stderr
    assert "Traceback" not in done.stderr
    assert "0ng-of-kafka" not in done.stdout + done.stderr
