"""LEARN cannot write its checkpoints, and somebody holds the database's lock: nothing is lost, and it is said.

The tests share one system, in this order.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from streams.store import Partition, Store, database_url, open_engine
from tests.system.conftest import environment
from tests.system.installation import Installation, until

INTERVALS = 3
USERS, ITEMS = 20, 10


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    data = tmp_path_factory.mktemp("held-up")
    more = {
        "HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "1",
        "HEADSTREAM_GATEWAY_PORT": "0",
    }
    made = Installation(data, environment(broker, "held-up.", data) | more)
    try:
        for name in ("serve", "learn", "gateway"):
            made.start(name)
        for number in range(ITEMS):
            made.item(f"i{number}", f"Thing number {number}")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def learnt(system: Installation) -> Iterator[Store]:
    """What the database says of LEARN."""
    system.scenarios()  # makes its tables, if nobody has yet
    found = Store(open_engine(database_url(system.settings)), f"{system.settings.kafka.prefix}learn", "test")
    yield found
    found.close()


def send(system: Installation, first: int, count: int) -> int:
    """Events of numbered ids; returns how many there are by now."""
    for number in range(first, first + count):
        system.event("shop", f"u{number % USERS}", f"i{number % ITEMS}", event_id=str(number))
    system.flush()
    return first + count


def counted(system: Installation) -> tuple[int, int]:
    shop = system.scenarios()["shop"]
    return shop["events"], shop["examples"]


def test_offsets_do_not_move_without_a_checkpoint_and_checkpoints_resume_once_there_is_a_place_for_them(
    system: Installation, learnt: Store
) -> None:
    """DESIGN §5, invariant 1."""
    key: Partition = (system.topics.examples("shop"), 0)

    def durable() -> int:
        found = learnt.positions().get(key)
        return 0 if found is None else found.next or 0

    def failures() -> int:
        address = re.findall(r"metrics are at (\S+)", system.log("learn"))[-1]
        return int(float(re.findall(r"(?m)^headstream_checkpoint_failures_total (\S+)", httpx.get(address).text)[0]))

    sent = send(system, 0, 50)
    until(lambda: durable() == sent, "a checkpoint covers all of it")
    folder = Path(system.settings.data) / "checkpoints"
    folder.rename(aside := folder.with_name("aside"))
    folder.touch()  # nothing can be written below it
    before, kept = durable(), [each.number for each in learnt.checkpoints()]
    for interval in range(INTERVALS):
        sent = send(system, sent, 50)
        until(lambda sent=sent: counted(system) == (sent, sent), "learning goes on")
        until(lambda interval=interval: failures() > interval, "a checkpoint was tried")
    assert (durable(), [each.number for each in learnt.checkpoints()]) == (before, kept)
    folder.unlink()
    aside.rename(folder)
    until(lambda: durable() == sent, "the next checkpoint covers all of it")
    assert learnt.checkpoints()[0].number == kept[0] + 1
    assert "the checkpoint could not be written, offsets stay where they were" in system.log("learn")


def test_a_lock_that_another_process_holds_for_half_a_minute_costs_no_event(system: Installation) -> None:
    """DESIGN §5, invariants 1 and 3."""
    url = until(lambda: re.search(r"GATEWAY answers on (\S+)", system.log("gateway")), "GATEWAY answers")[1]
    sent = counted(system)[0]
    path = database_url(system.settings).removeprefix("sqlite:///")
    with httpx.Client(base_url=url, timeout=30) as client:

        def degraded() -> set[str]:
            said: dict[str, Any] = client.get("/ready").json()
            return {each["part"] for each in said.get("degraded", [])}

        until(lambda: client.get("/ready").json() == {"status": "ready"}, "all is well")
        holder = sqlite3.connect(path, isolation_level=None, timeout=60)
        holder.execute("BEGIN IMMEDIATE")
        try:
            sent = send(system, sent, 100)
            until(lambda: degraded() == {"serve", "learn"}, "it is said that neither can write", 60)
        finally:
            holder.execute("ROLLBACK")
            holder.close()
        until(lambda: counted(system)[1] >= sent, "all is learnt")
        assert counted(system) == (sent, sent)
        until(lambda: degraded() == set(), "all is well again")
    for name in ("serve", "learn"):
        assert "the database fails (for 0 s, at most 300 s are waited): database is locked" in system.log(name)
        assert "the database works again, after" in system.log(name)
        assert system.processes[name].poll() is None
