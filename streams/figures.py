"""Figures: what the audience saw in one scenario, as counts, click rates and latencies."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

WINDOW_SECONDS = 60
LATENCIES_KEPT = 2000


@dataclass(frozen=True)
class Clicks:
    """Items looked at and clicks on them."""

    looked_at: int = 0
    clicked: int = 0

    @property
    def rate(self) -> float | None:
        """Clicks per item looked at; None where nothing was."""
        return self.clicked / self.looked_at if self.looked_at else None

    def __add__(self, other: Clicks) -> Clicks:
        return Clicks(self.looked_at + other.looked_at, self.clicked + other.clicked)


@dataclass(frozen=True)
class Latency:
    """Milliseconds from sending an event to reading the recommendation that it triggered."""

    p50: float
    p99: float


@dataclass(frozen=True)
class ScenarioFigures:
    """One scenario since the start, and over the last `WINDOW_SECONDS` where the name says recent.

    Attributes:
        undelivered: events that Kafka did not acknowledge.
        unanswered: times that a reader gave up waiting for a recommendation.
        latency: over the last `LATENCIES_KEPT` answers; None before the first.
    """

    events: int
    recommendations: int
    undelivered: int
    unanswered: int
    events_per_second: float
    recommendations_per_second: float
    model: Clicks
    control: Clicks
    recent_model: Clicks
    recent_control: Clicks
    latency: Latency | None


@dataclass
class _Second:
    at: int
    events: int = 0
    recommendations: int = 0
    model: Clicks = field(default_factory=Clicks)
    control: Clicks = field(default_factory=Clicks)


class Ledger:
    """Where the audience writes down what happens in one scenario. Times are seconds since its start.

    Memory is bounded: whole-run sums, one row per recent second, and the newest latencies. One thread may write while
    others ask for figures.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events = 0
        self._recommendations = 0
        self._undelivered = 0
        self._unanswered = 0
        self._model = Clicks()
        self._control = Clicks()
        self._seconds: deque[_Second] = deque([_Second(0)], maxlen=WINDOW_SECONDS + 1)
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)

    def event(self, elapsed: float) -> None:
        with self._lock:
            self._events += 1
            self._second(elapsed).events += 1

    def recommendation(self, elapsed: float) -> None:
        with self._lock:
            self._recommendations += 1
            self._second(elapsed).recommendations += 1

    def latency(self, seconds: float) -> None:
        with self._lock:
            self._latencies.append(seconds)

    def undelivered(self) -> None:
        with self._lock:
            self._undelivered += 1

    def unanswered(self) -> None:
        with self._lock:
            self._unanswered += 1

    def reading(self, elapsed: float, clicks: Clicks, *, control: bool) -> None:
        """A list was read by someone of the control group, or by someone whose lists the model makes."""
        with self._lock:
            second = self._second(elapsed)
            if control:
                self._control += clicks
                second.control += clicks
            else:
                self._model += clicks
                second.model += clicks

    def figures(self, elapsed: float) -> ScenarioFigures:
        """Everything at one moment."""
        with self._lock:
            now = int(elapsed)
            # The second that is running is not whole yet, so rates leave it out.
            whole = [second for second in self._seconds if now - WINDOW_SECONDS <= second.at < now]
            recent = [second for second in self._seconds if now - WINDOW_SECONDS <= second.at]
            span = max(1, min(now, WINDOW_SECONDS))
            ordered = sorted(self._latencies)
            return ScenarioFigures(
                events=self._events,
                recommendations=self._recommendations,
                undelivered=self._undelivered,
                unanswered=self._unanswered,
                events_per_second=sum(second.events for second in whole) / span,
                recommendations_per_second=sum(second.recommendations for second in whole) / span,
                model=self._model,
                control=self._control,
                recent_model=sum((second.model for second in recent), Clicks()),
                recent_control=sum((second.control for second in recent), Clicks()),
                latency=Latency(_quantile(ordered, 0.5) * 1000, _quantile(ordered, 0.99) * 1000) if ordered else None,
            )

    def _second(self, elapsed: float) -> _Second:
        if int(elapsed) > self._seconds[-1].at:
            self._seconds.append(_Second(int(elapsed)))
        return self._seconds[-1]


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
