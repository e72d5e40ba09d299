"""The short form of the campaign: one round of faults on each database, and nothing is lost or counted twice (§5)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from schemas.tables import UserState
from tests.faults.campaign import Outcome, Siege, fitting
from tests.faults.faults import Fault

pytestmark = pytest.mark.timeout(600)

PACE_SECONDS = 1.0
ON_SQLITE = (
    "kill at serve.commit",
    "kill gateway",
    "database locked",
    "kill at serve.published",
    "kill broker",
    "loss is no number",
    "weights record damaged",
    "kill at checkpoint.written",
    "snapshot truncated",
)
ON_POSTGRESQL = (
    "zombie serve",
    "database restarted",
    "partitions added",
    "kill at serve.committed",
    "checkpoint damaged",
    "repeats and late deliveries",
    "retention overtakes serve",
)


def named(database: str, kinds: tuple[str, ...]) -> list[Fault]:
    of_kind = {fault.kind: fault for fault in fitting(database)}
    return [of_kind[kind] for kind in kinds]


def test_nine_faults_on_sqlite_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    """Cases K9 (partitions added while all runs) and S21 (kill -9), among others."""
    outcome = Outcome()
    with Siege(tmp_path / "system", 7, "sqlite", outcome) as siege:
        siege.run_round(named("sqlite", ON_SQLITE), pace=PACE_SECONDS)
        assert outcome.problems == []
        assert (outcome.lost, outcome.duplicated) == (0, 0)
        assert outcome.by_kind == Counter(ON_SQLITE)
        assert outcome.events > 100
        assert outcome.recovery.keys() == {"serve", "learn", "gateway", "broker"}
        # Who checks must see it where something is wrong.
        with siege.system.serve_store.engine.begin() as connection:
            connection.execute(sa.delete(UserState).where(UserState.user_id == "u0"))
            connection.exec_driver_sql("UPDATE tallies SET count = count + 1 WHERE code = 'events'")
        findings = siege.checker.check()
        assert findings.lost > 0
        assert findings.duplicated > 0


def test_eight_faults_on_postgresql_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    outcome = Outcome()
    with Siege(tmp_path / "system", 8, "postgresql", outcome) as siege:
        siege.run_round(named("postgresql", ON_POSTGRESQL), pace=PACE_SECONDS)
        siege.make_topic_anew()
    assert outcome.problems == []
    assert (outcome.lost, outcome.duplicated) == (0, 0)
    assert outcome.by_kind == Counter([*ON_POSTGRESQL, "topic made anew"])
