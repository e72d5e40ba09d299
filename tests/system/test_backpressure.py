"""A producer far too fast: events wait in Kafka and not in memory, count once each, and hold up no other scenario."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from streams.worker import HEAP_KEPT_BYTES
from tests.system.conftest import environment
from tests.system.installation import Installation, until

EVENTS, EVENT_BYTES = 20_000, 10_000
TRAVELLERS = 5
BATCH_RECORDS, PARTITIONS = 50, 4
FETCH_BYTES = 1 << 20
"""Of one partition, which aiokafka holds unless it is told otherwise."""

IN_FLIGHT_RECORDS = 3 * BATCH_RECORDS * PARTITIONS
"""One poll is worked, one waits for it, one is being made."""
IN_FLIGHT_BYTES = IN_FLIGHT_RECORDS * EVENT_BYTES + 2 * PARTITIONS * FETCH_BYTES


@pytest.fixture
def system(broker: str, prefix: str, tmp_path: Path) -> Iterator[Installation]:
    more = {
        "HEADSTREAM_SERVE_BATCH_RECORDS": str(BATCH_RECORDS),
        "HEADSTREAM_KAFKA_PARTITIONS": str(PARTITIONS),
        "HEADSTREAM_SERVE_CACHED_USERS": "500",
    }
    made = Installation(tmp_path, environment(broker, prefix, tmp_path) | more)
    made.start("serve")
    yield made
    made.close()


@contextmanager
def most_memory(process: psutil.Process) -> Iterator[list[int]]:
    """Resident bytes: at first and at most."""
    seen = [process.memory_info().rss] * 2
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            seen[1] = max(seen[1], process.memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        stop.set()
        looking.join()


def flood(system: Installation, first: int, count: int) -> None:
    """Large events of as many users, as fast as Kafka takes them; what makes them large is not ours to keep."""
    padding = "x" * EVENT_BYTES
    for number in range(first, first + count):
        system.event("social", f"u{number}", f"i{number % 97}", padding=padding)
    system.flush()


def events(system: Installation, scenario: str) -> int:
    return system.scenarios()[scenario]["events"]


def times(system: Installation, topic: str) -> list[int]:
    """When each record of a topic was made; milliseconds."""
    return [record.timestamp()[1] for record in system.records(topic)]


def test_a_flood_waits_in_kafka_counts_once_and_lets_others_through(system: Installation) -> None:
    """DESIGN §5, invariants 1, 7 and 10."""
    warm = EVENTS // 10
    flood(system, 0, warm)
    until(lambda: events(system, "social") == warm, "caches and heap are as full as they get")
    with most_memory(psutil.Process(system.processes["serve"].pid)) as memory:
        flood(system, warm, EVENTS)
        assert warm + EVENTS - events(system, "social") > IN_FLIGHT_RECORDS  # it was too fast
        for number in range(TRAVELLERS):
            system.event("travel", f"traveller-{number}", "i1")
        system.flush()
        until(lambda: events(system, "social") >= warm + EVENTS, "the lag is worked off")
        until(lambda: len(system.recommendations("travel")) == TRAVELLERS, "all travellers are answered")
    assert EVENTS * EVENT_BYTES > 2 * (IN_FLIGHT_BYTES + HEAP_KEPT_BYTES)  # what is measured would be seen
    assert memory[1] - memory[0] < IN_FLIGHT_BYTES + HEAP_KEPT_BYTES
    assert {name: each["events"] for name, each in system.scenarios().items() if each["events"]} == {
        "social": warm + EVENTS,
        "travel": TRAVELLERS,
    }
    sources = [(each.partition, each.offset) for each in system.examples("social")]
    assert len(sources) == len(set(sources)) == warm + EVENTS
    answered = max(times(system, system.topics.recommendations("travel")))
    assert answered < max(times(system, system.topics.examples("social")))  # nobody had to wait for all of the flood
