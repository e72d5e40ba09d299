"""Topics as other people have set them up: any codec is read."""

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
