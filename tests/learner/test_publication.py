"""Publications: all that is news and nothing else, and where it stands."""

from __future__ import annotations

import pytest

from learner import texts
from learner.publication import Publication
from schemas.items import Item
from tests.learner.builders import (
    NAMES,
    START,
    assert_near,
    example,
    put,
    random_texts,
    ranked,
    small_learner,
    small_settings,
    started,
    stream,
)


def test_there_is_no_publication_without_news() -> None:
    learner = started(20)
    used = {each.item_id for each in stream(NAMES, 20)}
    first = learner.versions.publish()
    assert first is not None and {record.item_id for record in first.vectors} == used
    assert learner.versions.publish() is None
    learner.learn("news", [example("item-1", ["item-2"], offset=0)])
    second = learner.versions.publish()
    assert second is not None
    assert {"item-1", "item-2"} <= {record.item_id for record in second.vectors}
    assert [head.version for head in second.weights] == [2, 2]
    assert all(not record.fresh for record in second.vectors)


def test_new_items_alone_are_news_already_told() -> None:
    learner = small_learner()
    put(learner, ["a"])
    assert learner.versions.publish() is None
    assert [record.item_id for record in learner.versions.republish().vectors] == ["a"]


def test_the_first_step_fits_the_projection_and_tells_every_vector_anew() -> None:
    learner = small_learner()
    names = [f"item-{number}" for number in range(100)]
    put(learner, names)
    learner.learn("shop", [example("item-0", offset=0)])
    publication = learner.versions.publish()
    assert publication is not None
    assert {record.item_id for record in publication.vectors} == set(names)
    # An item that comes later is projected as the others were.
    learner.put_items([Item(item_id="twin")], random_texts(len(names))[50:51])
    twin, fiftieth = learner.table.rows(["twin", "item-50"])
    assert_near(learner.table.vectors[twin], learner.table.vectors[fiftieth])


def test_enough_texts_fit_the_projection_before_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "ENOUGH_TEXTS", 80)
    learner = small_learner()
    names = [f"item-{number}" for number in range(100)]
    put(learner, names[:70])
    assert learner.versions.publish() is None
    learner.put_items([Item(item_id=name) for name in names[70:]], random_texts(30, seed=1))
    publication = learner.versions.publish()
    assert publication is not None
    assert {record.item_id for record in publication.vectors} == set(names[:70])


def test_a_publication_says_where_it_stands() -> None:
    learner = started(20)
    publication = learner.versions.republish()
    shop, news = publication.weights
    assert (shop.scenario, news.scenario) == ("shop", "news")
    assert (shop.lineage, shop.version, shop.step, shop.examples) == (learner.run.lineage, 1, 3, 20)
    assert (shop.clock, shop.scenario_clock, news.scenario_clock) == (20.0, 20.0, 0.0)
    assert shop.published_with == ["shop", "news"]
    assert shop.published_at == START
    assert shop.recall == learner.run.recall["shop"] and news.recall is None
    assert learner.versions.republish().weights[0].version == 2


def test_small_publications_add_up_to_the_whole() -> None:
    """A mirror that took every publication ranks like one that took everything at once."""
    learner = started(0)
    vectors = {record.item_id: record for record in learner.versions.republish().vectors}
    for start in range(0, 90, 15):
        learner.learn("shop", stream(NAMES, 15, seed=start, first=start))
        publication = learner.versions.publish()
        assert publication is not None
        vectors.update({record.item_id: record for record in publication.vectors})
    whole = learner.versions.republish()
    pieces = Publication(list(vectors.values()), whole.weights)
    shown = [
        ranked(("shop", "news"), small_settings(), each, ["item-1", "item-2"], ["item-2"], START + 200)
        for each in (pieces, whole)
    ]
    assert shown[0][:5] == shown[1][:5]
