"""History: what is kept in SQL for people to look back on: series, reports, verdicts, versions, stances, actions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
import sqlalchemy.orm
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from schemas.reports import DriftReport
from schemas.tables import PerformedAction, ProbeRecall, Report, Series, SignalVerdict, Stance, Table, Version
from schemas.times import read_time

RESOLUTIONS: Mapping[int, int] = {5: 3600, 60: 2 * 86_400, 3600: 90 * 86_400}
"""Seconds of a stretch → seconds for which stretches of that length are kept: however long it runs, rows are few."""

REPORTS_KEPT_SECONDS = 90 * 86_400
MOST_POINTS = 500
ROWS_AT_ONCE = 500


class Measured(NamedTuple):
    """What was observed of a signal, summed up; `at` is when they were made, epoch seconds."""

    scenario: str
    signal: str
    at: float
    observations: float
    total: float
    least: float
    most: float

    @classmethod
    def one(cls, scenario: str, signal: str, at: float, value: float) -> Measured:
        return cls(scenario, signal, at, 1.0, value, value, value)


class Point(NamedTuple):
    """A signal over one stretch of time that begins at `at`, epoch seconds."""

    at: float
    mean: float
    least: float
    most: float
    observations: float


class Stretch(NamedTuple):
    """Points of signals, each over `seconds`; where nothing was measured there is no point."""

    seconds: int
    points: dict[str, list[Point]]


class History:
    """Writes and reads what people look back on. Any process may hold one; rows of different writers add up."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._reader = engine.execution_options(reads_only=True)
        lite = engine.dialect.name == "sqlite"
        self._insert: Any = sqlite.insert if lite else postgresql.insert
        series = self._insert(Series)
        smaller, larger = (sa.func.min, sa.func.max) if lite else (sa.func.least, sa.func.greatest)
        self._add = series.on_conflict_do_update(
            index_elements=["scenario", "signal", "seconds", "at"],
            set_={
                "count": Series.count + series.excluded.count,
                "total": Series.total + series.excluded.total,
                "least": smaller(Series.least, series.excluded.least),
                "most": larger(Series.most, series.excluded.most),
            },
        )

    # Series

    def add(self, measured: Iterable[Measured], connection: Connection | None = None) -> None:
        """Add observations at every resolution, in the caller's transaction if there is one.

        What is not finite is left out: it says nothing, and one such value would spoil every sum that it goes into.
        """
        sums: dict[tuple[str, str, int, int], list[float]] = {}
        for each in measured:
            if not all(map(math.isfinite, (each.observations, each.total, each.least, each.most))):
                continue
            for seconds in RESOLUTIONS:
                key = each.scenario, each.signal, seconds, int(each.at // seconds) * seconds
                known = sums.setdefault(key, [0.0, 0.0, each.least, each.most])
                known[0] += each.observations
                known[1] += each.total
                known[2], known[3] = min(known[2], each.least), max(known[3], each.most)
        names = ("scenario", "signal", "seconds", "at", "count", "total", "least", "most")
        rows = [dict(zip(names, (*key, *sums[key]), strict=True)) for key in sorted(sums)]
        if not rows:
            return
        if connection is not None:
            connection.execute(self._add, rows)
            return
        with self.engine.begin() as own:
            own.execute(self._add, rows)

    def series(
        self, scenario: str, signals: Collection[str], since: float, until: float, points: int = MOST_POINTS
    ) -> Stretch:
        """Signals between two times, at most so many points of each, summed up by the database."""
        return self.series_of([scenario], signals, since, until, points)[scenario]

    def series_of(
        self,
        scenarios: Collection[str],
        signals: Collection[str],
        since: float,
        until: float,
        points: int = MOST_POINTS,
    ) -> dict[str, Stretch]:
        """The same of several scenarios at once.

        Of the resolutions that still reach back to `since`, as seen from `until`, the coarsest is read whose stretches
        are no longer than a point.
        """
        at = Series.at
        wanted = max(1.0, (until - since) / points)
        reaching = [each for each, kept in RESOLUTIONS.items() if until - since <= kept] or [max(RESOLUTIONS)]
        read = max((each for each in reaching if each <= wanted), default=min(reaching))
        seconds = read * max(1, -(-int(wanted) // read))
        bucket = sa.func.floor(at / seconds) if self.engine.dialect.name != "sqlite" else at / seconds
        number = sa.cast(bucket, sa.BigInteger).label("number")
        query = (
            sa.select(
                Series.scenario,
                Series.signal,
                number,
                sa.func.sum(Series.count).label("observations"),
                sa.func.sum(Series.total).label("total"),
                sa.func.min(Series.least).label("least"),
                sa.func.max(Series.most).label("most"),
            )
            .where(
                Series.scenario.in_(sorted(scenarios)),
                Series.signal.in_(sorted(signals)),
                Series.seconds == read,
                at >= since - since % seconds,
                at <= until,
            )
            .group_by(Series.scenario, Series.signal, number)
            .order_by(Series.scenario, Series.signal, number)
        )
        found: dict[str, dict[str, list[Point]]] = {each: {name: [] for name in signals} for each in scenarios}
        with self._reader.connect() as connection:
            for row in connection.execute(query):
                if row.observations:
                    mean = row.total / row.observations
                    point = Point(row.number * seconds, mean, row.least, row.most, row.observations)
                    found[row.scenario][row.signal].append(point)
        return {
            scenario: Stretch(seconds, {name: each[-points:] for name, each in of_one.items()})
            for scenario, of_one in found.items()
        }

    def newest(self, scenarios: Collection[str], signals: Collection[str], since: float) -> dict[str, dict[str, Point]]:
        """What each signal came to from `since` until now, by scenario; `at` is that of the newest stretch."""
        finest = min(RESOLUTIONS)
        query = (
            sa.select(
                Series.scenario,
                Series.signal,
                sa.func.max(Series.at).label("at"),
                sa.func.sum(Series.count).label("observations"),
                sa.func.sum(Series.total).label("total"),
                sa.func.min(Series.least).label("least"),
                sa.func.max(Series.most).label("most"),
            )
            .where(
                Series.scenario.in_(sorted(scenarios)),
                Series.signal.in_(sorted(signals)),
                Series.seconds == finest,
                Series.at >= since,
            )
            .group_by(Series.scenario, Series.signal)
        )
        found: dict[str, dict[str, Point]] = {}
        with self._reader.connect() as connection:
            for row in connection.execute(query):
                if row.observations:
                    point = Point(row.at, row.total / row.observations, row.least, row.most, row.observations)
                    found.setdefault(row.scenario, {})[row.signal] = point
        return found

    def reaches_back(self, scenarios: Collection[str], signals: Collection[str], before: float) -> bool:
        """Whether anything was measured of these before that time; one look into the index for each of them."""
        # What is an hour old stands at the finest resolution no more, and what is days old at the next one no more.
        old = sa.or_(*(sa.and_(Series.seconds == each, Series.at <= before - each) for each in RESOLUTIONS))
        found = sa.exists().where(Series.scenario.in_(sorted(scenarios)), Series.signal.in_(sorted(signals)), old)
        with self._reader.connect() as connection:
            return bool(connection.scalar(sa.select(found)))

    def prune(self, now: float) -> None:
        """Drop what is older than it is kept for."""
        with self.engine.begin() as connection:
            for seconds, kept in RESOLUTIONS.items():
                connection.execute(sa.delete(Series).where(Series.seconds == seconds, Series.at < now - kept))
            connection.execute(sa.delete(Report).where(Report.detected_at < now - REPORTS_KEPT_SECONDS))

    # Reports

    def add_reports(self, reports: Sequence[DriftReport]) -> None:
        """Keep reports; one that is here already stays as it is."""
        rows = [{**msgspec.structs.asdict(each), "detected_at": read_time(each.detected_at)} for each in reports]
        if rows:
            with self.engine.begin() as connection:
                connection.execute(self._insert(Report).on_conflict_do_nothing(), rows)

    def reports(
        self,
        *,
        scenario: str | None = None,
        since: float = 0.0,
        until: float | None = None,
        below: str | None = None,
        limit: int = 200,
    ) -> list[Report]:
        """Newest first; those of one scenario, if it is named.

        Args:
            until: only those before; with `below` also those of that very time whose report_id is lower.
        """
        query = sa.select(Report).where(Report.detected_at >= since)
        if scenario is not None:
            query = query.where(Report.scenario == scenario)
        if until is not None:
            before = Report.detected_at < until
            if below is not None:
                before |= (Report.detected_at == until) & (Report.report_id < below)
            query = query.where(before)
        query = query.order_by(Report.detected_at.desc(), Report.report_id.desc()).limit(limit)
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return list(session.scalars(query))

    def open_alarms(self) -> list[Report]:
        """Alarms after which their signal was not cleared, oldest first; one signal may have sent several."""
        cleared = (
            sa.select(Report.scenario, Report.signal, sa.func.max(Report.detected_at).label("at"))
            .where(Report.status == "cleared")
            .group_by(Report.scenario, Report.signal)
            .subquery()
        )
        same = (cleared.c.scenario == Report.scenario) & (cleared.c.signal == Report.signal)
        query = (
            sa.select(Report)
            .join(cleared, same, isouter=True)
            .where(Report.status == "alarm", cleared.c.at.is_(None) | (Report.detected_at > cleared.c.at))
            .order_by(Report.detected_at, Report.report_id)
        )
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return list(session.scalars(query))

    # Verdicts of detectors

    def save_verdicts(self, verdicts: Sequence[Mapping[str, Any]]) -> None:
        """Say how signals stand: the columns of `schemas.tables.SignalVerdict`."""
        if verdicts:
            with self.engine.begin() as connection:
                self._save(connection, SignalVerdict, verdicts)

    def verdicts(self, scenario: str) -> dict[str, SignalVerdict]:
        """By signal."""
        query = sa.select(SignalVerdict).where(SignalVerdict.scenario == scenario)
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return {each.signal: each for each in session.scalars(query)}

    # Versions and how scenarios stand to them

    def save_version(self, version: Mapping[str, Any], connection: Connection) -> None:
        """Keep a good version: the columns of `schemas.tables.Version`, `metrics` as a mapping."""
        self._save(connection, Version, [{**version, "metrics": msgspec.json.encode(version["metrics"]).decode()}])

    def versions(self, scenario: str | None = None) -> list[Version]:
        """Those that are kept, newest first."""
        query = sa.select(Version).order_by(Version.made_at.desc(), Version.scenario, Version.version.desc())
        if scenario is not None:
            query = query.where(Version.scenario == scenario)
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return list(session.scalars(query))

    def forget_versions(self, versions: Iterable[tuple[str, int]], connection: Connection) -> None:
        for scenario, version in versions:
            connection.execute(sa.delete(Version).where(Version.scenario == scenario, Version.version == version))

    def save_stances(self, stances: Sequence[Mapping[str, Any]]) -> None:
        """Say how scenarios stand: the columns of `schemas.tables.Stance`."""
        if stances:
            with self.engine.begin() as connection:
                self._save(connection, Stance, stances)

    def stances(self) -> dict[str, Stance]:
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return {each.scenario: each for each in session.scalars(sa.select(Stance))}

    # Actions

    def record_action(self, action: Mapping[str, Any], connection: Connection | None = None) -> None:
        """Keep what came of an order: the columns of `PerformedAction`; one that is here already stays as it is."""
        statement = self._insert(PerformedAction).on_conflict_do_nothing()
        if connection is not None:
            connection.execute(statement, [dict(action)])
            return
        with self.engine.begin() as own:
            own.execute(statement, [dict(action)])

    def begin_action(self, action: Mapping[str, Any], *, again: bool) -> bool:
        """Put on record that something is begun; one that was refused, or that is done `again`, gives way.

        Returns:
            False if it stands there already; then nothing is changed.
        """
        statement = self._insert(PerformedAction)
        update = {name: statement.excluded[name] for name in action if name != "action_id"}
        gives_way = (PerformedAction.outcome == "refused") | sa.literal(again)
        statement = statement.on_conflict_do_update(index_elements=["action_id"], set_=update, where=gives_way)
        statement = statement.values(dict(action)).returning(PerformedAction.action_id)
        with self.engine.begin() as connection:
            return connection.execute(statement).first() is not None

    def end_action(self, action_id: str, outcome: str, detail: str) -> None:
        """Put on record what came of it."""
        statement = sa.update(PerformedAction).where(PerformedAction.action_id == action_id)
        with self.engine.begin() as connection:
            connection.execute(statement.values(outcome=outcome, detail=detail))

    def action(self, action_id: str) -> PerformedAction | None:
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return session.get(PerformedAction, action_id)

    def actions_named(self, action_ids: Collection[str]) -> dict[str, PerformedAction]:
        """Those of these few that are known."""
        query = sa.select(PerformedAction).where(PerformedAction.action_id.in_(list(action_ids)))
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return {each.action_id: each for each in session.scalars(query)}

    def actions(self, scenario: str | None = None, limit: int = 200) -> list[PerformedAction]:
        """Newest first; with those of one scenario come those that were for all."""
        query = sa.select(PerformedAction).order_by(PerformedAction.performed_at.desc()).limit(limit)
        if scenario is not None:
            query = query.where((PerformedAction.scenario == scenario) | PerformedAction.scenario.is_(None))
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return list(session.scalars(query))

    # The forgetting matrix

    def replace_probe_recalls(self, scenario: str, cells: Sequence[Mapping[str, Any]]) -> None:
        """Put a scenario's whole matrix, which is bounded by whoever keeps it, in place of the one before."""
        with self.engine.begin() as connection:
            connection.execute(sa.delete(ProbeRecall).where(ProbeRecall.scenario == scenario))
            for start in range(0, len(cells), ROWS_AT_ONCE):
                some = [{"scenario": scenario, **cell} for cell in cells[start : start + ROWS_AT_ONCE]]
                connection.execute(sa.insert(ProbeRecall), some)

    def probe_recalls(self, scenario: str) -> list[ProbeRecall]:
        """By window, then by time."""
        query = sa.select(ProbeRecall).where(ProbeRecall.scenario == scenario)
        with sa.orm.Session(self._reader, expire_on_commit=False) as session:
            return list(session.scalars(query.order_by(ProbeRecall.window, ProbeRecall.at)))

    def _save(self, connection: Connection, table: type[Table], rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows, or put them in place of those with the same key."""
        insert = self._insert(table)
        keys = [column.name for column in sa.inspect(table).primary_key]
        others = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(
            insert.on_conflict_do_update(index_elements=keys, set_=others), [dict(each) for each in rows]
        )
