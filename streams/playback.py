"""Playback: real history into the topics, items first, then events at any speed, and an account of every row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from threading import Event as Signal
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from schemas.decoding import CLAMPED_TIMES, Invalid
from schemas.errors import ExplainedError
from schemas.settings import Settings
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.intake import Intake
from streams.outbox import Outbox, PublishFailed
from streams.route import Route, choose_route, look_through
from streams.sources import Row, open_history

CONNECT_SECONDS = 20.0
UNACKNOWLEDGED_ROWS = 10_000
"""Rows that are sent before their acknowledgement is waited for."""
LINES_SHOWN = 20
LONG_WAIT_SECONDS = 1.0


class NothingTaken(ExplainedError):
    """Not one event of the source could be taken."""

    def __init__(self, report: PlaybackReport) -> None:
        self.report = report
        super().__init__("\n".join([f"{report.source}: not one event was taken", *report.sentences()]))


class PlaybackFailed(ExplainedError):
    """Kafka stopped taking records in the middle."""

    def __init__(self, broker: str, acknowledged: int, reason: str) -> None:
        self.broker, self.acknowledged, self.reason = broker, acknowledged, reason
        super().__init__(
            f"{reason} (broker {broker}). {acknowledged:,} events are acknowledged; of the next "
            f"{UNACKNOWLEDGED_ROWS:,} some may have arrived"
        )


class Refusal(msgspec.Struct, frozen=True):
    """Rows that were refused for one reason.

    Attributes:
        lines: of the first `LINES_SHOWN` of them.
        example: the decoder's sentence about the first.
    """

    count: int
    lines: tuple[int, ...]
    example: str


class PlaybackReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of every row.

    Attributes:
        taken: events that Kafka has acknowledged; `scenarios` counts them by scenario.
        refused: events that SERVE would not take, by the decoder's code; they were not published.
        clamped: events taken whose time lies in the future; the time of their arrival will stand in for it.
        seconds: from the first event to the last acknowledgement.
        stopped: whether it ended before the source did, because it was asked to.
        notices: decisions that a person should know of; the playback has shown them when it began.
    """

    source: str
    taken: int
    scenarios: dict[str, int]
    refused: dict[str, Refusal]
    clamped: int
    items: int
    items_refused: dict[str, Refusal]
    seconds: float
    stopped: bool
    notices: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return msgspec.to_builtins(self)  # type: ignore[no-any-return]

    def sentences(self) -> Iterator[str]:
        """For people, most important first."""
        where = ", ".join(f"{name} {count:,}" for name, count in self.scenarios.items())
        rate = self.taken / self.seconds if self.seconds else 0.0
        stopped = "stopped: " if self.stopped else ""
        yield (
            f"{stopped}{self.taken:,} events published in {self.seconds:.1f} s ({rate:,.0f}/s)"
            f"{': ' + where if where else ''}; {self.items:,} items"
        )
        if self.clamped:
            yield f"{self.clamped:,} events have a time in the future: the time of their arrival stands in for it"
        for kind, refusals in (("events", self.refused), ("items", self.items_refused)):
            for code, refusal in refusals.items():
                lines = ", ".join(map(str, refusal.lines)) + (", …" if refusal.count > len(refusal.lines) else "")
                yield f"{refusal.count:,} {kind} refused, {code}: {refusal.example} (lines {lines})"

    def print(self, console: Console) -> None:
        for sentence in self.sentences():
            console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def play(
    settings: Settings,
    broker: str,
    source: str,
    *,
    scenario: str | None = None,
    event: str | None = None,
    items: Path | None = None,
    speed: float | None = None,
    limit: int | None = None,
    progress: Console | None = None,
    stop: Signal,
) -> PlaybackReport:
    """Publish a history: its items, then its events in their order, each with its own time.

    Args:
        source: as `open_history` takes it.
        scenario: put everything into this one.
        event: take all events for this kind.
        speed: multiple of real time; None is as fast as Kafka takes them.
        limit: rows of events to read at most.
        stop: ends the playback in good order; the report then says how far it came.

    Raises:
        ExplainedError: it cannot be done; unless it is `PlaybackFailed` or `NothingTaken`, nothing was published.
        BrokerUnreachable, PartitionsMismatch, TopicRefused: as `ensure_topics`.
    """
    history = open_history(source, items=items, event=event)
    survey = look_through(islice(history.events(), limit))
    route = choose_route(history, survey, settings, scenario)
    topics = Topics(settings)
    ensure_topics(broker, topics.all(), settings.kafka.replication, timeout=CONNECT_SECONDS)
    outbox = Outbox(broker, timeout=CONNECT_SECONDS)
    playback = _Playback(settings, outbox, route, Intake(settings, route, survey), stop)
    with _bar(progress) as bar:
        for notice in route.notices:
            bar.console.print(notice, markup=False, highlight=False, soft_wrap=True)
        began = time.monotonic()
        try:
            playback.publish_items(history.items())
            task = bar.add_task(history.name, total=survey.rows, rate="")
            began = time.monotonic()
            playback.publish_events(islice(history.events(), limit), Pace(speed), _Meter(bar, task))
        except PublishFailed as failed:
            raise PlaybackFailed(broker, playback.acknowledged, failed.reason) from None
        finally:
            outbox.close()
    report = playback.report(history.name, time.monotonic() - began)
    if not report.taken and report.refused and not report.stopped:
        raise NothingTaken(report)
    return report


