"""SERVE starts again: from its snapshot and what was published since, or from the topics where there is none of use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from schemas.recommendations import Recommendation
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.following import snapshot_file
from streams.worker import EXIT_TRY_AGAIN
from tests.system.installation import Installation, until

STARTED = re.compile(r"started from a snapshot of (\d+) items, (\d+) s old; (\d+) records read since")


def ids(recommendation: Recommendation) -> set[str]:
    return {item.item_id for item in recommendation.items}


def known(system: Installation, names: set[str]) -> Recommendation:
    """The answer that holds exactly these."""
    found: Recommendation = until(
        lambda: answer if ids(answer := system.answer("shop", "ann", k=100)) == names else None, f"all of {names}"
    )
    return found


@pytest.fixture
def system(alone: Installation) -> Installation:
    """SERVE and LEARN, with eight items that a snapshot holds."""
    for number in range(8):
        alone.item(f"i{number}", f"Thing number {number}", categories=["thing"])
    alone.flush()
    alone.start("learn")
    alone.start("serve", HEADSTREAM_SERVE_SNAPSHOT_SECONDS="1")
    known(alone, {f"i{number}" for number in range(8)})
    until(lambda: "wrote a snapshot of 8 items" in alone.log("serve"), "a snapshot is written")
    return alone


def test_serve_starts_from_its_snapshot_and_answers_with_what_was_published_while_it_was_down(
    system: Installation,
) -> None:
    system.event("shop", "bob", "i1")
    system.flush()
    until(lambda: system.scenarios()["shop"]["examples"] == 1, "the event is learnt")
    version = system.scenarios()["shop"]["model"]["version"]
    system.kill("serve")
    system.item("new", "A thing that was not there", categories=["thing"])
    system.item("i0", "Thing number 0", categories=["thing"], hidden=True)
    system.send(system.topics.items, None, "i1")
    system.item("i2", "Thing number 2", categories=["other"])
    system.flush()
    until(lambda: any(each.key() == b"new" for each in system.records(system.topics.vectors)), "its vector is there")
    system.start("serve", "again")
    answer = known(system, {"new", *(f"i{number}" for number in range(2, 8))})
    assert answer.model.version >= version
    assert ids(system.similar("shop", "new", k=100, categories=["thing"])) == {f"i{number}" for number in range(3, 8)}
    assert ids(system.similar("shop", "i1")) == set()
    found = STARTED.search(system.log("again"))
    assert found is not None
    assert (found[1], int(found[3]) >= 4) == ("8", True)
    assert "Traceback" not in system.log("again")


def test_a_clean_stop_leaves_a_snapshot_of_all_that_was_known(system: Installation) -> None:
    system.item("late", "The last thing", categories=["thing"])
    system.flush()
    everything = {"late", *(f"i{number}" for number in range(8))}
    known(system, everything)
    assert system.stop("serve") == 0
    system.start("serve", "again")
    known(system, everything)
    found = STARTED.search(system.log("again"))
    assert found is not None
    assert found[1] == "9"


def test_a_damaged_snapshot_is_named_and_the_topics_are_read_in_its_place(system: Installation) -> None:
    system.kill("serve")
    file = snapshot_file(system.settings)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    system.start("serve", "again")
    known(system, {f"i{number}" for number in range(8)})
    assert f"the snapshot {file} is not used: it has SHA-256" in system.log("again")
    assert "the topics are read from their start" in system.log("again")
    until(lambda: "wrote a snapshot of 8 items" in system.log("again"), "the next one is written at once")


def test_topics_that_were_made_anew_end_the_process_and_nothing_of_the_old_ones_comes_back(
    system: Installation,
) -> None:
    system.stop("learn")
    broker, topics = system.broker, Topics(system.settings)
    client = AdminClient({"bootstrap.servers": broker})
    anew = [each for each in topics.all() if each.name in (topics.items, topics.vectors, topics.weights)]
    for deleted in client.delete_topics([each.name for each in anew]).values():
        deleted.result(20)
    ensure_topics(broker, anew, replication=1)
    process = system.processes["serve"]
    assert until(lambda: process.poll() is not None, "SERVE ends") and process.wait() == EXIT_TRY_AGAIN
    del system.processes["serve"]
    assert "was deleted and made anew: starting again, with what it holds now" in system.log("serve")
    system.start("serve", "again")
    assert ids(system.answer("shop", "ann", k=100)) == set()
    assert f"topic {topics.items} = " in system.log("again")


def test_a_topic_that_was_made_anew_and_is_longer_than_the_one_before_is_noticed_too(alone: Installation) -> None:
    """Case K8, of a topic that is read without a group: its offsets go on, and nothing but its id tells."""
    broker, topics = alone.broker, Topics(alone.settings)
    for number in range(8):
        alone.item(f"i{number}", f"Thing number {number}")
    alone.flush()
    alone.start("serve")
    alone.answer("shop", "ann")
    client = AdminClient({"bootstrap.servers": broker})
    client.delete_topics([topics.items])[topics.items].result(20)
    ensure_topics(broker, topics.all(), replication=1)
    for number in range(100):
        alone.item(f"j{number}", f"Another thing, number {number}")
    alone.flush()
    process = alone.processes["serve"]
    assert until(lambda: process.poll() is not None, "SERVE ends", 60) and process.wait() == EXIT_TRY_AGAIN
    assert f"topic {topics.items} was deleted and made anew: starting again" in alone.log("serve")


def test_several_processes_share_a_data_folder(system: Installation, tmp_path: Path) -> None:
    system.start("serve", "second", HEADSTREAM_SERVE_SNAPSHOT_SECONDS="1")
    system.item("i8", "Thing number 8")
    system.flush()
    for name in ("serve", "second"):
        until(lambda name=name: "wrote a snapshot of 9 items" in system.log(name), f"{name} writes")
    left = {each.name for each in (tmp_path / "serve").iterdir()}
    assert snapshot_file(system.settings).name in left
    assert STARTED.search(system.log("second"))
