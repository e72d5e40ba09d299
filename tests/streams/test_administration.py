"""Topic administration on a real Kafka: made once, contradictions named, unreachable clusters reported in time."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

import streams.kafka_files
from schemas.settings import Kafka, Settings
from schemas.topics import LARGEST_DEAD_LETTER_BYTES, Topic, Topics
from streams.administration import (
    Address,
    BrokerUnreachable,
    PartitionsMismatch,
    TopicRefused,
    advertised_addresses,
    begin_offsets,
    end_offsets,
    ensure_topics,
)
from streams.broker import EmbeddedBroker
from streams.kafka_files import PORTS, port_is_free


def test_every_topic_of_a_configuration_is_made_once(broker: str, prefix: str) -> None:
    topics = Topics(Settings(kafka=Kafka(prefix=prefix, partitions=2))).all()
    names = [topic.name for topic in topics]
    assert sorted(ensure_topics(broker, topics, replication=1)) == sorted(names)
    assert ensure_topics(broker, topics, replication=1) == []
    empty = {(topic.name, partition): 0 for topic in topics for partition in range(topic.partitions)}
    assert end_offsets(broker, names) == empty


@pytest.mark.parametrize("wanted", [2, 4])
def test_another_number_of_partitions_is_an_error_with_both_numbers(broker: str, prefix: str, wanted: int) -> None:
    """Case K9, at the next start."""
    name, untouched = f"{prefix}events.shop", f"{prefix}events.news"
    ensure_topics(broker, [Topic(name, 3, {})], replication=1)
    with pytest.raises(
        PartitionsMismatch, match=f"has 3 partitions, but .* wants {wanted}: set kafka.partitions"
    ) as raised:
        ensure_topics(broker, [Topic(untouched, 1, {}), Topic(name, wanted, {})], replication=1)
    assert (raised.value.topic, raised.value.found, raised.value.wanted) == (name, 3, wanted)
    assert end_offsets(broker, [untouched]) == {}


def test_processes_that_create_at_once_share_the_work(broker: str, prefix: str) -> None:
    topics = [Topic(f"{prefix}{number}", 2, {}) for number in range(8)]
    together = threading.Barrier(3)

    def create(_worker: int) -> list[str]:
        together.wait(timeout=10)
        return ensure_topics(broker, topics, replication=1)

    with ThreadPoolExecutor(3) as pool:
        created = [name for names in pool.map(create, range(3)) for name in names]
    assert sorted(created) == [topic.name for topic in topics]


def test_offsets_tell_where_each_partition_begins_and_ends(broker: str, prefix: str) -> None:
    name = f"{prefix}numbers"
    ensure_topics(broker, [Topic(name, 2, {})], replication=1)
    producer = Producer({"bootstrap.servers": broker})
    for number in range(7):
        producer.produce(name, str(number).encode(), partition=number % 2)
    assert producer.flush(10) == 0
    assert end_offsets(broker, [name, f"{prefix}absent"]) == {(name, 0): 4, (name, 1): 3}
    assert begin_offsets(broker, [name, f"{prefix}absent"]) == {(name, 0): 0, (name, 1): 0}


def test_the_embedded_kafka_takes_the_largest_dead_letter(broker: str, prefix: str) -> None:
    name = f"{prefix}dead-letters"
    ensure_topics(broker, [Topic(name, 1, {"max.message.bytes": str(LARGEST_DEAD_LETTER_BYTES)})], replication=1)
    producer = Producer({"bootstrap.servers": broker, "message.max.bytes": LARGEST_DEAD_LETTER_BYTES})
    producer.produce(name, bytes(LARGEST_DEAD_LETTER_BYTES - 1024))
    assert producer.flush(20) == 0
    assert end_offsets(broker, [name]) == {(name, 0): 1}


def test_the_embedded_kafka_takes_transactions(broker: str, prefix: str) -> None:
    name = f"{prefix}transacted"
    ensure_topics(broker, [Topic(name, 1, {})], replication=1)
    producer = Producer({"bootstrap.servers": broker, "transactional.id": prefix})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(name, b"1")
    producer.commit_transaction(20)
    # The record, and the marker that says that its transaction was committed.
    # The marker of a commit is written just after the commit was answered.
    deadline = time.monotonic() + 20
    while end_offsets(broker, [name]) != {(name, 0): 2}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_the_cluster_refuses_is_named_with_its_reason(broker: str, prefix: str) -> None:
    with pytest.raises(TopicRefused, match="contains one or more characters other than ASCII") as refused:
        ensure_topics(broker, [Topic(f"{prefix} ", 1, {})], replication=1)
    assert refused.value.topic == f"{prefix} "
    with pytest.raises(TopicRefused, match=r"replication factor of 3 cannot be reached because only 1 broker"):
        ensure_topics(broker, [Topic(f"{prefix}thrice", 1, {})], replication=3, timeout=0.5)


def test_an_absent_broker_is_reported_in_time() -> None:
    port = next(port for port in PORTS if port_is_free(port))
    with pytest.raises(BrokerUnreachable, match=rf"127\.0\.0\.1:{port} cannot be used: .*refused") as unreachable:
        ensure_topics(f"127.0.0.1:{port}", [], replication=1, timeout=0.3)
    assert unreachable.value.address == f"127.0.0.1:{port}"


def test_one_reachable_broker_of_several_is_enough(broker: str) -> None:
    port = next(port for port in PORTS if port_is_free(port))
    assert end_offsets(f"127.0.0.1:{port},{broker}", []) == {}


def test_a_broker_that_advertises_an_unreachable_address_is_reported_with_both(
    kafka_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Case K13: the bootstrap address answers, and then names a host that does not exist.
    wrong = streams.kafka_files.PROPERTIES.replace(
        "advertised.listeners=PLAINTEXT://{host}:", "advertised.listeners=PLAINTEXT://kafka-0.invalid:"
    )
    assert wrong != streams.kafka_files.PROPERTIES
    monkeypatch.setattr(streams.kafka_files, "PROPERTIES", wrong)
    with EmbeddedBroker(kafka_folder) as misled:
        port = Address.parse(misled.address).port
        assert advertised_addresses(Address.parse(misled.address)) == [Address("kafka-0.invalid", port)]
        with pytest.raises(BrokerUnreachable) as unreachable:
            ensure_topics(misled.address, [Topic("t", 1, {})], replication=1, timeout=1)
        assert misled.address in str(unreachable.value)
        assert f"kafka-0.invalid:{port}" in str(unreachable.value)


def test_a_server_that_is_no_kafka_is_said_to_be_none(postgres: str) -> None:
    host_and_port = postgres.rpartition("@")[2].partition("/")[0]
    with pytest.raises(BrokerUnreachable, match=r"does not speak Kafka|reset|closed"):
        end_offsets(host_and_port, [], timeout=0.1)


@given(st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True), st.integers(1, 65535))
def test_an_address_reads_back_as_it_was_written(host: str, port: int) -> None:
    assert Address.parse(str(Address(host, port))) == (host, port)
    assert Address.parse(host) == (host, 9092)


@pytest.mark.parametrize("text", ["", ":1", "host:", "host:x", "host:0", "host:65536", "a:1,,b:2"])
def test_a_broker_that_is_not_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(BrokerUnreachable, match="written as host:port"):
        ensure_topics(text, [], replication=1, timeout=0.1)
