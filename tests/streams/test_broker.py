"""The embedded Kafka: what it keeps, what it refuses, and that it never outlives its owner."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.topics import Topic
from streams.administration import end_offsets, ensure_topics
from streams.broker import EmbeddedBroker, FolderInUse, PortTaken, StartFailed
from streams.kafka_files import free_port
from streams.kafka_process import running_kafka

OWNER = """
import sys, time
from pathlib import Path
from streams.broker import EmbeddedBroker
broker = EmbeddedBroker(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A foreign server on a port that Kafka could have had."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server


def publish(broker: str, topic: str, values: range) -> None:
    producer = Producer({"bootstrap.servers": broker, "acks": "all", "linger.ms": 5})
    for value in values:
        producer.produce(topic, str(value).encode(), partition=0)
    assert producer.flush(30) == 0


def consume(broker: str, topic: str, count: int) -> list[int]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "t", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [int(message.value() or b"-1") for message in consumer.consume(count, timeout=30)]
    finally:
        consumer.close()


def test_acknowledged_records_and_the_address_survive_a_kill_and_a_move_of_the_folder(
    kafka_folder: Path, prefix: str
) -> None:
    kept, early = Topic(f"{prefix}kept", 1, {}), Topic(f"{prefix}early", 1, {})
    broker = EmbeddedBroker(kafka_folder)
    try:
        address = broker.start()
        ensure_topics(address, [kept], replication=1)
        publish(address, kept.name, range(5000))
        os.kill(broker.pid, signal.SIGKILL)
        assert broker.wait(timeout=10)
        assert (broker.running, broker.pid) == (False, 0)
        # Its clients wait for it at its address: it does not come back elsewhere.
        with socket.create_server(("127.0.0.1", int(address.split(":")[1]))), pytest.raises(PortTaken):
            broker.start()
    finally:
        broker.stop()
    moved = kafka_folder.rename(kafka_folder.with_name("moved"))
    try:
        # Who asks for topics while Kafka still starts is served once it has.
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ensure_topics, address, [kept, early], 1, 60)
            with EmbeddedBroker(moved) as again:
                assert again.address == address
                assert asked.result(60) == [early.name]
                assert consume(address, kept.name, 5000) == list(range(5000))
                assert end_offsets(address, [kept.name]) == {(kept.name, 0): 5000}
    finally:
        moved.rename(kafka_folder)


def test_a_kafka_in_use_is_named_by_pid_restarts_in_place_and_is_killed_when_it_hangs(kafka_folder: Path) -> None:
    with EmbeddedBroker(kafka_folder) as broker:
        assert broker.start() == broker.address  # a running one is left alone
        assert running_kafka(kafka_folder) == broker.pid
        # Ctrl-C in a terminal reaches the session's foreground group only.
        assert os.getsid(broker.pid) == broker.pid
        with pytest.raises(
            FolderInUse, match=rf"in use by process {os.getpid()} \(.*choose another data folder"
        ) as used:
            EmbeddedBroker(kafka_folder).start()
        assert used.value.holder == os.getpid()
        process = psutil.Process(broker.pid)
        process.suspend()
        broker.stop(timeout=0.2)
        assert not process.is_running()
        assert running_kafka(kafka_folder) is None


def test_kafka_ends_when_its_owner_is_killed(kafka_folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(kafka_folder)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        kafka = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        _, alive = psutil.wait_procs([kafka], timeout=15)
        assert alive == []
    assert running_kafka(kafka_folder) is None


@pytest.mark.parametrize("hung", [False, True])
def test_a_folder_held_by_a_process_whose_owner_is_gone_is_taken_over(
    tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch, hung: bool
) -> None:
    monkeypatch.setattr("streams.kafka_process.ORPHAN_SECONDS", 0.3)
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        orphan = subprocess.Popen(["sleep", "600"], pass_fds=[lock.fileno()])
        holder = psutil.Process(orphan.pid)
        if hung:
            holder.suspend()
            os.waitpid(orphan.pid, os.WUNTRACED)  # until it stands: before that a SIGTERM would still end it
        json.dump({"owner": [os.getpid(), 0.0], "kafka": [orphan.pid, holder.create_time()]}, lock)
    # The taken port ends this start as soon as the folder is ours.
    with pytest.raises(PortTaken):
        EmbeddedBroker(tmp_path, port=listener.getsockname()[1]).start()
    assert orphan.wait(timeout=5) == -(signal.SIGKILL if hung else signal.SIGTERM)


def test_a_kafka_that_ends_while_it_starts_says_why(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    (records / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=another\n")
    failing = EmbeddedBroker(tmp_path)
    with pytest.raises(
        StartFailed, match=r"ended while it started; its log .*kafka.log ends with: .*node.?id"
    ) as failed:
        failing.start()
    assert failed.value.log == tmp_path / "kafka.log"
    assert not failing.running
    assert running_kafka(tmp_path) is None


def test_a_configured_port_that_is_taken_is_refused_with_its_holder(tmp_path: Path, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(PortTaken, match=rf"port {port} .* is taken by process {os.getpid()} \(") as taken:
        EmbeddedBroker(tmp_path, port=port).start()
    assert (taken.value.port, taken.value.holder) == (port, os.getpid())


def test_an_unstarted_broker_stops_quietly_and_leaves_no_folder(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "never")
    broker.stop()
    assert not (tmp_path / "never").exists()
    assert running_kafka(tmp_path / "never") is None
