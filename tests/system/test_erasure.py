"""A user is erased from a running installation, and nothing brings that user back."""

from __future__ import annotations

import json
import re
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from learner.erased import holds_user
from tests.system.installation import Installation, until

ITEMS = [f"thing-{number}" for number in range(16)]
GONE, STAYS = "ada-of-the-erased-7391", "bob-who-stays-5120"


def files(system: Installation) -> list[Path]:
    folder = Path(system.settings.data)
    kept = [folder / "headstream.db", folder / "headstream.db-wal"]
    kept += [each for part in ("checkpoints", "serve") for each in (folder / part).rglob("*") if each.is_file()]
    return [each for each in kept if each.exists()]


def ids(system: Installation, user: str) -> list[str]:
    return [item.item_id for item in system.answer("shop", user).items]


def settled_ids(system: Installation, user: str) -> list[str]:
    """Once all that was learnt has reached whichever SERVE answers."""
    step = system.scenarios()["shop"]["model"]["step"]

    def same() -> list[str] | None:
        answers = [system.answer("shop", user) for _ in range(8)]
        lists = {tuple(item.item_id for item in each.items) for each in answers}
        return list(*lists) if len(lists) == 1 and all(each.model.step == step for each in answers) else None

    found: list[str] = until(same, "all that was learnt is served")
    return found


def fetch(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.fixture
def system(alone: Installation) -> Installation:
    for number, name in enumerate(ITEMS):
        alone.item(name, f"Thing number {number}", scenarios=["shop"])
    alone.flush()
    alone.start("learn", HEADSTREAM_LEARN_CHECKPOINT_SECONDS="1")
    alone.start("serve", "serve")
    alone.start("gateway", HEADSTREAM_GATEWAY_PORT="0")
    until(lambda: len(alone.answer("shop", "nobody", k=100).items) == len(ITEMS), "all items are known")
    join(alone, "second")
    return alone


def join(system: Installation, name: str) -> None:
    """Start a further SERVE, and wait until partitions are its own."""
    system.start("serve", name)
    until(lambda: re.search(r"reading [1-9]\d* partitions", system.log(name)), f"{name} has partitions")


def test_an_erased_user_is_nowhere_and_stays_away(system: Installation) -> None:
    before = time.time()
    for number in range(12):
        for user in (GONE, STAYS, f"other-{number}"):
            system.event("shop", user, ITEMS[(number * 5 + len(user)) % 14])
        system.flush()
        time.sleep(0.3)  # rows are written again and again, and checkpoints in between
    system.send(system.topics.events("shop"), {"user_id": GONE, "item_id": ""}, GONE)
    system.flush()
    until(lambda: system.scenarios()["shop"]["examples"] == 36, "all examples are learnt")
    system.command("promote", "shop", "--reason", "a version to go back to")
    url = until(lambda: re.search(r"GATEWAY answers on (\S+)", system.log("gateway")), "GATEWAY answers")[1]
    assert fetch(f"{url}/api/users/{GONE}")[0] == 200
    assert len(fetch(f"{url}/api/dead-letters")[1]["letters"]) == 1  # type: ignore[arg-type]
    folders = [each.parent for each in files(system) if each.name == "manifest.json"]
    assert any(holds_user(each, GONE) for each in folders)
    kept = settled_ids(system, STAYS)

    receipt = json.loads(system.command("erase", GONE, "--reason", "a test", "--json", "--timeout", "25"))
    assert (receipt["status"], receipt["reason"]) == ("done", "a test")
    assert {place: receipt["removed"][place] for place in ("user states", "history", "lists")} == {
        "user states": 1, "history": 12, "lists": 1,
    }  # fmt: skip
    assert receipt["removed"]["replay rows"] + receipt["removed"]["probe rows"] == 12
    assert receipt["removed"]["checkpoints"] >= 1
    assert {each["topic"] for each in receipt["held"]} >= {system.topics.events("shop"), system.topics.erasures}
    assert all(each["until"] > time.time() for each in receipt["held"])
    assert fetch(f"{url}/api/erasures/{receipt['erasure_id']}")[1]["status"] == "done"
    assert fetch(f"{url}/api/erasures/nothing")[0] == 404

    def nowhere() -> None:
        for each in files(system):
            with suppress(FileNotFoundError):  # LEARN goes on making checkpoints, and lets older ones go
                assert GONE.encode() not in each.read_bytes(), each
        for folder in (each.parent for each in files(system) if each.name == "manifest.json"):
            if folder.suffix == "" and folder.exists():
                assert not holds_user(folder, GONE), folder

    nowhere()
    assert fetch(f"{url}/api/users/{GONE}")[0] == 404
    assert fetch(f"{url}/api/dead-letters")[1]["letters"] == []
    latest = fetch(f"{url}/api/latest/shop?limit=200")[1]["lists"]
    assert GONE not in {each["user_id"] for each in latest}  # type: ignore[attr-defined]
    assert {item.source for item in system.answer("shop", GONE).items} <= {"popular", "fresh"}
    assert sorted(ids(system, STAYS)) == sorted(kept)  # what is learnt meanwhile may change their order

    # All start again, one of them from a kill; what is published of the past once more is refused, wherever it comes.
    for name in ("serve", "second", "learn"):
        system.kill(name)
    system.start("learn", HEADSTREAM_LEARN_CHECKPOINT_SECONDS="1")
    join(system, "again")
    join(system, "second again")
    for partition in range(system.settings.kafka.partitions):
        past = {"user_id": GONE, "item_id": ITEMS[1], "event": "click", "timestamp": before + partition}
        system.send(system.topics.events("shop"), past, None, partition=partition)
    # A record that could not be taken, and is read again or so late, is no new dead letter.
    bad = {"user_id": GONE, "item_id": ""}
    system.send(system.topics.events("shop"), bad, GONE, timestamp=round(before * 1000))
    system.flush()
    until(lambda: system.scenarios()["shop"]["counts"].get("erased") == 5, "the past is refused")
    assert len(system.records(system.topics.dead_letters)) == 1
    assert {item.source for item in system.answer("shop", GONE).items} <= {"popular", "fresh"}
    assert sorted(ids(system, STAYS)) == sorted(kept)  # what is learnt meanwhile may change their order
    nowhere()

    # A new past begins, and a rollback does not bring the old one.
    system.event("shop", GONE, ITEMS[2])
    system.flush()
    until(lambda: system.scenarios()["shop"]["examples"] == 37, "the new event is learnt")
    status, found = fetch(f"{url}/api/users/{GONE}")
    assert (status, [each["item_id"] for each in found["history"]]) == (200, [ITEMS[2]])  # type: ignore[attr-defined]
    shown = system.command("erase", GONE)
    assert "done" in shown and "user states" in shown and "Kafka still holds" in shown
    system.command("rollback", "shop", "--reason", "a test")
    nowhere()
    for name in ("serve", "second", "again", "second again", "learn", "gateway"):
        assert GONE not in system.log(name) and "Traceback" not in system.log(name)
