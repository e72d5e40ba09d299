"""Status: how far each process has come, from the database and the broker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, TypedDict

from schemas.settings import Settings
from schemas.topics import Topics
from streams.administration import TIMEOUT_SECONDS, end_offsets
from streams.history import History
from streams.store import Store

# "recall@10" is no Python name, so this one is spelt as a call.
ModelStatus = TypedDict(
    "ModelStatus",
    {
        "version": int,
        "step": int,
        "age_seconds": float | None,
        "recall@10": float | None,
        "good": int | None,
        "restores": int | None,
    },
)
"""`good` is the newest version that was found good; `restores` the earlier one that is served again, if one is."""


class PartitionStatus(TypedDict):
    """`position` is where the reader's effects are durable; None before it has begun."""

    end: int
    position: int | None
    lag: int


class ScenarioStatus(TypedDict):
    """One scenario.

    `events` counts distinct source records that were applied, `examples` those that were learnt from, `lag` the records
    of its events topic that SERVE has not committed yet, `learning_lag` the examples that LEARN has not learnt yet,
    `learning` whether it learns, "on" or "paused", `index` the fields of an `index.policy.Report`; None before SERVE
    has said how its index stands.
    """

    events: int
    duplicates: int
    examples: int
    lag: int
    learning_lag: int
    learning: str
    model: ModelStatus
    index: dict[str, Any] | None
    dead_letters: dict[str, int]
    counts: dict[str, int]


class ProcessStatus(TypedDict):
    """SERVE or LEARN, of which any number may run.

    `heard_at` is when one of them wrote down a measurement last, epoch seconds, None if that is more than an hour ago;
    `silent` whether that is longer ago than it should be; `model_age_seconds` the age of the oldest weights in use.
    """

    heard_at: float | None
    silent: bool
    model_age_seconds: float | None


class Status(TypedDict):
    """The whole system at one moment."""

    processes: dict[str, ProcessStatus]
    scenarios: dict[str, ScenarioStatus]
    topics: dict[str, dict[str, PartitionStatus]]
    dead_letters: dict[str, int]


DEAD = "dead:"

SILENT_SECONDS = 30.0
"""Both measure every five seconds; who has written nothing for so long does not run, or stands still."""
HEARD_BY = {"serve": "lag", "learn": "learning_lag"}


def read_processes(settings: Settings, store: Store, history: History) -> dict[str, ProcessStatus]:
    """How SERVE and LEARN were heard last, as the database says."""
    now = time.time()
    newest = history.newest(tuple(settings.scenarios), tuple(HEARD_BY.values()), now - 3600)
    ages = [now - head.published_at for name, head in store.heads().items() if name in settings.scenarios]
    found: dict[str, ProcessStatus] = {}
    for process, signal in HEARD_BY.items():
        heard = max((points[signal].at for points in newest.values() if signal in points), default=None)
        found[process] = {
            "heard_at": heard,
            "silent": heard is None or now - heard > SILENT_SECONDS,
            "model_age_seconds": max(0.0, round(max(ages), 3)) if ages else None,
        }
    return found


def read_scenarios(settings: Settings, store: Store) -> dict[str, ScenarioStatus]:
    """What the database alone says; `lag` is filled in by `read_status`, which asks the broker too."""
    topics, tallies, heads, now = Topics(settings), store.tallies(), store.heads(), time.time()
    indexes, stances = store.indexes(), History(store.engine).stances()
    found: dict[str, ScenarioStatus] = {}
    for name in settings.scenarios:
        counts = {code: count for (topic, code), count in tallies.items() if topic == topics.events(name)}
        head, stance = heads.get(name), stances.get(name)
        examples = head.examples if head else 0
        found[name] = {
            "events": counts.get("events", 0),
            "duplicates": counts.get("duplicates", 0),
            "examples": examples,
            "lag": 0,
            "learning_lag": max(0, counts.get("events", 0) - examples),
            "learning": stance.learning if stance else "on",
            "model": {
                "version": head.version if head else 0,
                "step": head.step if head else 0,
                "age_seconds": max(0.0, round(now - head.published_at, 3)) if head else None,
                "recall@10": head.recall if head else None,
                "good": stance.good if stance else None,
                "restores": stance.restores if stance else None,
            },
            "index": indexes.get(name),
            "dead_letters": _dead(counts),
            "counts": {code: n for code, n in counts.items() if not code.startswith(DEAD) and code != "events"},
        }
    return found


def read_status(
    settings: Settings, broker: str, serve: Store, learn: Store, *, timeout: float = TIMEOUT_SECONDS
) -> Status:
    """Ask database and broker. `serve` and `learn` are stores of those applications' names.

    Raises:
        BrokerUnreachable: the broker does not answer.
    """
    topics, scenarios = Topics(settings), read_scenarios(settings, serve)
    read_by_serve = [*(topics.events(name) for name in settings.scenarios), topics.requests]
    read_by_learn = [*(topics.examples(name) for name in settings.scenarios), topics.items]
    ends = end_offsets(broker, [*read_by_serve, *read_by_learn], timeout)
    positions = {**serve.positions(), **learn.positions()}
    by_topic: dict[str, dict[str, PartitionStatus]] = {}
    for (topic, partition), end in sorted(ends.items()):
        stored = positions.get((topic, partition))
        position = stored.next if stored else None
        by_topic.setdefault(topic, {})[str(partition)] = {
            "end": end,
            "position": position,
            "lag": max(0, end - (position or 0)),
        }
    for name, scenario in scenarios.items():
        scenario["lag"] = sum(each["lag"] for each in by_topic.get(topics.events(name), {}).values())
    dead: dict[str, int] = {}
    for (_, code), count in serve.tallies().items():
        if code.startswith(DEAD):
            dead[code.removeprefix(DEAD)] = dead.get(code.removeprefix(DEAD), 0) + count
    processes = read_processes(settings, serve, History(serve.engine))
    return {"processes": processes, "scenarios": scenarios, "topics": by_topic, "dead_letters": dead}


def _dead(counts: Mapping[str, int]) -> dict[str, int]:
    return {code.removeprefix(DEAD): count for code, count in counts.items() if code.startswith(DEAD)}
