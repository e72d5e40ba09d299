"""Following: what SERVE begins with, and that no snapshot can keep it from beginning."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from schemas.settings import Settings
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.following import Following, snapshot_file
from streams.mirror import Mirror
from streams.snapshot import made_for, write_snapshot
from streams.topic_identity import read_topic_ids
from tests.streams.builders import settings_of
from tests.streams.test_mirror import item


@pytest.fixture
def settings(broker: str, prefix: str, tmp_path: Path) -> Settings:
    """With a snapshot of one item in the data folder, and topics in which nothing is."""
    settings = msgspec.structs.replace(settings_of(prefix), data=str(tmp_path))
    topics = Topics(settings)
    ensure_topics(broker, topics.all(), replication=1)
    mirror = Mirror(settings, torch.device("cpu"))
    mirror.take_items([item("a")])
    purpose = made_for(settings, read_topic_ids(broker, [topics.items, topics.vectors]))
    positions = {(topics.items, partition): 0 for partition in range(4)} | {(topics.vectors, 0): 0}
    write_snapshot(snapshot_file(settings), purpose, mirror.note(), positions, 0.0)
    return settings


def test_it_begins_with_what_the_snapshot_holds(broker: str, settings: Settings) -> None:
    assert list(Following(settings, broker).mirror.items) == ["a"]


def test_where_no_snapshots_are_kept_none_is_used(broker: str, settings: Settings) -> None:
    without = msgspec.structs.replace(settings, serve=msgspec.structs.replace(settings.serve, snapshot_seconds=0.0))
    assert Following(without, broker).mirror.items == {}


def test_a_snapshot_that_cannot_be_used_is_named_and_left_alone(
    broker: str, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    file = snapshot_file(settings)
    file.write_bytes(b"rubbish")
    assert Following(settings, broker).mirror.items == {}
    assert f"the snapshot {file} is not used: it is no whole file of tensors" in caplog.text
    assert "the topics are read from their start" in caplog.text
    assert file.read_bytes() == b"rubbish"
