"""A run of learning: its name and counts go on from a checkpoint, and a stream that begins has no past."""

from __future__ import annotations

from learner.facts import Facts
from learner.ranking import Clocks
from learner.run import Run
from tests.learner.builders import example, started


def test_each_run_has_a_name_of_its_own() -> None:
    assert Run(["shop"]).lineage != Run(["shop"]).lineage


def test_a_run_that_begins_has_counted_nothing() -> None:
    run = Run(["shop", "news"])
    assert (run.step, run.skipped_steps, run.left_out, run.clock) == (0, 0, 0, 0.0)
    assert run.recall == {"shop": None, "news": None}
    assert run.examples == {"shop": 0, "news": 0}


def test_uses_move_the_clock_of_their_scenario_and_the_one_of_all() -> None:
    run = Run(["shop", "news"])
    run.count("shop", 3)
    run.count("news", 2)
    assert (run.clocks("shop"), run.clocks("news")) == (Clocks(5.0, 3.0), Clocks(5.0, 2.0))


def test_recall_is_of_the_newest_tests_alone() -> None:
    run = Run(["shop", "news"])
    run.progress["shop"].note([True, True, False, False], 3)
    assert run.recall == {"shop": 1 / 3, "news": None}
    assert (run.progress["shop"].tested, run.progress["shop"].hits) == (4, 2)


def test_a_stream_that_begins_forgets_counts_and_offsets_and_keeps_clocks_and_versions() -> None:
    run = Run(["shop"])
    run.count("shop", 4)
    shop = run.progress["shop"]
    shop.mark([example("a", offset=7)])
    shop.note([True], 10)
    shop.version = 3
    run.begin_stream()
    assert (run.examples, run.recall, shop.through) == ({"shop": 0}, {"shop": None}, {})
    assert (run.clocks("shop"), shop.version) == (Clocks(4.0, 4.0), 3)
    assert [each.offset for each in shop.unlearnt([example("a", offset=7)])] == [7]


def test_a_run_goes_on_as_the_one_that_was_saved_and_new_scenarios_begin() -> None:
    learner = started()
    facts = Facts.read(learner.remember().facts, {})
    run = Run(["video", "shop"])
    run.load(facts)
    assert (run.lineage, run.step, run.clock) == (learner.run.lineage, learner.run.step, learner.run.clock)
    assert run.examples == {"video": 0, "shop": 40}
    assert run.progress["shop"] == learner.run.progress["shop"]


def test_a_successor_takes_over_offsets_counts_and_versions_and_keeps_its_name_and_what_it_knows() -> None:
    earlier = started()
    earlier.versions.republish()
    run = Run(["shop", "video"])
    run.count("shop", 9)
    name = run.lineage
    run.succeed(earlier.remember())
    shop = run.progress["shop"]
    assert (run.lineage, run.clocks("shop")) == (name, Clocks(9.0, 9.0))
    assert (shop.through, shop.examples, shop.version) == ({0: 39}, 40, 1)
    assert shop.unlearnt([example("a", offset=39), example("b", offset=40)]) == [example("b", offset=40)]
    assert run.examples["video"] == 0
