"""Signals of an exam are what their definitions say, read off before anything is learnt."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learner.exam import Exam
from learner.exam_signals import LEAST_CHANCE, PAST_SECONDS, calibration_error, exam_signals
from learner.outcomes import COLD_USES, DEPTH
from tests.learner.builders import NAMES, START, example, started, stream


def exams(count: int = 64) -> tuple[list[Exam], list[dict[str, np.ndarray]]]:
    """The exams of a stream, and what was read off each when it was there."""
    learner, taken, signals = started(40), [], []

    def examine(exam: Exam) -> None:
        taken.append(exam)
        signals.append(exam_signals(exam, learner.table, START + 1000.0).observed)

    learner.on_exam = examine
    learner.learn("shop", stream(NAMES, count, seed=1, first=40))
    return taken, signals


def test_recall_gain_and_loss_are_those_of_the_place_in_the_ranking() -> None:
    taken, found = exams()
    for exam, signals in zip(taken, found, strict=True):
        assert exam.ranking is not None
        for number, target in enumerate(exam.lessons.batch.target[exam.tested].tolist()):
            rows, scores = exam.ranking.rows[number].tolist(), exam.ranking.scores[number].double()
            place = rows.index(target) if target in rows else len(rows)
            chance = float(scores.softmax(0)[place]) if target in rows else 0.0
            assert signals["recall@10"][number] == (place < DEPTH)
            assert signals["ndcg@10"][number] == pytest.approx(1 / math.log2(place + 2) if place < DEPTH else 0.0)
            assert signals["log_loss"][number] == pytest.approx(-math.log(max(chance, LEAST_CHANCE)), rel=1e-5)


def test_what_is_popular_is_tested_as_a_list_that_heeds_what_may_not_be_shown() -> None:
    learner, checked = started(60), 0

    def examine(exam: Exam) -> None:
        nonlocal checked
        found = exam_signals(exam, learner.table, START).observed["recall@10_popular"]
        keys = learner.table.popularity.keys[0, :, 1]
        eligible = learner.table.eligible[0].nonzero().flatten().tolist()
        for number, test in enumerate(exam.tested.tolist()):
            excluded = set(exam.lessons.asked.excluded[test].tolist())
            allowed = sorted((row for row in eligible if row not in excluded), key=lambda row: -float(keys[row]))
            assert found[number] == (int(exam.lessons.batch.target[test]) in allowed[:DEPTH])
            checked += 1

    learner.on_exam = examine
    learner.learn("shop", stream(NAMES, 80, seed=2, first=60))
    assert checked > 60


def test_newness_and_age_are_of_every_example_and_playback_has_no_age() -> None:
    learner, found = started(120), []
    assert learner.table.popularity.events[learner.table.row_of["item-1"]] >= COLD_USES
    learner.on_exam = lambda exam: found.append(exam_signals(exam, learner.table, START + 200.0).observed)
    learner.learn("shop", [example("unheard", offset=190), example("item-1", ["item-2"], offset=195)])
    (signals,) = found
    assert signals["new_users"].tolist() == [1.0, 0.0]
    assert signals["new_items"].tolist() == [1.0, 0.0]
    assert signals["feature_age"].tolist() == [10.0, 5.0]
    found.clear()
    learner.on_exam = lambda exam: found.append(exam_signals(exam, learner.table, START + 2 * PAST_SECONDS).observed)
    learner.learn("shop", [example("item-3", offset=199)])
    assert found[0]["feature_age"].tolist() == []


def test_the_calibration_error_is_how_far_chances_lie_from_shares() -> None:
    chance = np.array([0.95, 0.95, 0.15, 0.15])
    assert calibration_error(chance, np.array([1.0, 1.0, 0.0, 0.0])) == pytest.approx((2 * 0.05 + 2 * 0.15) / 4)
    assert calibration_error(chance, np.array([0.0, 0.0, 1.0, 0.0])) == pytest.approx((2 * 0.95 + 2 * 0.35) / 4)
    assert calibration_error(np.array([1.0]), np.array([1.0])) == 0


def test_reading_changes_nothing() -> None:
    learner = started(40)
    before = torch.cat([learner.table.vectors.flatten(), learner.table.popularity.keys.flatten().float()])
    exam = learner.examiner.examine("shop", stream(NAMES, 20, seed=3))
    assert exam is not None
    exam_signals(exam, learner.table, START)
    after = torch.cat([learner.table.vectors.flatten(), learner.table.popularity.keys.flatten().float()])
    assert torch.equal(before, after)
