"""The watch over one scenario: the detectors of all of its signals, and what each of them takes for a change."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from learner.distribution import (
    Codes,
    Distribution,
    DistributionState,
    Measure,
    cosine_distance,
    counted,
    jensen_shannon,
)
from learner.exam_signals import ExamSignals, calibration_error
from learner.finding import Verdict
from learner.items import ItemTable
from learner.level import Change, Level, LevelState
from learner.load import Limit, Load, LoadState

Floats = NDArray[np.float64]

CHANGES: Mapping[str, Change] = {
    "recall@10": Change("higher", 0.02, 0.1),
    "ndcg@10": Change("higher", 0.015, 0.1),
    "recall@10_popular": Change("higher", 0.02, 0.1),
    "click_rate": Change("higher", 0.01, 0.1),
    "control_click_rate": Change("higher", 0.01, 0.1),
    "log_loss": Change("lower", 0.15, 0.03),
    "calibration_error": Change("lower", 0.03, 0.5),
    # In logits; while a model learns they wander by one and more.
    "score_low": Change("steady", 2.0, 0.5),
    "score_median": Change("steady", 2.0, 0.5),
    "score_high": Change("steady", 2.0, 0.5),
}
"""Signals whose level is watched, and the least change that counts: more rows shall not turn everything to drift."""

LIMITS: Mapping[str, Limit] = {
    "feature_age": Limit(60.0),
    "lag": Limit(1000.0),
    "learning_lag": Limit(1000.0),
    "dead_letter_rate": Limit(0.02, fewest=20.0),
    # At the beginning everything is new, so what is wanted is a flood after that.
    "new_users": Limit(0.1, fewest=20.0),
    "new_items": Limit(0.1, fewest=20.0),
    "step_milliseconds": Limit(500.0),
    "latency_milliseconds": Limit(250.0),
}
"""Signals whose load is watched, and what is harmless.

The age of the model is none of them: while LEARN runs, it grows where no events come or learning is paused, and when
LEARN does not run, it cannot say so; the overview and Prometheus do.
"""

TESTS = 200
"""Of these together there are scores' quantiles and a calibration error."""

QUANTILES = {"score_low": 0.1, "score_median": 0.5, "score_high": 0.9}


WHOLE = frozenset(("calibration_error", *QUANTILES))
"""Signals of `TESTS` tests together."""

ROWS = ("popularity_shift", "embedding_shift")
"""Distributions whose codes are rows of items."""


class Tests(msgspec.Struct):
    """Of tests that are not yet `TESTS`: what each first item was given, whether it was right, and its score."""

    chance: list[float] = []
    right: list[float] = []
    score: list[float] = []


class ScenarioState(msgspec.Struct, kw_only=True):
    """All that is known of one scenario.

    Attributes:
        events: names of events; their places are their codes.
        reported: by signal, how many reports there were.
        refused: by signal, how many values were no numbers and reached no detector.
    """

    levels: dict[str, LevelState] = {}
    distributions: dict[str, DistributionState] = {}
    loads: dict[str, LoadState] = {}
    tests: Tests = msgspec.field(default_factory=Tests)
    events: list[str] = []
    reported: dict[str, int] = {}
    refused: dict[str, int] = {}


class Watch:
    """The detectors of one scenario."""

    def __init__(self, table: ItemTable, seed: int, patience: float = 1.0) -> None:
        def vectors(rows: Codes, _: Codes) -> Floats:
            found = table.vectors[torch.from_numpy(rows).to(table.vectors.device)]
            return np.asarray(torch.nn.functional.normalize(found, dim=1).double().cpu().numpy())

        measures = {
            "event_mix": Measure(counted, jensen_shannon, 0.02),
            "popularity_shift": Measure(counted, jensen_shannon, 0.05),
            "embedding_shift": Measure(vectors, cosine_distance, 0.02),
        }
        self.levels = {signal: Level(change, patience) for signal, change in CHANGES.items()}
        self.distributions = {signal: Distribution(measure, seed, patience) for signal, measure in measures.items()}
        self.loads = {signal: Load(limit) for signal, limit in LIMITS.items()}
        self._rest = ScenarioState()

    @property
    def state(self) -> ScenarioState:
        return msgspec.structs.replace(
            self._rest,
            levels={signal: each.state for signal, each in self.levels.items()},
            distributions={signal: each.state for signal, each in self.distributions.items()},
            loads={signal: each.state for signal, each in self.loads.items()},
        )

    def load(self, state: ScenarioState) -> None:
        self._rest = state
        for signal, level in self.levels.items():
            level.load(state.levels.get(signal, LevelState()))
        for signal, distribution in self.distributions.items():
            distribution.load(state.distributions.get(signal, DistributionState()))
        for signal, load in self.loads.items():
            load.load(state.loads.get(signal, LoadState()))

    def complete_tests(self, signals: ExamSignals) -> dict[str, Floats]:
        """Put tests together, and measure as often as there are enough."""
        tests = self._rest.tests
        rows = np.stack([signals.chance, signals.right, signals.score])
        whole = np.isfinite(rows).all(0)
        if not whole.all():
            self.refuse("calibration_error", int((~whole).sum()))
            rows = rows[:, whole]
        for kept, new in zip((tests.chance, tests.right, tests.score), rows.tolist(), strict=True):
            kept += new
        groups = len(tests.chance) // TESTS
        if not groups:
            return {}
        rows = np.array([tests.chance, tests.right, tests.score])
        tests.chance, tests.right, tests.score = rows[:, groups * TESTS :].tolist()
        chance, right, score = rows[:, : groups * TESTS].reshape(3, groups, TESTS)
        quantiles = np.quantile(score, list(QUANTILES.values()), axis=1)  # (signals, groups)
        return {
            "calibration_error": np.array([calibration_error(*each) for each in zip(chance, right, strict=True)]),
            **dict(zip(QUANTILES, quantiles, strict=True)),
        }

    def codes(self, signals: ExamSignals) -> dict[str, Codes]:
        """What distributions are made of."""
        names = self._rest.events
        for name in signals.events:
            if name not in names:
                names.append(name)
        events = np.array([names.index(name) for name in signals.events], np.int64)
        return {"event_mix": events, **dict.fromkeys(ROWS, signals.targets)}

    def finite(self, signal: str, values: Floats) -> Floats:
        """What of it is a number; the rest is counted."""
        whole = np.isfinite(values)
        self.refuse(signal, int((~whole).sum()))
        return values[whole]

    def refuse(self, signal: str, count: int) -> None:
        if count:
            self._rest.refused[signal] = self._rest.refused.get(signal, 0) + count

    def next_report(self, signal: str) -> int:
        self._rest.reported[signal] = self._rest.reported.get(signal, 0) + 1
        return self._rest.reported[signal]

    def verdicts(self) -> dict[str, Verdict]:
        detectors: dict[str, Level | Distribution | Load] = {**self.levels, **self.distributions, **self.loads}
        found = {}
        for signal, detector in detectors.items():
            verdict = detector.verdict
            if refused := self._rest.refused.get(signal):
                verdict = verdict._replace(reason=f"{verdict.reason}; {refused:,} were no numbers")
            found[signal] = verdict
        return found
