"""An erasure is carried out whole and once, whoever is killed in the middle of it and whatever is published meanwhile.

DESIGN §5, invariants 1 and 2.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from learner.erased import holds_user
from schemas.failpoints import FOLDER_VARIABLE, Failpoint
from schemas.packed import unpack
from streams.store import Store, database_url, open_engine
from streams.users import read_user
from tests.system.installation import Installation, until

GONE = "ada-of-the-erased-7391"
ITEMS = [f"thing-{number}" for number in range(16)]
PAST = 6

KILLED_AT: tuple[tuple[str, Failpoint], ...] = (
    ("serve", "erasure.commit"),
    ("serve", "erasure.committed"),
    ("learn", "erasure.forgotten"),
    ("learn", "erasure.written"),
    ("learn", "erasure.moved"),
)


@pytest.fixture
def failpoints(tmp_path: Path) -> Path:
    folder = tmp_path / "failpoints"
    folder.mkdir()
    return folder


def start(system: Installation, failpoints: Path, name: str) -> None:
    more = {FOLDER_VARIABLE: str(failpoints), "HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "1"}
    system.start(name, **more)


@contextmanager
def traffic(system: Installation) -> Iterator[Counter[str]]:
    """Events of others flow while the context lasts; yields how many of each user were sent."""
    sent: Counter[str] = Counter()
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.05):
            user = f"other-{sent.total() % 7}"
            system.event("shop", user, ITEMS[sent[user] % len(ITEMS)])
            sent[user] += 1

    thread = threading.Thread(target=publish, name="traffic")
    thread.start()
    try:
        yield sent
    finally:
        stop.set()
        thread.join()
        system.flush()


def history(store: Store, user: str) -> list[str]:
    found = store.load_users([user])
    return unpack(read_user(found[user].state).items) if found else []


def test_whoever_is_killed_and_whatever_comes_an_erasure_is_whole_and_counted_once(
    alone: Installation, failpoints: Path
) -> None:
    system = alone
    for name in ("learn", "serve"):
        start(system, failpoints, name)
    store = Store(open_engine(database_url(system.settings)), f"{system.settings.kafka.prefix}learn", "test")
    for number in range(PAST):
        system.event("shop", GONE, ITEMS[number])
    system.flush()
    with traffic(system) as sent:
        until(lambda: system.scenarios()["shop"]["examples"] > 3 * PAST, "examples are learnt")
        system.command("promote", "shop", "--reason", "a version to go back to")
        before = {each.number for each in store.checkpoints()}
        assert any(holds_user(Path(each.folder), GONE) for each in store.checkpoints())
        for _, failpoint in KILLED_AT:
            (failpoints / failpoint).write_text("kill")
        erasure = json.loads(system.command("erase", GONE, "--no-wait", "--json"))["erasure_id"]
        deaths: Counter[str] = Counter()

        def dead() -> str | None:
            return next((name for name, process in system.processes.items() if process.poll() is not None), None)

        while deaths.total() < len(KILLED_AT):
            name = until(dead, f"a process is killed after {deaths}")
            assert system.processes.pop(name).returncode == -9
            deaths[name] += 1
            start(system, failpoints, name)
        assert deaths == {"serve": 2, "learn": 3}

        # The same user begins anew while the rest of the erasure is carried out, and goes on after it.
        until(lambda: (system.receipt(erasure)).parts["serve"] is not None, "SERVE is through")
        for number in range(10, 16):
            system.event("shop", GONE, ITEMS[number])
        system.flush()
        until(lambda: system.receipt(erasure).status == "done", "LEARN is through")
        kept = {each.number: Path(each.folder) for each in store.checkpoints()}
        assert before & kept.keys()  # that of the version to go back to
        assert not any(holds_user(kept[number], GONE) for number in before & kept.keys())
    found = system.receipt(erasure)
    places = ("user states", "history", "lists")
    assert {place: found.removed[place] for place in places} == {"user states": 1, "history": PAST, "lists": 1}
    assert found.removed["replay rows"] + found.removed["probe rows"] == PAST
    assert found.removed["checkpoints"] >= 1
    until(lambda: system.scenarios()["shop"]["examples"] == sent.total() + PAST + 6, "all examples are learnt")
    assert system.scenarios()["shop"]["events"] == sent.total() + PAST + 6
    assert history(store, GONE) == ITEMS[10:16]
    sources = {(each.partition, each.offset): each for each in system.examples("shop")}
    assert Counter(each.user_id for each in sources.values()) == sent + Counter({GONE: PAST + 6})
    begun = [each for each in sources.values() if each.user_id == GONE and each.item_id in ITEMS[10:]]
    assert all(set(unpack(each.history)) <= set(ITEMS[10:]) for each in begun)
    assert system.receipt(erasure) == found
    store.close()
