"""The monitor: every signal of every scenario, what it came to, and whether it changed for the worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
from learner.exam import Exam
from learner.exam_signals import ExamSignals, calibration_error, exam_signals
from learner.finding import Finding, Verdict
from learner.items import ItemTable
from learner.level import Change, Level, LevelState
from learner.load import Limit, Load, LoadState
from schemas.reports import DriftReport
from schemas.signals import PAGING, SIGNALS
from schemas.times import say_time

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
    # They fall by themselves as a stream goes on, and nobody wants to be told: only a rise counts.
    "new_users": Change("lower", 0.05, 0.25),
    "new_items": Change("lower", 0.05, 0.25),
}
"""Signals whose level is watched, and the least change that counts: more rows shall not turn everything to drift."""

LIMITS: Mapping[str, Limit] = {
    "feature_age": Limit(60.0),
    "lag": Limit(1000.0),
    "learning_lag": Limit(1000.0),
    "dead_letter_rate": Limit(0.02, fewest=20.0),
    "head_age": Limit(60.0),
    "step_milliseconds": Limit(500.0),
    "latency_milliseconds": Limit(250.0),
}
"""Signals whose load is watched, and what is harmless."""

TESTS = 200
"""Of these together there are scores' quantiles and a calibration error."""

QUANTILES = {"score_low": 0.1, "score_median": 0.5, "score_high": 0.9}


class Observed(NamedTuple):
    """What was observed of a signal since it was last asked for, summed up."""

    scenario: str
    signal: str
    observations: float
    total: float
    least: float
    most: float


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


class MonitorState(msgspec.Struct, kw_only=True):
    """All that a `Monitor` knows: what a checkpoint keeps of it.

    Attributes:
        reports: that were not taken yet.
    """

    scenarios: dict[str, ScenarioState] = {}
    reports: list[DriftReport] = []


class Monitor:
    """Watches all signals of all scenarios; none of them has a say in another's.

    Args:
        table: of all items; where items stand in it tells how far tastes moved.
        lineage: begins the ids of reports.
    """

    def __init__(self, table: ItemTable, lineage: str, seed: int = 0) -> None:
        self.lineage = lineage
        self._table = table
        self._watches = {name: Watch(table, seed) for name in table.scenarios}
        self._reports: list[DriftReport] = []
        self._observed: dict[tuple[str, str], Observed] = {}

    @property
    def state(self) -> MonitorState:
        """As it stands, not copied."""
        return MonitorState(
            scenarios={name: watch.state for name, watch in self._watches.items()}, reports=self._reports
        )

    def load(self, state: MonitorState) -> None:
        """Go on from there, with those of its scenarios that are here."""
        self._reports = list(state.reports)
        for name, watch in self._watches.items():
            watch.load(state.scenarios.get(name, ScenarioState()))

    def examine(self, exam: Exam, now: float) -> None:
        """Take an exam in, before anything is learnt from it; `now` is in epoch seconds."""
        scenario = self._table.scenarios[exam.scenario]
        watch, signals = self._watches[scenario], exam_signals(exam, self._table, now)
        observed = {**signals.observed, **watch.complete_tests(signals)}
        for signal, values in observed.items():
            count = float(TESTS) if signal in WHOLE else 1.0
            self._observe(scenario, signal, watch.finite(signal, values), count, now)
        for signal, codes in watch.codes(signals).items():
            detector = watch.distributions[signal]
            compared = detector.state.windows
            self._report(scenario, signal, detector.observe(codes), now)
            if detector.state.windows > compared and detector.state.distance is not None:
                self._note(scenario, signal, 1.0, detector.state.distance, detector.state.distance)

    def observe(self, scenario: str, signal: str, count: float, total: float, now: float) -> None:
        """Take the sum of observations in that others have made; where there were none, nothing is said."""
        watch = self._watches.get(scenario)
        if watch is None or count <= 0:
            return
        if not math.isfinite(count + total):
            watch.refuse(signal, 1)
            return
        self._note(scenario, signal, count, total, total / count)
        if signal in watch.levels:
            self._report(scenario, signal, watch.levels[signal].add(count, total), now)
        elif signal in watch.loads:
            watch.loads[signal].add(count, total)

    def tick(self, now: float) -> None:
        """A stretch of time is over, for the signals of operations."""
        for scenario, watch in self._watches.items():
            for signal, load in watch.loads.items():
                self._report(scenario, signal, load.tick(), now)

    def take_observed(self) -> list[Observed]:
        """What was observed since the last time."""
        taken, self._observed = list(self._observed.values()), {}
        return taken

    @property
    def reports(self) -> list[DriftReport]:
        """Those that were not said to be written, oldest first; a checkpoint keeps them."""
        return list(self._reports)

    def written(self, reports: Sequence[DriftReport]) -> None:
        """These need not be kept any longer."""
        done = {each.report_id for each in reports}
        self._reports = [each for each in self._reports if each.report_id not in done]

    def verdicts(self, scenario: str) -> dict[str, Verdict]:
        """How each signal stands, or why nothing can be said of it."""
        return self._watches[scenario].verdicts()

    def forget_item(self, row: int) -> None:
        """It may become another item's."""
        for watch in self._watches.values():
            for signal in ROWS:
                watch.distributions[signal].forget(row)

    def _observe(self, scenario: str, signal: str, values: Floats, count: float, now: float) -> None:
        """Take values in, each of which was taken over so many observations."""
        if len(values) == 0:
            return
        watch = self._watches[scenario]
        self._note(scenario, signal, float(len(values)), float(values.sum()), float(values.min()), float(values.max()))
        if signal in watch.loads:
            watch.loads[signal].add(len(values), float(values.sum()))
        elif count == 1:
            self._report(scenario, signal, watch.levels[signal].observe(values), now)
        else:
            for value in values.tolist():
                self._report(scenario, signal, watch.levels[signal].add(count, count * value), now)

    def _note(
        self, scenario: str, signal: str, count: float, total: float, least: float, most: float | None = None
    ) -> None:
        most = least if most is None else most
        known = self._observed.get((scenario, signal), Observed(scenario, signal, 0.0, 0.0, least, most))
        self._observed[scenario, signal] = Observed(
            scenario,
            signal,
            known.observations + count,
            known.total + total,
            min(known.least, least),
            max(known.most, most),
        )

    def _report(self, scenario: str, signal: str, findings: Sequence[Finding], now: float) -> None:
        for finding in findings:
            number = self._watches[scenario].next_report(signal)
            self._reports.append(
                DriftReport(
                    report_id=f"{self.lineage}:{scenario}:{signal}:{number}",
                    scenario=scenario,
                    signal=signal,
                    status=finding.status,
                    severity="page" if finding.status == "alarm" and SIGNALS[signal].kind in PAGING else "note",
                    value=finding.value,
                    reference=finding.reference,
                    threshold=finding.threshold,
                    window=finding.window,
                    detected_at=say_time(now),
                    action="",
                    reason=reason(signal, finding),
                )
            )


