"""Every event counts exactly once, whatever is killed, restarted, joined or left (DESIGN §5, invariants 1 to 3)."""

from __future__ import annotations

from collections import Counter

from schemas.packed import unpack, unpack_times
from tests.system.installation import Installation, until

EVENTS = 6000
USERS = 150


def publish(installation: Installation, numbers: range) -> None:
    for number in numbers:
        scenario = ("shop", "video")[number % 2]
        installation.event(scenario, f"u{number % USERS}", f"i{number % 97}", timestamp=1_700_000_000 + number)
    installation.flush()


def events(installation: Installation) -> int:
    return sum(each["events"] for each in installation.scenarios().values())


def examples(installation: Installation) -> int:
    return sum(each["examples"] for each in installation.scenarios().values())


def test_kills_joins_and_leaves_lose_nothing_and_count_nothing_twice(composed: Installation) -> None:
    """Case S21, on PostgreSQL, with the compose file's commands and environment; `test_up.py` has it on SQLite."""
    installation = composed
    installation.start("serve")
    installation.start("learn")
    publish(installation, range(EVENTS // 2))
    until(lambda: events(installation) > 200, "SERVE works")
    installation.kill("serve")
    installation.start("serve")
    until(lambda: examples(installation) > 200, "LEARN works")
    installation.kill("learn")
    installation.start("learn")
    installation.start("serve", "second serve")
    publish(installation, range(EVENTS // 2, EVENTS))
    until(lambda: "reading" in installation.log("second serve"), "the second SERVE has joined")
    until(lambda: events(installation) > EVENTS // 2, "both go on")
    assert installation.stop("second serve") == 0
    until(lambda: events(installation) >= EVENTS, "all events are applied")
    until(lambda: examples(installation) >= EVENTS, "all examples are learnt")
    status = installation.status()
    assert [status["scenarios"][name]["events"] for name in ("shop", "video")] == [EVENTS // 2, EVENTS // 2]
    assert [status["scenarios"][name]["examples"] for name in ("shop", "video")] == [EVENTS // 2, EVENTS // 2]
    assert sum(each["lag"] for each in status["scenarios"].values()) == 0
    for name in ("shop", "video"):
        sources = {(example.partition, example.offset) for example in installation.examples(name)}
        assert len(sources) == EVENTS // 2
        assert len({each.recommendation_id for each in installation.recommendations(name)}) == len(
            {(each.trigger.partition, each.trigger.offset) for each in installation.recommendations(name)}
        )


def test_the_history_of_an_example_is_what_stood_before_the_event(alone: Installation) -> None:
    installation = alone
    installation.start("serve")
    # No key for some records: a user's events then lie in several partitions, and none may be lost for that.
    for number in range(400):
        scenario = ("shop", "video", "news")[number % 3]
        body = {"user_id": f"u{number % 5}", "item_id": f"i{number}", "event": "view"}
        installation.send(installation.topics.events(scenario), body, None if number % 2 else f"u{number % 5}")
    installation.flush()
    until(lambda: events(installation) == 400, "all events are applied")
    first_seen = {}
    for name in ("shop", "video", "news"):
        for example in installation.examples(name):
            first_seen.setdefault((name, example.partition, example.offset), example)
    assert len(first_seen) == 400
    targets = Counter((example.user_id, example.item_id) for example in first_seen.values())
    assert set(targets.values()) == {1}
    for example in first_seen.values():
        history = unpack(example.history)
        assert example.item_id not in history
        assert len(set(history)) == len(history)
        assert len(history) == len(unpack_times(example.history_times))
    # Each user's state grew by one event at a time: the lengths of the histories are 0, 1, 2 … up to the cap.
    for user in range(5):
        lengths = sorted(len(unpack(e.history)) for e in first_seen.values() if e.user_id == f"u{user}")
        assert lengths == [min(number, 20) for number in range(80)]
