"""The status in tables: numbers as a person reads them, and nothing for what is not there yet."""

from __future__ import annotations

from dataclasses import asdict
from io import StringIO
from typing import Any

from rich.console import Console

from index.policy import Report
from streams.status import ScenarioStatus, Status
from streams.status_table import print_status

INDEX = asdict(
    Report(
        kind="ivf", why="60,000 items, exact up to 50,000", device="cpu", items=60_000, delta=1_200, gone=0, lists=980,
        probes=30, recall=0.9871, full=False, generation=0, compactions=3, retrained=1, build_seconds=2.0,
        longest_pause_ms=1.0, nbytes=25 << 20,
    )
)  # fmt: skip


def scenario(
    events: int,
    age: float | None,
    recall: float | None,
    dead: dict[str, int],
    index: dict[str, Any] | None = None,
    restores: int | None = None,
) -> ScenarioStatus:
    return {
        "index": index, "learning": "on" if restores is None else "paused",
        "events": events, "duplicates": 0, "examples": events, "lag": 3, "learning_lag": 0,
        "model": {"version": 7, "step": 9, "age_seconds": age, "recall@10": recall, "good": 5, "restores": restores},
        "dead_letters": dead, "counts": {},
    }  # fmt: skip


def printed(found: Status) -> list[list[str]]:
    console = Console(file=StringIO(), width=140)
    print_status(found, console)
    return [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_scenarios_partitions_and_dead_letters_are_printed_and_empty_partitions_only_counted() -> None:
    found = printed(
        {
            "scenarios": {
                "shop": scenario(12_345, 2.4, 0.25, {"not-json": 2, "bad-id": 1}, INDEX),
                "news": scenario(0, None, None, {}, restores=5),
            },
            "topics": {
                "events.shop": {
                    "0": {"end": 12_348, "position": 12_345, "lag": 3},
                    "1": {"end": 0, "position": None, "lag": 0},
                    "2": {"end": 4, "position": None, "lag": 4},
                }
            },
            "processes": {
                "serve": {"heard_at": 1.0, "silent": False, "model_age_seconds": 120.0},
                "learn": {"heard_at": 1.0, "silent": True, "model_age_seconds": 120.0},
            },
            "dead_letters": {"not-json": 2, "bad-id": 1},
        }
    )
    assert found == [
        ["LEARN", "was", "last", "heard", "at", "1970-01-01T00:00:01.000Z;", "lists", "are", "made", "with", "weights",
         "that", "are", "2", "min", "old:", "look", "whether", "it", "runs"],
        ["scenario", "events", "lag", "learnt", "model", "age", "recall@10", "dead", "letters"],
        ["shop", "12,345", "3", "12,345", "v7", "2", "s", "0.250", "3"],
        ["news", "0", "3", "0", "v7", "(v5", "again),", "paused", "-", "-", "0"],
        [],
        ["index", "of", "kind", "items", "not", "in", "lists", "recall", "memory", "why"],
        ["shop", "ivf", "60,000", "1,200", "0.987", "25.0", "MiB", *INDEX["why"].split()],
        [],
        ["topic", "partition", "end", "position", "lag"],
        ["events.shop", "0", "12,348", "12,345", "3"],
        ["events.shop", "2", "4", "-", "4"],
        ["1", "partitions", "are", "empty"],
        ["dead", "letters:", "bad-id", "1,", "not-json", "2"],
    ]  # fmt: skip
