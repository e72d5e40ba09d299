"""Small learners, items and examples for tests of the learner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from learner.checkpoint import read_checkpoint
from learner.items import ItemTable
from learner.online import OnlineLearner
from learner.outcomes import DEPTH
from learner.publication import Publication
from learner.ranking import Clocks, Question, ScenarioModel, rank
from learner.shelf import search_shelf
from schemas.items import Item
from schemas.packed import pack, pack_times
from schemas.records import Example
from schemas.settings import Learn, Model, Scenario, Settings

CPU = torch.device("cpu")
ENCODER_DIMENSION = 12
START = 1_700_000_000.0
NAMES = [f"item-{number}" for number in range(30)]


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Equal but for rounding, infinities included."""
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5), f"{found} is not {expected}"


def small_model(**changes: Any) -> Model:
    sizes: dict[str, Any] = {
        "dimension": 8,
        "history": 5,
        "adapter_rank": 2,
        "neighbours": 8,
        "mixer_units": 4,
        "neural_candidates": 12,
        "covisited_candidates": 6,
        "popular_candidates": 6,
        "items": 5000,
    }
    return Model(**{**sizes, **changes})


def small_settings(
    scenarios: Sequence[str] = ("shop", "news"),
    model: Mapping[str, Any] | None = None,
    **learn: Any,
) -> Settings:
    """Nothing is held out, unless told otherwise: a test that counts what is learnt wants to count its examples."""
    defaults: dict[str, Any] = {
        "micro_batch": 8,
        "replay_batch": 8,
        "replay_rows": 40,
        "recall_window": 500,
        "probe_rows": 0,
    }
    return Settings(
        scenarios={name: Scenario() for name in scenarios},
        model=small_model(**(model or {})),
        learn=Learn(**{**defaults, **learn}),
    )


def small_learner(settings: Settings | None = None) -> OnlineLearner:
    return OnlineLearner(settings or small_settings(), ENCODER_DIMENSION, CPU, lambda: START)


def random_texts(count: int, seed: int = 0) -> Tensor:
    """Unit vectors as an encoder gives them; (count, ENCODER_DIMENSION)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, ENCODER_DIMENSION, generator=generator), dim=1)


def put(learner: OnlineLearner, ids: Sequence[str], texts: Tensor | None = None, **item: Any) -> None:
    """Items with random texts, or these."""
    learner.put_items([Item(item_id=name, **item) for name in ids], random_texts(len(ids)) if texts is None else texts)


def example(
    item: str,
    history: Sequence[str] = (),
    *,
    offset: int,
    user: str = "ada",
    weight: float = 1.0,
    excluded: Sequence[str] | None = None,
    partition: int = 0,
    passed_over: Sequence[str] = (),
) -> Example:
    """An event at one second per offset; what is in the history is excluded, unless told otherwise."""
    now = START + offset
    return Example(
        partition=partition,
        offset=offset,
        user_id=user,
        time=now,
        event="view",
        item_id=item,
        weight=weight,
        history=pack(history),
        history_times=pack_times([now - len(history) + place for place in range(len(history))]),
        excluded=pack(history if excluded is None else excluded),
        passed_over=pack(passed_over),
    )


def stream(items: Sequence[str], count: int, seed: int = 0, first: int = 0) -> list[Example]:
    """Random walks of eight users through the items, none twice within the last five."""
    generator = torch.Generator().manual_seed(seed)
    pasts: dict[str, list[str]] = {f"user-{number}": [] for number in range(8)}
    examples = []
    for offset in range(first, first + count):
        user = f"user-{int(torch.randint(8, (), generator=generator))}"
        fresh = [name for name in items if name not in pasts[user]]
        item = fresh[int(torch.randint(len(fresh), (), generator=generator))]
        examples.append(example(item, pasts[user], offset=offset, user=user))
        pasts[user] = [*pasts[user], item][-5:]
    return examples


def everything(learner: OnlineLearner, folder: Path) -> dict[str, Tensor]:
    """All tensors of the learner."""
    learner.save(folder, {})
    return read_checkpoint(folder).tensors


def started(count: int = 40, settings: Settings | None = None) -> OnlineLearner:
    """A learner that knows thirty items and has learnt from a stream of the shop."""
    learner = small_learner(settings)
    put(learner, NAMES)
    learner.learn("shop", stream(NAMES, count))
    return learner


def top(learner: OnlineLearner, history: Sequence[str], excluded: Sequence[str], now: float) -> list[str | None]:
    """What the learner's own last publication recommends in the shop, ranked as SERVE does."""
    return ranked(learner.table.scenarios, learner._settings, learner.versions.republish(), history, excluded, now)


def ranked(
    scenarios: Sequence[str],
    settings: Settings,
    publication: Publication,
    history: Sequence[str],
    excluded: Sequence[str],
    now: float,
) -> list[str | None]:
    vectors, weights = publication.vectors, publication.weights
    table = ItemTable(scenarios, settings.model)
    table.place_all(vectors)
    for record in vectors:
        table.set_eligible(record.item_id, scenarios)
    head = weights[0]
    model = ScenarioModel.blank(settings.model)
    model.load(head.tensors)
    times = [now - len(history) + place for place in range(len(history))]
    question = Question(table.rows(history), times, now, table.rows(excluded))
    ranking = rank(
        model, table, 0, Clocks(head.clock, head.scenario_clock), [question], search_shelf(table, 0), None, DEPTH
    )
    return [table.id_of[row] for row in ranking.rows[0, :DEPTH].tolist() if row]
