"""The stress order: each scenario's backlog in one block, a share of it held out, and what is kept of it in the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from learner.evaluation import Block, Stream
from learner.hold_out import can_be_test
from learner.outcomes import Forgetting
from learner.retention import Retention
from schemas.records import Example

PROBE_SHARE = 0.1
"""Of each scenario's examples after the warm-up."""

MOST_PROBES = 2000
"""Of a scenario."""


def in_blocks(stream: Stream, seed: int = 0) -> Stream:
    """The stream in the stress order: the scenario with the fewest examples first, so that most comes after the least.

    Each example keeps the history that it had, and a held-out one stays in the histories of later ones.

    Args:
        seed: of the choice of what is held out.
    """
    backlogs: dict[str, list[Example]] = {}
    for scenario, example in stream.examples[stream.warm :]:
        backlogs.setdefault(scenario, []).append(example)
    generator = np.random.default_rng(seed)
    ordered = list(stream.examples[: stream.warm])
    blocks, probes = [], {}
    for scenario in sorted(backlogs, key=lambda name: (len(backlogs[name]), name)):
        backlog = backlogs[scenario]
        held = _drawn(backlog, generator)
        probes[scenario] = [backlog[place] for place in sorted(held)]
        ordered += [(scenario, each) for place, each in enumerate(backlog) if place not in held]
        blocks.append(Block(scenario, len(ordered), [scenario]))
    return replace(stream, examples=ordered, blocks=blocks, probes=probes)


def _drawn(backlog: list[Example], generator: np.random.Generator) -> set[int]:
    """Places of examples to hold out, among those that can be a test."""
    fit = [place for place, each in enumerate(backlog) if can_be_test(each)]
    count = min(MOST_PROBES, round(PROBE_SHARE * len(fit)))
    drawn: list[int] = generator.choice(fit, count, replace=False).tolist() if count else []
    return set(drawn)


def forgetting(seeds: Sequence[Retention], blocks: Sequence[int]) -> Forgetting:
    """Sum up what one model kept.

    Args:
        seeds: recall on the probe sets, of the window 0, after each block.
        blocks: number of each block's scenario.
    """
    columns = np.array([[_column(seed, scenario, len(blocks)) for scenario in blocks] for seed in seeds])
    matrix = columns.mean(0).T  # (blocks, scenarios)
    return Forgetting(
        matrix=[[None if np.isnan(recall) else float(recall) for recall in row] for row in matrix],
        forgetting=_mean([lost for seed in seeds for lost in seed.forgetting().values()]),
        backward_transfer=_mean([won for seed in seeds for won in seed.backward_transfer().values()]),
        final_average=_mean([recall for seed in seeds for recall in seed.latest().values()]),
    )


def _column(seed: Retention, scenario: int, blocks: int) -> list[float]:
    """Recall on a scenario's probe set after each block; not a number if there is no such set."""
    (recalls,) = seed.matrix(scenario) or [[None] * blocks]
    return [np.nan if recall is None else recall for recall in recalls]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
