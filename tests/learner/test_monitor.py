"""The monitor watches scenarios apart, says each thing once, lets no NaN in, and goes on after a restart."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import torch

from learner.items import ItemTable
from learner.monitor import Monitor, MonitorState
from learner.online import OnlineLearner
from learner.watch import CHANGES, LIMITS
from schemas.reports import DriftReport
from schemas.signals import SIGNALS
from tests.learner.builders import NAMES, START, put, small_learner, small_model, small_settings, stream


def monitor(lineage: str = "line") -> Monitor:
    return Monitor(ItemTable(("shop", "news"), small_model()), lineage)


def clicked(watched: Monitor, scenario: str, rate: float, sums: int, seed: int = 0) -> list[DriftReport]:
    """Feed sums of forty lists each; returns what is reported meanwhile."""
    generator = np.random.default_rng(seed)
    before = len(watched.reports)
    for number in range(sums):
        watched.observe(scenario, "click_rate", 40, float(generator.binomial(40, rate)), START + number)
    return watched.reports[before:]


def watched_learner(micro_batch: int = 64) -> OnlineLearner:
    learner = small_learner(small_settings(micro_batch=micro_batch))
    put(learner, NAMES)
    learner.on_exam = lambda exam: learner.monitor.examine(exam, exam.examples[-1].time)
    return learner


def test_all_that_is_watched_is_a_signal() -> None:
    assert {*CHANGES, *LIMITS, *monitor().verdicts("shop")} <= set(SIGNALS)


def test_a_fall_of_the_click_rate_is_one_report_that_says_all_about_it() -> None:
    watched = monitor()
    assert clicked(watched, "shop", 0.4, 300) == []
    (report,) = clicked(watched, "shop", 0.2, 60)
    assert (report.scenario, report.signal, report.status, report.severity) == ("shop", "click_rate", "alarm", "page")
    assert report.report_id == "line:shop:click_rate:1"
    assert report.value is not None and report.reference is not None and report.threshold is not None
    assert report.reference - report.value >= report.threshold
    assert report.reason.startswith(f"Click rate fell from {report.reference:.3f} to {report.value:.3f} ")
    assert f"{report.window:,} observations" in report.reason and f"{report.threshold:.3g}" in report.reason
    (cleared,) = clicked(watched, "shop", 0.2, 200)
    assert (cleared.status, cleared.severity, cleared.report_id) == ("cleared", "note", "line:shop:click_rate:2")


def test_scenarios_have_no_say_in_each_other() -> None:
    watched = monitor()
    for rate in (0.4, 0.1):
        clicked(watched, "shop", rate, 150)
        clicked(watched, "news", 0.1, 150)
    assert {report.scenario for report in watched.reports} == {"shop"}
    watched.observe("nowhere", "click_rate", 10, 3, START)


def test_what_is_no_number_reaches_no_detector_and_is_counted() -> None:
    clean, dirty = monitor(), monitor()
    for each in (clean, dirty):
        clicked(each, "shop", 0.4, 200)
    for wrong in (math.nan, math.inf, -math.inf):
        dirty.observe("shop", "click_rate", 20, wrong, START)
    dirty.observe("shop", "dead_letter_rate", math.nan, 1, START)
    assert clicked(clean, "shop", 0.2, 60, seed=1) == clicked(dirty, "shop", 0.2, 60, seed=1) != []
    assert dirty.verdicts("shop")["click_rate"].reason.endswith("; 3 were no numbers")
    msgspec.json.decode(msgspec.json.encode(dirty.state), type=MonitorState)


def test_a_load_that_another_process_measures_is_judged_and_not_noted_again() -> None:
    watched = monitor()
    for value in [10.0] * 20 + [math.nan] + [90_000.0] * 5:
        watched.hear("shop", "lag", value)
        watched.hear("nowhere", "lag", value)
        watched.tick(START)
    (report,) = watched.reports
    assert (report.scenario, report.signal, report.severity) == ("shop", "lag", "page")
    assert watched.take_observed() == []
    assert watched.verdicts("shop")["lag"].reason.endswith("; 1 were no numbers")


def test_scores_that_are_no_numbers_blind_nothing() -> None:
    learner = watched_learner()
    learner.learn("shop", stream(NAMES, 64))
    with torch.no_grad():
        next(learner._mixer.mixer.parameters()).fill_(torch.nan)
    learner.learn("shop", stream(NAMES, 64, seed=1, first=64))
    assert "no numbers" in learner.monitor.verdicts("shop")["log_loss"].reason
    state = msgspec.json.encode(learner.monitor.state)
    assert b"null" not in state.replace(b'"before":null', b"").replace(b'"spread":null', b"").replace(
        b'"alarmed_at":null', b""
    ).replace(b'"distance":null,"threshold":null', b"")


def test_what_was_observed_is_summed_up_once() -> None:
    learner = watched_learner()
    learner.learn("shop", stream(NAMES, 500))
    observed = {each.signal: each for each in learner.monitor.take_observed()}
    assert {"recall@10", "ndcg@10", "recall@10_popular", "log_loss", "new_users", "feature_age"} <= observed.keys()
    assert {"calibration_error", "score_low", "score_median", "score_high"} <= observed.keys()
    assert observed["new_items"].observations == 500
    recall = observed["recall@10"]
    assert recall.total / recall.observations == learner.run.recall["shop"]
    assert (recall.least, recall.most) == (0.0, 1.0)
    assert learner.monitor.take_observed() == []


def test_reports_are_kept_until_they_are_written() -> None:
    watched = monitor()
    clicked(watched, "shop", 0.4, 300)
    (report,) = clicked(watched, "shop", 0.2, 60)
    other = monitor()
    other.load(msgspec.convert(msgspec.to_builtins(watched.state), MonitorState))
    assert other.reports == [report]
    other.written([report])
    assert other.reports == []


def test_a_monitor_that_was_restored_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    straight, stopped, resumed = watched_learner(), watched_learner(), watched_learner()
    for learner in (straight, stopped):
        learner.learn("shop", stream(NAMES, 700))
        clicked(learner.monitor, "shop", 0.4, 200)
    stopped.save(tmp_path / "1", {})
    resumed.restore(tmp_path / "1")
    for learner in (straight, resumed):
        learner.learn("shop", stream(NAMES, 400, seed=2, first=700))
        clicked(learner.monitor, "shop", 0.2, 200, seed=1)
        learner.monitor.tick(START)
    ours, theirs = (msgspec.to_builtins(each.monitor.state) for each in (straight, resumed))
    assert ours["scenarios"] == theirs["scenarios"]
    assert [each.reason for each in straight.monitor.reports] == [each.reason for each in resumed.monitor.reports] != []
    assert resumed.monitor.reports[0].report_id.startswith(stopped.run.lineage)


def test_a_removed_item_is_in_no_distribution() -> None:
    learner = watched_learner()
    learner.learn("shop", stream(NAMES, 300))
    (row,) = learner.table.rows(["item-3"])
    learner.remove_item("item-3")
    for signal in ("popularity_shift", "embedding_shift"):
        assert row not in learner.monitor.state.scenarios["shop"].distributions[signal].reference


def test_too_little_is_no_verdict_for_any_signal() -> None:
    learner = watched_learner()
    learner.learn("shop", stream(NAMES, 100))
    assert {verdict.state for verdict in learner.monitor.verdicts("shop").values()} == {"none"}
    assert all("too few" in verdict.reason for verdict in learner.monitor.verdicts("news").values())