class Pace:
    """When an event is due: as long after the first one as their times are apart, divided by the speed."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began: tuple[float, float] | None = None

    def wait_seconds(self, event_time: float, now: float) -> float:
        """Seconds until an event is due.

        Args:
            event_time: its own time, epoch seconds.
            now: a clock that never goes back, seconds.
        """
        if self._speed is None:
            return 0.0
        if self._began is None:
            self._began = event_time, now
        first, began = self._began
        return max(0.0, began + (event_time - first) / self._speed - now)


class _Tally:
    """Counts rows that were refused, by reason, and remembers the first lines of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lines: dict[str, list[int]] = {}
        self._examples: dict[str, str] = {}

    def add(self, line: int, invalid: Invalid) -> None:
        self._counts[invalid.code] += 1
        self._examples.setdefault(invalid.code, invalid.message)
        lines = self._lines.setdefault(invalid.code, [])
        if len(lines) < LINES_SHOWN:
            lines.append(line)

    def refusals(self) -> dict[str, Refusal]:
        return {
            code: Refusal(count, tuple(self._lines[code]), self._examples[code])
            for code, count in self._counts.most_common()
        }


class _Meter:
    """Shows how many rows are done, and how fast."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task, self._began = bar, task, time.monotonic()

    def show(self, rows: int) -> None:
        rate = rows / max(time.monotonic() - self._began, 1e-3)
        self._bar.update(self._task, completed=rows, rate=f"{rate:,.0f} events/s")


class _Playback:
    """One playback under way.

    Attributes:
        acknowledged: events that Kafka is known to hold.
    """

    def __init__(self, settings: Settings, outbox: Outbox, route: Route, intake: Intake, stop: Signal) -> None:
        self._settings, self._outbox, self._route, self._intake, self._stop = settings, outbox, route, intake, stop
        self._topics = Topics(settings)
        self._events_refused, self._items_refused = _Tally(), _Tally()
        self._sent: Counter[str] = Counter()
        self._items = 0
        self.acknowledged = 0

    def settle(self) -> None:
        """Wait until all that was sent is acknowledged."""
        self._outbox.flush()
        self.acknowledged = self._sent.total()

    def publish_items(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if self._stop.is_set():
                break
            self._publish_item(row)
        self.settle()

    def _publish_item(self, row: Row) -> None:
        taken = self._intake.item(row)
        if isinstance(taken, Invalid):
            self._items_refused.add(row.line, taken)
            return
        self._outbox.send(self._topics.items, taken.item.item_id.encode(), taken.value)
        self._items += 1

    def publish_events(self, rows: Iterable[Row], pace: Pace, meter: _Meter) -> None:
        topics = {name: self._topics.events(name) for name in self._settings.scenarios}
        done = 0
        for row in rows:
            if self._stop.is_set():
                break
            done += 1
            taken = self._intake.event(row)
            if isinstance(taken, Invalid):
                self._events_refused.add(row.line, taken)
                continue
            scenario, event, value, received = taken
            # A time that was left out or lies in the future says nothing of when the event is due.
            if event.time < received and (delay := pace.wait_seconds(event.time, time.monotonic())):
                if delay > LONG_WAIT_SECONDS:
                    self.settle()
                meter.show(done - 1)
                if self._stop.wait(delay):
                    done -= 1
                    break
            self._outbox.send(topics[scenario], event.user_id.encode(), value)
            self._sent[scenario] += 1
            if done % UNACKNOWLEDGED_ROWS == 0:
                self.settle()
                meter.show(done)
        self.settle()
        meter.show(done)

    def report(self, source: str, seconds: float) -> PlaybackReport:
        return PlaybackReport(
            source=source,
            taken=self.acknowledged,
            scenarios=dict(self._sent.most_common()),
            refused=self._events_refused.refusals(),
            clamped=self._intake.counts[CLAMPED_TIMES],
            items=self._items,
            items_refused=self._items_refused.refusals(),
            seconds=seconds,
            stopped=self._stop.is_set(),
            notices=self._route.notices,
        )


def _bar(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console or Console(quiet=True),
        disable=console is None,
    )
