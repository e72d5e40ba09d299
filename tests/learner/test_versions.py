"""Versions: each publication makes one of every scenario, and says no more than what is news.

What a rollback and a promotion do to the lists is in `test_promotion.py`.
"""

from __future__ import annotations

import msgspec
import pytest

from learner.online import OnlineLearner
from learner.promotion import UnknownScenario
from learner.publication import Publication
from schemas.settings import Gate
from tests.learner.builders import NAMES, START, put, random_texts, small_learner, small_settings, started, stream


def items_of(publication: Publication | None) -> set[str]:
    assert publication is not None
    return {record.item_id for record in publication.vectors}


def numbers(publication: Publication | None) -> list[int]:
    assert publication is not None
    return [head.version for head in publication.weights]


def published(learner: OnlineLearner) -> OnlineLearner:
    """The same, with everything published that there is."""
    learner.versions.republish()
    return learner


def test_a_publication_holds_the_weights_of_all_scenarios_as_one_whole() -> None:
    learner = started()
    publication = learner.versions.publish()
    assert publication is not None
    assert [head.scenario for head in publication.weights] == ["shop", "news"]
    assert {tuple(head.published_with) for head in publication.weights} == {("shop", "news")}
    assert {(head.lineage, head.step) for head in publication.weights} == {(learner.run.lineage, learner.run.step)}
    assert {head.published_at for head in publication.weights} == {START}


def test_where_nothing_is_news_nothing_is_published_and_no_version_is_made() -> None:
    learner = started()
    assert numbers(learner.versions.publish()) == [1, 1]
    assert learner.versions.publish() is None
    learner.learn("shop", stream(NAMES, 8, seed=1, first=100))
    assert numbers(learner.versions.publish()) == [2, 2]


def test_a_publication_names_the_offsets_through_which_its_weights_were_taught() -> None:
    learner = started()
    publication = learner.versions.publish()
    assert publication is not None
    assert [head.trained_through for head in publication.weights] == [{"headstream.events.shop:0": 39}, {}]
    assert [(head.examples, head.tested, head.hits) for head in publication.weights] == [
        (of.examples, of.tested, of.hits) for of in learner.run.progress.values()
    ]


def test_an_item_that_was_put_and_told_at_once_is_no_news_afterwards() -> None:
    learner = published(started())
    put(learner, ["late"], random_texts(1, seed=3))
    learner.versions.publish()
    assert learner.versions.publish() is None
    assert "late" in items_of(learner.versions.republish())


def test_everything_is_published_again_for_those_who_have_none_of_it() -> None:
    learner = published(started())
    again = learner.versions.republish()
    assert items_of(again) == set(NAMES)
    assert numbers(again) == [2, 2]


def test_figures_are_those_by_which_people_tell_versions_apart() -> None:
    learner = started()
    shop = learner.run.progress["shop"]
    assert learner.versions.figures("shop") == {
        "recall@10": shop.recall, "examples": 40, "tested": shop.tested, "hits": shop.hits,
    }  # fmt: skip
    assert learner.versions.figures("news") == {"examples": 0, "tested": 0, "hits": 0}


def test_a_first_version_is_not_good_before_enough_was_tested() -> None:
    strict = small_learner(msgspec.structs.replace(small_settings(), gate=Gate(least_pairs=1000)))
    put(strict, NAMES)
    strict.learn("shop", stream(NAMES, 40))
    assert strict.versions.verdicts() == {"shop": "undecided", "news": "undecided"}


def test_promotion_names_the_version_that_was_published_last() -> None:
    learner = published(started())
    learner.learn("shop", stream(NAMES, 8, seed=1, first=100))
    learner.versions.publish()
    assert learner.versions.promote("shop") == 2
    assert learner.versions.publish() is None  # what was learnt is what is served: nothing is new to anyone


def test_a_checkpoint_that_knows_nothing_of_the_scenario_is_refused_and_nothing_changes() -> None:
    other = small_learner(small_settings(("news", "video")))
    put(other, NAMES)
    kept = other.remember()
    learner = published(started())
    before = numbers(learner.versions.republish())
    with pytest.raises(UnknownScenario, match="shop"):
        learner.versions.roll_back("shop", kept, 1, learning=True)
    assert learner.promotion.standings["shop"].restores is None
    assert numbers(learner.versions.republish()) == [number + 1 for number in before]


def test_what_is_loaded_has_been_published_to_nobody() -> None:
    learner = published(started())
    assert learner.versions.publish() is None
    learner.versions.load(learner.promotion.standings)
    assert items_of(learner.versions.publish()) == set(NAMES)


def test_how_far_a_scenario_is_is_told_even_of_examples_that_teach_nothing() -> None:
    """Such as those held out; else they would look as if they waited to be learnt."""
    learner = small_learner(small_settings(probe_share=1.0, probe_rows=50))
    put(learner, NAMES)
    learner.versions.publish()
    learner.learn("shop", stream(NAMES, 3))
    publication = learner.versions.publish()
    assert publication is not None
    assert (learner.run.step, {each.scenario: each.examples for each in publication.weights}["shop"]) == (0, 3)
