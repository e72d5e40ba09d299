"""Goes on from a checkpoint in a process of its own: python -m tests.learner.going_on FROM TO."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from learner.online import OnlineLearner
from tests.learner.builders import NAMES, put, small_learner, small_settings, stream

STEPS = 50
SETTINGS = small_settings(micro_batch=8, probe_share=0.1, probe_rows=30)
"""A probe set of the shop is half full after the first half, and full in the end."""


def first_half(learner: OnlineLearner) -> None:
    """Fifty steps from nothing."""
    put(learner, NAMES)
    learner.learn("shop", stream(NAMES, 30 * 8))
    learner.learn("news", stream(NAMES, 20 * 8, seed=1))


def second_half(learner: OnlineLearner) -> None:
    """Fifty more."""
    learner.learn("news", stream(NAMES, 30 * 8, seed=2, first=20 * 8))
    learner.learn("shop", stream(NAMES, 20 * 8, seed=3, first=30 * 8))


if __name__ == "__main__":
    before, after = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    resumed = small_learner(SETTINGS)
    resumed.restore(before)
    second_half(resumed)
    resumed.save(after, {})
