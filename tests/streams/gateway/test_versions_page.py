"""Versions: what is served, what changed from one to the next, and what may be ordered when."""

from __future__ import annotations

import json
from typing import Any

from schemas.tables import Version
from streams.gateway.overview import ScenarioSummary, Standing
from streams.gateway.versions_page import kept_versions, metric_title, orders, served_version

STANDING: dict[str, Any] = {
    "learning": "on", "restores": None, "good": 9, "since": 0.0, "reason": "", "pairs": 0, "difference": 0.0,
}  # fmt: skip


def summary(published: int = 12, **standing: Any) -> ScenarioSummary:
    status: Any = {"model": {"version": published}}
    stance = Standing(**{**STANDING, **standing})
    return ScenarioSummary("shop", "good", "", "", None, status, stance, {}, [])


def version(number: int, lineage: str = "a", **metrics: float) -> Version:
    return Version(
        scenario="shop", version=number, lineage=lineage, step=number * 100, made_at=float(number), checkpoint=1,
        metrics=json.dumps(metrics), note="passed",
    )  # fmt: skip


def will(action: str, found: ScenarioSummary) -> str:
    made = orders("shop", found, kept_versions([version(9), version(7)], found))
    return " ".join(next(each for each in made if each.action == action).will)


def why_not(found: ScenarioSummary, versions: list[Version]) -> dict[str, str]:
    made = orders("shop", found, kept_versions(versions, found))
    return {each.action: each.why_not for each in made if each.why_not}


def test_a_version_that_was_put_back_is_what_is_served() -> None:
    assert served_version(summary()) == 12
    assert served_version(summary(restores=7)) == 7
    assert served_version(summary(published=0)) is None


def test_each_version_stands_beside_the_one_before() -> None:
    versions = [
        version(9, "b", **{"recall@10": 0.31, "log_loss": 4.1, "ndcg@10": 0.2}),
        version(7, "a", **{"recall@10": 0.30, "log_loss": 4.0, "ndcg@10": 0.2}),
    ]
    newer, older = kept_versions(versions, summary(restores=7))
    assert newer.metrics == {"recall@10": ("31.0 %", 1), "ndcg@10": ("0.200", 0), "log_loss": ("4.10", -1)}
    assert newer.changed == "200 steps later, recall +1.0 points, a new lineage"
    assert older.changed == "the oldest that is kept"
    assert (newer.tags, older.tags) == (("good",), ("served",))


def test_a_metric_that_an_older_version_lacks_is_no_data_and_no_comparison() -> None:
    newer, older = kept_versions([version(9, click_rate=0.1), version(7)], summary())
    assert newer.metrics["click_rate"] == ("0.100", 0)
    assert older.metrics["click_rate"] == ("no data", 0)


def test_examples_of_a_version_are_a_count_and_no_rate() -> None:
    newer, _ = kept_versions([version(9, examples=12_340, tested=900), version(7, examples=7_404)], summary())
    assert newer.metrics == {"examples": ("12,340", 0), "tested": ("900", 0)}
    assert [metric_title(name) for name in ("examples", "recall@10", "other")] == ["Examples", "Recall@10", "other"]


def test_only_what_makes_sense_may_be_ordered() -> None:
    assert set(why_not(summary(), [version(9)])) == {"resume"}
    assert set(why_not(summary(learning="paused"), [version(9)])) == {"pause"}
    assert set(why_not(summary(), [])) == {"rollback", "resume"}
    assert "No other version" in why_not(summary(restores=9), [version(9)])["rollback"]


def test_a_rollback_offers_every_version_but_the_one_that_is_served() -> None:
    found = summary(restores=7)
    rollback = orders("shop", found, kept_versions([version(9), version(7)], found))[0]
    assert [each.version.version for each in rollback.choices] == [9]
    assert any("pauses until somebody resumes it" in sentence for sentence in rollback.will)


def test_each_dialog_says_what_becomes_of_the_version_that_is_served() -> None:
    plain, back = summary(), summary(restores=7)
    assert "served already" in will("promote", plain)
    assert "served in place of version 7" in will("promote", back)
    assert "Learning stays paused" in will("promote", summary(restores=7, learning="paused"))
    assert "What is served stays as it is, version 7" in will("pause", back)
    assert "What it learns is served as it is learnt." in will("resume", summary(learning="paused"))
    assert "Version 7 stays served until what is learnt has passed the gate" in will("resume", back)
