"""Versions of a scenario: what can be rolled back to, what changed between them, and the orders that one may give."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request

from schemas.signals import NOTHING, SIGNALS, say_number
from schemas.tables import Version
from streams.gateway.gateway import Gateway
from streams.gateway.overview import ScenarioSummary
from streams.gateway.overview_page import STATES
from streams.gateway.scenario_page import read_summary
from streams.gateway.series import DEFAULT_RANGE
from streams.gateway.words import counted

ORDERS_SHOWN = 12
METRICS_FIRST = ("recall@10", "ndcg@10", "click_rate", "log_loss")
COUNTS = {"examples": "Examples", "tested": "Tests", "hits": "Hits"}
"""Metrics of a version that count from the beginning; the signal of the same name is a rate."""


@dataclass(frozen=True)
class Kept:
    """A version that is kept, and how it differs from the one that was kept before it.

    Attributes:
        metrics: what is shown of each, and whether it is better (1), worse (-1) or neither (0) than before.
        changed: in a few words.
    """

    version: Version
    metrics: dict[str, tuple[str, int]]
    changed: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Order:
    """A dialog: what would be ordered, and exactly what will happen.

    Attributes:
        will: sentences, in the order in which it happens.
        why_not: why it cannot be ordered now; "" where it can.
    """

    action: str
    says: str
    title: str
    will: tuple[str, ...]
    why_not: str = ""
    choices: list[Kept] = field(default_factory=list)


def read(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    name = gateway.check_scenario(request.path_params["scenario"])
    summary = read_summary(gateway, name, DEFAULT_RANGE)
    versions = gateway.history.versions(name)
    kept = kept_versions(versions, summary)
    return {
        "name": name,
        "summary": summary,
        "states": STATES,
        "served": served_version(summary),
        "kept": kept,
        "metrics": list(kept[0].metrics) if kept else [],
        "orders": orders(name, summary, kept),
        "choices_say": choices_say,
        "metric_title": metric_title,
        "performed": gateway.history.actions(name, limit=ORDERS_SHOWN),
        "now": time.time(),
    }


def served_version(summary: ScenarioSummary) -> int | None:
    """The version that people are served: an earlier one that was put back, or the newest."""
    if summary.restores is not None:
        return summary.restores
    return summary.status["model"]["version"] or None


def kept_versions(versions: Sequence[Version], summary: ScenarioSummary) -> list[Kept]:
    """Newest first, each beside the next older one."""
    numbers: list[dict[str, float]] = [msgspec.json.decode(each.metrics, type=dict[str, float]) for each in versions]
    known = {name for each in numbers for name in each}
    names = [*(name for name in METRICS_FIRST if name in known), *sorted(known.difference(METRICS_FIRST))]
    found = []
    for place, (version, own) in enumerate(zip(versions, numbers, strict=True)):
        older = versions[place + 1] if place + 1 < len(versions) else None
        before = numbers[place + 1] if older is not None else {}
        metrics = {name: (_say_metric(name, own.get(name)), _compare(name, own, before)) for name in names}
        found.append(Kept(version, metrics, _changed(version, older, own, before), _tags(version, summary)))
    return found


def _tags(version: Version, summary: ScenarioSummary) -> tuple[str, ...]:
    stance = summary.stance
    tags = []
    if served_version(summary) == version.version:
        tags.append("served")
    if stance is not None and stance.good == version.version:
        tags.append("good")
    return tuple(tags)


def metric_title(name: str) -> str:
    return COUNTS.get(name) or (SIGNALS[name].title if name in SIGNALS else name)


def _say_metric(name: str, value: float | None) -> str:
    if name in SIGNALS and name not in COUNTS:
        return SIGNALS[name].say(value)
    return NOTHING if value is None else f"{value:,.0f}" if value.is_integer() else say_number(value)


def _compare(name: str, own: Mapping[str, float], before: Mapping[str, float]) -> int:
    better = SIGNALS[name].better if name in SIGNALS else "steady"
    if name not in own or name not in before or better == "steady" or own[name] == before[name]:
        return 0
    return 1 if (own[name] > before[name]) == (better == "higher") else -1


def _changed(version: Version, older: Version | None, own: Mapping[str, float], before: Mapping[str, float]) -> str:
    """`2,100 steps later, recall +0.4 points, a new lineage`."""
    if older is None:
        return "the oldest that is kept"
    words = [f"{counted(version.step - older.step, 'step')} later"]
    if "recall@10" in own and "recall@10" in before:
        points = round((own["recall@10"] - before["recall@10"]) * 100, 1)
        words.append(f"recall {points:+.1f} points" if points else "recall as before")
    if version.lineage != older.lineage:
        words.append("a new lineage")
    return ", ".join(words)


def orders(name: str, summary: ScenarioSummary, kept: Sequence[Kept]) -> list[Order]:
    """What may be ordered of a scenario, in the order of buttons; each says what LEARN will do, and no more."""
    stance, served, restores = summary.stance, served_version(summary), summary.restores
    paused = stance is not None and stance.learning == "paused"
    unheard = "LEARN has not said yet how this scenario stands." if stance is None else ""
    serving = f"version {served}" if served is not None else "what is served now"
    held = restores is not None
    choices = [each for each in kept if each.version.version != served]
    return [
        Order(
            "rollback", "Roll back to another…" if held else "Roll back…", f"Roll back {name}", (
                f"Within about two seconds recommendations in {name} come from the chosen version, not from {serving}.",
                "Learning goes back to that version too, and pauses until somebody resumes it.",
                "Heads, item vectors of this scenario and the index change together; no list mixes old and new.",
                "Other scenarios are not touched. Versions in this table are kept, what was learnt since the newest of "
                "them is not.",
            ),
            "" if choices else "No other version has been kept, so there is none to go back to." if kept
            else "No version has passed the gate yet, so there is none to go back to.",
            choices,
        ),
        Order(
            "promote", "Promote…", f"Promote what {name} has learnt", (
                f"What {name} has learnt until now becomes its good version at once, without waiting for the gate.",
                f"It is served in place of version {restores}." if held else "It is served already, and stays so.",
                "A later rollback by itself goes to this version. Other scenarios are not touched.",
                *(("Learning stays paused until somebody resumes it.",) if paused else ()),
            ),
            unheard,
        ),
        Order(
            "pause", "Pause learning…", f"Pause learning in {name}", (
                f"{name} stops learning. What is served stays as it is, {serving}, and histories go on.",
                "Events that come meanwhile are tested on and never learnt. The gate neither promotes nor rolls back.",
                "It stays so, over restarts too, until somebody resumes learning. Other scenarios are not touched.",
            ),
            "Learning is paused already." if paused else unheard,
        ),
        Order(
            "resume", "Resume learning…", f"Resume learning in {name}", (
                f"{name} learns again, from the next event on; those of the pause are left out.",
                f"Version {restores} stays served until what is learnt has passed the gate, or somebody promotes it."
                if held else "What it learns is served as it is learnt.",
                "If the reason of the pause still holds, it will learn from that too.",
            ),
            "" if paused else unheard or "Learning is on.",
        ),
        Order(
            "consolidate", "Consolidate all…", "Consolidate all scenarios", (
                "Trunk and projection are trained with much replay, which brings back what was forgotten.",
                "The result, a new generation of all vectors, is served at once, except where an earlier version is.",
                "Whatever becomes worse by it is found and taken back by the gate.",
            ),
            unheard,
        ),
    ]  # fmt: skip


def choices_say(kept: Kept) -> str:
    """A version in a list to choose from."""
    recall = kept.metrics.get("recall@10")
    words = [f"Version {kept.version.version}", *([f"{recall[0]} recall@10 then"] if recall else []), kept.version.note]
    return " · ".join(word for word in words if word)
