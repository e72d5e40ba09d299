"""What happens to records that are odd, broken or hostile: each kind has one right answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Producer
from kafka import KafkaProducer

from schemas.packed import unpack
from streams.worker import EXIT_CONFIGURATION
from tests.system.installation import Installation, until

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def body(user: str, item: str = "i1", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event": "view", **more}


BAD = {
    "not JSON": (b"sadkjfh", "not-json"),
    "empty": (b"", "not-json"),
    "magic byte": (b"\x00\x00\x00\x00\x01{}", "not-json"),
    "deep nesting": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not-json"),
    "2 MB": (json.dumps(body("u", pad="x" * 2_000_000)).encode(), "too-large"),
    "NaN": (b'{"user_id":"u","item_id":"i","event":"view","value":NaN}', "not-json"),
    "1e999": (b'{"user_id":"u","item_id":"i","event":"view","value":1e999}', "wrong-type"),
    "missing user": (b'{"item_id":"i","event":"view"}', "wrong-type"),
    "empty item": (json.dumps(body("u", "")).encode(), "bad-id"),
    "257 bytes": (json.dumps(body("u" * 257)).encode(), "bad-id"),
    "unknown event": (json.dumps(body("u") | {"event": "teleport"}).encode(), "unknown-event"),
    "no time": (json.dumps(body("u", timestamp="yesterday")).encode(), "bad-time"),
}


def test_each_bad_record_becomes_a_dead_letter_with_its_reason_and_the_next_is_worked(
    installation: Installation,
) -> None:
    """Cases K14 (a record of 2 MB) and K18 (not JSON)."""
    topic = installation.topics.events("shop")
    for number, (value, _) in enumerate(BAD.values()):
        installation.send(topic, value, f"k{number}", headers=[("mine", b"\xff")], partition=1)
    installation.event("shop", "after-the-bad", "i1")
    installation.flush()

    def letters() -> list[Any]:
        found = installation.records(installation.topics.dead_letters)
        mine = [each for each in found if dict(each.headers())["source.topic"] == topic.encode()]
        return mine if len(mine) >= len(BAD) else []

    found = until(letters, "all bad records are put aside")
    assert len(found) == len(BAD)
    for letter, (value, code) in zip(sorted(found, key=lambda each: int(each.key()[1:])), BAD.values(), strict=True):
        headers = dict(letter.headers())
        assert letter.value() == value
        assert headers["error.code"].decode() == code
        assert headers["mine"] == b"\xff"
        assert headers["source.partition"] == b"1"
        assert f"offset {headers['source.offset'].decode()}" in headers["error.message"].decode()
    until(lambda: installation.recommendations("shop") or installation.examples("shop"), "the good one is worked")
    status = until(
        lambda: found if sum((found := installation.scenarios()["shop"])["dead_letters"].values()) else None,
        "they are counted",
    )
    assert sum(status["dead_letters"].values()) == len(BAD)
    assert status["dead_letters"]["unknown-event"] == 1


def test_odd_but_good_records_count(installation: Installation) -> None:
    """Cases K15 (a null value in an events topic) and S23 (a time from the future)."""
    topic = installation.topics.events("video")
    odd = [
        body("a/b%c d?#é🙂"),
        body("u" * 256),
        body(42),  # type: ignore[arg-type]
        body("42"),
        body("ms", timestamp=1_700_000_000_000),
        body("none"),
        body("future", timestamp="9999-12-31T00:00:00Z"),
        body("zoned", timestamp="2024-02-29T12:00:00+05:30"),
        body("zoneless", timestamp="2022-06-24 21:20:11"),
        body("old", timestamp=-3_000_000_000),
        body("extra", colour="red", nested={"a": [1, 2]}),
        body("unheard", "an-item-nobody-knows"),
    ]
    for each in odd:
        installation.send(topic, each, None)
    installation.send(topic, None, "a-tombstone")
    for _ in range(3):
        installation.send(topic, body("retry", event_id="e1"), "retry")
    installation.flush()
    wanted = len(odd) + 1
    until(lambda: installation.scenarios()["video"]["events"] >= wanted, "all are applied")
    video = until(
        lambda: found if (found := installation.status()["scenarios"]["video"])["lag"] == 0 else None,
        "lag is worked off",
    )
    assert video["events"] == wanted
    assert video["duplicates"] == 2
    assert video["counts"]["nulls"] == 1
    assert video["counts"]["clamped_times"] == 1
    assert video["counts"]["unknown_fields"] == 1
    assert video["dead_letters"] == {}
    examples = installation.examples("video")
    assert len(examples) == wanted
    of_42 = sorted(len(unpack(example.history)) for example in examples if example.user_id == "42")
    assert of_42 == [0, 1]  # 42 and "42" are one user
    at = {example.user_id: example.time for example in examples}
    assert at["ms"] == 1_700_000_000
    assert at["zoned"] == 1_709_188_200
    assert at["zoneless"] == 1_656_105_611
    assert at["old"] == -3_000_000_000
    assert at["future"] < 4_000_000_000


def test_an_example_of_another_version_ends_learning_with_what_to_do(alone: Installation) -> None:
    alone.send(alone.topics.examples("shop"), b"\x93\x00\x01\xa1u", partition=0)
    alone.flush()
    alone.start("learn")
    until(lambda: alone.processes["learn"].poll() is not None, "LEARN ends")
    assert alone.processes["learn"].returncode == EXIT_CONFIGURATION
    assert "a training example was written by another version of Headstream" in alone.log("learn")


def with_librdkafka(broker: str, topic: str, codec: str, user: str) -> None:
    producer = Producer({"bootstrap.servers": broker, "compression.type": codec})
    for number in range(20):
        producer.produce(topic, json.dumps(body(user, f"i{number}")).encode(), user, headers={"trace": b"\x00"})
    assert producer.flush(20) == 0


def with_kafka_python(broker: str, topic: str, codec: str, user: str) -> None:
    producer = KafkaProducer(bootstrap_servers=broker, compression_type=None if codec == "none" else codec)
    for number in range(20):
        value = json.dumps(body(user, f"i{number}")).encode()
        producer.send(topic, value, user.encode(), headers=[("trace", b"\x00")])
    producer.flush(20)
    producer.close()


def with_aiokafka(broker: str, topic: str, codec: str, user: str) -> None:
    async def send() -> None:
        compression = None if codec == "none" else codec
        producer = AIOKafkaProducer(bootstrap_servers=broker, compression_type=compression)
        await producer.start()
        for number in range(20):
            value = json.dumps(body(user, f"i{number}")).encode()
            await producer.send(topic, value, user.encode(), headers=[("trace", b"\x00")])
        await producer.stop()

    asyncio.run(send())


@pytest.mark.parametrize("client", [with_librdkafka, with_kafka_python, with_aiokafka])
def test_every_client_and_codec_is_read(
    installation: Installation, client: Callable[[str, str, str, str], None]
) -> None:
    """Case K1, of codecs that producers choose."""
    topic, name = installation.topics.events("news"), client.__name__
    for codec in CODECS:
        client(installation.broker, topic, codec, f"{name}-{codec}")

    def counted() -> bool:
        users = [example.user_id for example in installation.examples("news")]
        return all(users.count(f"{name}-{codec}") == 20 for codec in CODECS)

    until(counted, f"20 events of each codec by {name}")


def test_an_aborted_transaction_leaves_no_trace(installation: Installation) -> None:
    """Case K5."""
    topic = installation.topics.events("travel")
    producer = Producer({"bootstrap.servers": installation.broker, "transactional.id": f"{topic}-test"})
    producer.init_transactions(20)
    for user, commit in (("first", True), ("aborted", False), ("third", True)):
        producer.begin_transaction()
        producer.produce(topic, json.dumps(body(user)).encode(), "same-key")
        producer.flush(20)
        if commit:
            producer.commit_transaction(20)
        else:
            producer.abort_transaction(20)
    until(lambda: installation.scenarios()["travel"]["events"] >= 2, "the committed ones are applied")
    status = until(
        lambda: found if (found := installation.status()["scenarios"]["travel"])["lag"] == 0 else None,
        "markers and aborted records are no lag",
    )
    assert status["events"] == 2
    assert {example.user_id for example in installation.examples("travel")} == {"first", "third"}
