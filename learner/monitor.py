"""The monitor: every signal of every scenario, what it came to, and whether it changed for the worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from learner.exam import Exam
from learner.exam_signals import exam_signals
from learner.finding import Finding, Verdict
from learner.items import ItemTable
from learner.watch import ROWS, TESTS, WHOLE, ScenarioState, Watch
from schemas.reports import DriftReport
from schemas.signals import PAGING, SIGNALS
from schemas.times import say_time

Floats = NDArray[np.float64]


class Observed(NamedTuple):
    """What was observed of a signal since it was last asked for, summed up."""

    scenario: str
    signal: str
    observations: float
    total: float
    least: float
    most: float


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
        patience: as of a `Level`.
    """

    def __init__(self, table: ItemTable, lineage: str, seed: int = 0, patience: float = 1.0) -> None:
        self.lineage = lineage
        self._table = table
        self._watches = {name: Watch(table, seed, patience) for name in table.scenarios}
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

    def hear(self, scenario: str, signal: str, value: float) -> None:
        """Take in how a load stands that another process measures, and writes down itself."""
        watch = self._watches.get(scenario)
        if watch is None:
            return
        if not math.isfinite(value):
            watch.refuse(signal, 1)
            return
        watch.loads[signal].add(1, value)

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


def reason(signal: str, finding: Finding) -> str:
    """A sentence for people."""
    known = SIGNALS[signal]
    value, before, threshold = (known.say(each) for each in (finding.value, finding.reference, finding.threshold))
    if known.kind == "operations":
        unit = f" {known.unit}" if known.unit in ("events", "examples") else ""
        if finding.status == "cleared":
            return f"{known.title}: {finding.because}, at {value}{unit}; before the alarm it was {before}."
        return f"{known.title} is at {value}{unit}; it was {before}, and above {threshold} is too much."
    if signal in (*ROWS, "event_mix"):
        if finding.status == "cleared":
            return f"{known.title}: {finding.because}, {value} from what is compared with."
        return (
            f"{known.title}: the last {finding.window:,} events lie {value} from before, where up to {threshold} would "
            f"be chance; {finding.because}."
        )
    if finding.status == "cleared":
        return f"{known.title}: {finding.because}, at {value} over {finding.window:,} observations; it was {before}."
    moved = "fell" if finding.value < finding.reference else "rose"
    return (
        f"{known.title} {moved} from {before} to {value} over the last {finding.window:,} observations; a change of "
        f"{known.say_change(finding.threshold)} or more counts."
    )