WHOLE = frozenset(("calibration_error", *QUANTILES))
"""Signals of `TESTS` tests together."""

ROWS = ("popularity_shift", "embedding_shift")
"""Distributions whose codes are rows of items."""


class Watch:
    """The detectors of one scenario."""

    def __init__(self, table: ItemTable, seed: int) -> None:
        def vectors(rows: Codes, _: Codes) -> Floats:
            found = table.vectors[torch.from_numpy(rows).to(table.vectors.device)]
            return np.asarray(torch.nn.functional.normalize(found, dim=1).double().cpu().numpy())

        measures = {
            "event_mix": Measure(counted, jensen_shannon, 0.02),
            "popularity_shift": Measure(counted, jensen_shannon, 0.05),
            "embedding_shift": Measure(vectors, cosine_distance, 0.02),
        }
        self.levels = {signal: Level(change) for signal, change in CHANGES.items()}
        self.distributions = {signal: Distribution(measure, seed) for signal, measure in measures.items()}
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
            state, because = detector.verdict
            refused = self._rest.refused.get(signal)
            found[signal] = Verdict(state, f"{because}; {refused:,} were no numbers" if refused else because)
        return found


def reason(signal: str, finding: Finding) -> str:
    """A sentence for people."""
    known = SIGNALS[signal]
    value, before, threshold = (f"{each:.4g}" for each in (finding.value, finding.reference, finding.threshold))
    if known.kind == "operations":
        if finding.status == "cleared":
            return f"{known.title}: {finding.because}, at {value} {known.unit}; before the alarm it was {before}."
        return f"{known.title} is at {value} {known.unit}; it was {before}, and above {threshold} is too much."
    if signal in (*ROWS, "event_mix"):
        if finding.status == "cleared":
            return f"{known.title}: {finding.because}, {value} from what is compared with ({known.unit})."
        return (
            f"{known.title}: the last {finding.window:,} events lie {value} from before ({known.unit}), where up to "
            f"{threshold} would be chance; {finding.because}."
        )
    if finding.status == "cleared":
        return f"{known.title}: {finding.because}, at {value} over {finding.window:,} observations; it was {before}."
    moved = "fell" if finding.value < finding.reference else "rose"
    return (
        f"{known.title} {moved} from {before} to {value} ({known.unit}) over the last {finding.window:,} observations; "
        f"a change of {threshold} or more counts."
    )
