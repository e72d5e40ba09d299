"""Topics as other people have set them up and fill them: any codec is read, and no key stops anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.system.conftest import environment
from tests.system.installation import Installation, until

CODECS = {"shop": "uncompressed", "video": "gzip", "news": "snappy", "travel": "lz4", "social": "zstd"}
EVENTS, USERS = 200, 40


def change(system: Installation, topic: str, **settings: str) -> None:
    """Set a topic's own settings, as its owner would."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    client = AdminClient({"bootstrap.servers": system.broker})
    client.incremental_alter_configs([resource])[resource].result(20)


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """SERVE and LEARN, with a codec of each scenario's own set on its topics, and zstd on all that they share."""
    data = tmp_path_factory.mktemp("topics")
    more = {"HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "2", "HEADSTREAM_SERVE_SNAPSHOT_SECONDS": "0"}
    made = Installation(data, environment(broker, "topics.", data) | more)
    for topic in made.topics.all():
        codec = next((codec for name, codec in CODECS.items() if topic.name.endswith(f".{name}")), "zstd")
        change(made, topic.name, compression_type=codec)
    made.start("serve")
    made.start("learn")
    try:
        yield made
    finally:
        made.close()


def test_whatever_codec_a_topic_is_set_to_everything_in_it_counts(system: Installation) -> None:
    """Case K1: a topic with `compression.type`, to which the broker recompresses what producers send."""
    assert set(CODECS) == set(system.settings.scenarios)
    for number in range(USERS):
        system.item(f"i{number}", f"Thing number {number}")
    for number in range(EVENTS):
        for name in CODECS:
            system.event(name, f"u{number % USERS}", f"i{number % 7}", "view")
    system.flush()

    def counted() -> bool:
        return all((each["events"], each["examples"]) == (EVENTS, EVENTS) for each in system.scenarios().values())

    until(counted, "all events of each codec are counted and learnt")
    assert len(system.answer("social", "u1", k=5).items) == 5


KEYS = [bytes(range(0x86)), b"\xff\xfe", b"", (7).to_bytes(4, "big"), None, "ключ".encode() * 90]


def test_no_key_stops_anything_not_even_at_the_next_start(system: Installation) -> None:
    """Case K17: keys that are no text. Nothing depends on an event's key; of a deletion it is all there is."""
    topics, before = system.topics, system.scenarios()["news"]["events"]
    value = {"user_id": "odd-keys", "item_id": "i1", "event": "view"}
    for key in KEYS:
        system.send(topics.events("news"), value, key)
        if key is not None:  # which Kafka lets nobody send to a compacted topic, nor what is in one batch with it
            system.send(topics.items, {"item_id": "odd-item", "title": "An item with an odd key"}, key)
        if key:
            system.send(topics.items, None, key)
        system.send(topics.events("news"), None, key)
        for topic in (topics.requests, topics.erasures, topics.control):
            system.send(topic, b"no order", key)
    system.flush()
    wanted = {key for key in KEYS if key}

    def deletions_put_aside() -> bool:
        ended = {name: process.returncode for name, process in system.processes.items() if process.poll() is not None}
        assert ended == {}, {name: system.log(name)[-2000:] for name in ended}
        found = [each for each in system.records(topics.dead_letters) if each.value() is None]
        return {each.key() for each in found if dict(each.headers())["error.code"] == b"bad-id"} >= wanted

    until(deletions_put_aside, "deletions of nobody are among the dead letters")
    for name in ("serve", "learn"):
        system.kill(name)
        system.start(name)
    system.event("news", "odd-keys", "i2", "view")
    system.flush()
    until(lambda: system.scenarios()["news"]["events"] == before + len(KEYS) + 1, "all are counted after a new start")
    assert "odd-item" in {item.item_id for item in system.answer("news", "nobody", k=100).items}
    assert "Traceback" not in system.log("serve") + system.log("learn")
    # Last of this file: what a test has started must have ended with it.
    assert [system.stop(name) for name in ("serve", "learn")] == [0, 0]
