"""The fence around Faust: the private names that we rely on exist, so that another version fails here first."""

from __future__ import annotations

import asyncio
import inspect
from importlib.metadata import version
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import NoOffsetForPartitionError
from aiokafka.structs import TopicPartition
from faust.tables import recovery
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as driver

from schemas.topics import Topic
from streams import transport
from streams.administration import ensure_topics


def test_the_versions_are_those_that_the_fence_was_built_for() -> None:
    assert (version("faust-streaming"), version("aiokafka")) == ("0.15.3", "0.14.0")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Consumer, "perform_seek"),
        (Consumer, "ack"),
        (Consumer, "commit"),
        (Consumer, "_drain_messages"),
        (Consumer, "_get_active_partitions"),
        (driver.Consumer, "seek_to_committed"),
        (driver.Consumer, "_new_consumer_thread"),
        (driver.AIOKafkaConsumerThread, "_create_worker_consumer"),
        (driver.AIOKafkaConsumerThread, "_fetch_records"),
        (driver.AIOKafkaConsumerThread, "_ensure_consumer"),
        (driver.AIOKafkaConsumerThread, "call_thread"),
        (Fetcher, "fetched_records"),
        (recovery.Recovery, "_wait"),
    ],
)
def test_what_is_overridden_or_called_exists(owner: type, name: str) -> None:
    assert callable(getattr(owner, name))


def test_what_is_overridden_takes_the_same_arguments() -> None:
    for name in ("commit", "perform_seek", "ack", "_drain_messages"):
        ours, theirs = (list(inspect.signature(getattr(c, name)).parameters) for c in (transport.Consumer, Consumer))
        assert ours == theirs, name
    fetch = [
        list(inspect.signature(thread._fetch_records).parameters)
        for thread in (transport.ConsumerThread, driver.AIOKafkaConsumerThread)
    ]
    assert fetch[0] == fetch[1]


def test_the_settings_that_faust_does_not_offer_are_read_when_the_consumer_starts() -> None:
    source = inspect.getsource(AIOKafkaConsumer)
    for name in ("_isolation_level", "_fetch_max_wait_ms", "_partition_assignment_strategy"):
        assert source.count(name) >= 2, name
    assert "_prefetch_backoff" in inspect.getsource(Fetcher)


class Member:
    """What an assignor sees of a member of the group."""

    def __init__(self, *subscription: str) -> None:
        self.subscription = subscription


class Cluster:
    """Partitions of topics."""

    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def test_partitions_of_one_number_go_to_one_member_and_all_are_given() -> None:
    members = {name: Member("shop", "video") for name in ("a", "b", "c")}
    given = transport.SameNumberTogether.assign(Cluster(shop=8, video=8), members)
    by_member = {name: dict(each.assignment) for name, each in given.items()}
    assert all(share["shop"] == share["video"] for share in by_member.values())
    assert sorted(p for share in by_member.values() for p in share["shop"]) == list(range(8))


def test_members_that_read_other_topics_are_given_those_and_no_partition_is_left_out() -> None:
    """Case P10: one group, two configurations with different scenarios."""
    members = {"a": Member("shop", "video"), "b": Member("shop", "news"), "c": Member("news")}
    given = transport.SameNumberTogether.assign(Cluster(shop=4, video=4, news=4), members)
    by_member = {name: dict(each.assignment) for name, each in given.items()}
    assert {name: set(share) for name, share in by_member.items()} == {
        "a": {"shop", "video"}, "b": {"shop", "news"}, "c": {"news"},
    }  # fmt: skip
    for topic in ("shop", "video", "news"):
        assert sorted(p for share in by_member.values() for p in share.get(topic, [])) == [0, 1, 2, 3]


class NoLedger:
    """Of an application that is never started."""


def test_a_seek_may_take_longer_than_a_request(tmp_path: Path) -> None:
    """DESIGN §5, invariant 3: stock Faust would end the service that reads on, without a word."""

    async def wait() -> None:
        app = transport.make_app(
            "any", broker="127.0.0.1:1", ledger=NoLedger(), records_per_partition=1, coalesce_seconds=0.0, data=tmp_path
        )  # type: ignore[arg-type]
        ours = app.tables.recovery
        assert type(ours) is transport.Recovery
        await ours._wait(asyncio.sleep(0.1), timeout=0.01)
        stock = recovery.Recovery(app, app.tables)
        with pytest.raises(recovery.ServiceStopped):
            await stock._wait(asyncio.sleep(0.1), timeout=0.01)

    asyncio.run(wait())


def test_partitions_that_are_assigned_and_not_yet_sought_bring_nothing(
    broker: str, prefix: str, tmp_path: Path
) -> None:
    """Case E29: of two SERVEs that start at once one waits for records while it is given its partitions anew."""
    topic = f"{prefix}fetched"
    ensure_topics(broker, [Topic(topic, 1, {})], replication=1)

    async def fetch() -> None:
        app = transport.make_app(
            prefix, broker=broker, ledger=NoLedger(), records_per_partition=1, coalesce_seconds=0.0, data=tmp_path
        )  # type: ignore[arg-type]
        partition = TopicPartition(topic, 0)
        thread = app.consumer._thread
        thread._ends = {partition: 0}
        app.consumer.resume_flow()
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=broker, group_id=prefix, auto_offset_reset="none")
        await consumer.start()
        try:
            while not consumer.assignment():
                await asyncio.sleep(0.05)
            assert await thread._fetch_records(consumer, {partition}, 30) == {}
            with pytest.raises(NoOffsetForPartitionError):  # what it brought would have ended the process
                await consumer.getmany(timeout_ms=30_000)
        finally:
            await consumer.stop()
            thread.thread_loop.close()

    asyncio.run(fetch())
