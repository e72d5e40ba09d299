"""Promotion and rollback: a scenario goes back whole and alone, and is served so until something better is promoted."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from learner.checkpoint import Checkpoint
from learner.online import OnlineLearner
from learner.promotion import LARGEST_WEIGHT, UnknownScenario
from learner.publication import Publication
from schemas.items import Item
from schemas.records import Example, Weights
from schemas.settings import Gate, Settings
from tests.learner.builders import START, example, put, random_texts, ranked, small_learner, small_settings, stream

SHOP = [f"shop-{number}" for number in range(20)]
NEWS = [f"news-{number}" for number in range(20)]
BOTH = [f"both-{number}" for number in range(6)]
PAST = SHOP[:4]


def settings(**gate: float) -> Settings:
    return msgspec.structs.replace(
        small_settings(),
        gate=Gate(**{"share": 1.0, "least_pairs": 20, "settled_seconds": 0.0, **gate}),  # type: ignore[arg-type]
    )


def two_shelves(given: Settings | None = None) -> OnlineLearner:
    """A learner of two scenarios with items of their own and some that both recommend."""
    learner = small_learner(given or settings())
    for names, scenario, seed in ((SHOP, "shop", 0), (NEWS, "news", 1)):
        items = [Item(item_id=name, scenarios=(scenario,)) for name in names]
        learner.put_items(items, random_texts(len(names), seed))
    put(learner, BOTH, random_texts(len(BOTH), 2))
    learner.learn("shop", stream([*SHOP, *BOTH], 120, seed=3))
    learner.learn("news", stream([*NEWS, *BOTH], 120, seed=4))
    return learner


def of_newcomers(examples: list[Example]) -> list[Example]:
    """The same from users who were never here before."""
    return [msgspec.structs.replace(each, user_since=each.time) for each in examples]


def spoil(learner: OnlineLearner, count: int = 120, first: int = 1000) -> None:
    """Dislikes of everything in the shop, from people who are there for nothing else."""
    bad = [
        example(SHOP[number % 20], offset=first + number, user=f"bot-{number}", weight=-1.0) for number in range(count)
    ]
    learner.learn("shop", bad)


class Readers:
    """What SERVE has of all that was published."""

    def __init__(self, learner: OnlineLearner) -> None:
        self._learner = learner
        self._records: dict[str, object] = {}
        self.weights: dict[str, Weights] = {}
        self.read(learner.versions.republish())

    def read(self, publication: Publication | None) -> Readers:
        if publication is not None:
            self._records.update({record.item_id: record for record in publication.vectors})
            self.weights.update({head.scenario: head for head in publication.weights})
        return self

    def list_of(self, scenario: str) -> list[str | None]:
        """The ten that are served in the scenario, of those it may recommend."""
        items = {"shop": [*SHOP, *BOTH], "news": [*NEWS, *BOTH]}[scenario]
        vectors = [self._records[name] for name in items if name in self._records]
        given = self._learner._settings
        publication = Publication(vectors, [self.weights[scenario]])  # type: ignore[arg-type]
        # What is asked is the first scenario, whichever it is.
        turned = [scenario, *(name for name in given.scenarios if name != scenario)]
        return ranked(turned, given, publication, [items[0], items[1]], [], START + 500)


def good_and_then_spoilt() -> tuple[OnlineLearner, Checkpoint, int, list[str | None]]:
    """A learner whose shop was good, what it was then, and what it served."""
    learner = two_shelves()
    readers = Readers(learner)
    version = learner.versions.promote("shop")
    kept = learner.remember()
    served = readers.list_of("shop")
    spoil(learner)
    assert readers.read(learner.versions.publish()).list_of("shop") != served
    return learner, kept, version, served


def test_after_a_rollback_the_lists_are_those_of_the_good_version_again() -> None:
    learner, kept, version, served = good_and_then_spoilt()
    readers = Readers(learner)
    readers.read(learner.versions.roll_back("shop", kept, version, learning=True))
    assert readers.list_of("shop") == served
    assert readers.weights["shop"].restores == version
    assert readers.weights["shop"].trained_through == {"headstream.events.shop:0": 119}
    assert readers.weights["news"].restores is None


def test_a_rollback_of_one_scenario_leaves_the_others_as_they_are() -> None:
    learner, kept, version, _ = good_and_then_spoilt()
    before = Readers(learner)
    heads = {name: before.weights[name].tensors for name in ("shop", "news")}
    news = before.list_of("news")
    rows = learner.table.rows(NEWS)
    vectors, bias = learner.table.vectors[rows].clone(), learner.table.bias[1].clone()
    after = Readers(learner).read(learner.versions.roll_back("shop", kept, version, learning=True))
    assert after.list_of("news") == news
    assert after.weights["news"].tensors == heads["news"]
    assert after.weights["shop"].tensors != heads["shop"]
    assert torch.equal(learner.table.vectors[rows], vectors)
    assert torch.equal(learner.table.bias[1], bias)


def test_what_is_served_stays_the_good_version_while_learning_goes_on_from_it_until_a_promotion() -> None:
    learner, kept, version, served = good_and_then_spoilt()
    readers = Readers(learner).read(learner.versions.roll_back("shop", kept, version, learning=True))
    learner.learn("news", stream([*NEWS, *BOTH], 60, seed=6, first=500))
    learner.learn("shop", stream([*SHOP, *BOTH], 200, seed=7, first=2000))
    readers.read(learner.versions.publish()).read(learner.versions.republish())
    assert readers.list_of("shop") == served
    assert readers.weights["shop"].restores == version

    promoted = learner.versions.promote("shop")
    readers.read(learner.versions.publish())
    assert promoted > version
    assert readers.weights["shop"].restores is None
    assert readers.list_of("shop") == Readers(learner).list_of("shop") != served


def test_what_is_learnt_goes_on_from_the_good_version_and_not_from_what_was_spoilt() -> None:
    learner, kept, version, _ = good_and_then_spoilt()
    learner.versions.roll_back("shop", kept, version, learning=True)
    now, then = learner.remember().tensors, kept.tensors
    own = learner.table.own(0)
    for name, dimension in learner._parts.by_scenario().items():
        if name.startswith(("trainer/", "mixer/", "replay/")) or name in ("table/bias", "table/popularity.keys"):
            assert torch.equal(now[name].select(dimension, 0), then[name].select(dimension, 0)), name
    assert torch.equal(now["table/vectors"][own], then["table/vectors"][own])
    assert not now["trainer/vectors.mean"][own].any()


def test_a_paused_scenario_is_tested_and_learns_nothing() -> None:
    learner = two_shelves()
    learner.versions.pause("shop")
    through = Readers(learner).weights["shop"].trained_through
    before, tested = learner.remember().tensors, learner.versions.figures("shop")["tested"]
    learner.learn("shop", stream([*SHOP, *BOTH], 40, seed=8, first=3000))
    after = learner.remember().tensors
    assert learner.versions.figures("shop")["tested"] > tested
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert learner.learn("shop", stream([*SHOP, *BOTH], 40, seed=8, first=3000)) == 0
    assert Readers(learner).weights["shop"].trained_through == through
    learner.versions.resume("shop")
    learner.learn("shop", stream([*SHOP, *BOTH], 8, seed=8, first=4000))
    assert Readers(learner).weights["shop"].trained_through == {"headstream.events.shop:0": 4007}


def test_the_gate_calls_worse_what_was_spoilt_and_passes_what_was_not() -> None:
    learner, wanted = two_shelves(settings(error=1e-3)), {"shop": SHOP[:8], "news": NEWS[:8]}
    assert learner.versions.verdicts() == {"shop": "passed", "news": "passed"}
    for name, items in wanted.items():
        learner.learn(name, stream(items, 200, seed=5, first=500))
        learner.versions.promote(name)
    assert learner.versions.verdicts() == {"shop": "undecided", "news": "undecided"}
    for turn in range(20):
        at = 1000 + turn * 100
        # Something goes wrong with the shop's weights again and again: it ranks upside down.
        learner._models[0].mixer.linear.data.copy_(-learner.promotion.good.model(0).mixer.linear.data)
        learner._models[0].mixer.outward.data.zero_()
        learner.learn("shop", stream(SHOP[:8], 24, seed=turn, first=at))
        learner.learn("news", stream(NEWS[:8], 24, seed=turn, first=at))
        if learner.versions.verdicts()["shop"] == "worse":
            break
    assert learner.versions.verdicts()["shop"] == "worse"
    learner.learn("news", stream(NEWS[:8], 80, seed=50, first=10_000))
    assert learner.versions.verdicts() == {"shop": "worse", "news": "passed"}


def test_what_newcomers_taught_does_not_become_good_and_is_doubtful_until_others_are_back() -> None:
    learner = two_shelves(settings(settled_seconds=50.0))
    for name in ("shop", "news"):
        learner.versions.promote(name)
    for turn in range(60):
        at = 1000 + turn * 100
        learner.learn("shop", of_newcomers(stream(SHOP, 40, seed=turn, first=at)))
        learner.learn("shop", stream(SHOP[:8], 24, seed=turn, first=at + 50))
        learner.learn("news", stream(NEWS[:8], 24, seed=turn, first=at))
    assert learner.versions.is_doubtful("shop") and not learner.versions.is_doubtful("news")
    assert learner.versions.verdicts() == {"shop": "undecided", "news": "passed"}
    for turn in range(60):
        learner.learn("shop", stream(SHOP[:8], 24, seed=turn, first=10_000 + turn * 100))
    assert not learner.versions.is_doubtful("shop")
    assert learner.versions.verdicts()["shop"] == "passed"


def test_nothing_is_compared_before_anything_was_good_or_where_no_share_is() -> None:
    learner = two_shelves()
    assert learner.promotion.standings["shop"].test.pairs == 0
    still = two_shelves(settings(share=0.0))
    still.versions.promote("shop")
    still.learn("shop", stream([*SHOP, *BOTH], 40, seed=8, first=3000))
    assert still.promotion.standings["shop"].test.pairs == 0


def test_items_that_came_since_are_recommended_by_a_version_that_never_met_them() -> None:
    learner, kept, version, _ = good_and_then_spoilt()
    late = [Item(item_id=f"late-{number}", scenarios=("shop",)) for number in range(40)]
    learner.put_items(late, random_texts(40, seed=9))
    learner.learn("shop", stream([each.item_id for each in late], 40, seed=9, first=4000))
    rows = learner.table.rows([each.item_id for each in late])
    fresh = learner.table.vectors[rows].clone()
    publication = learner.versions.roll_back("shop", kept, version, learning=True)
    found = {record.item_id: record for record in publication.vectors}
    assert all(each.item_id in found for each in late)
    assert torch.equal(learner.table.vectors[rows], fresh)


def test_a_row_that_another_item_took_since_is_not_given_what_was_known_of_the_first() -> None:
    learner, kept, version, _ = good_and_then_spoilt()
    (row,) = learner.table.rows(["shop-5"])
    learner.remove_item("shop-5")
    put(learner, ["other"], random_texts(1, seed=11), scenarios=("shop",))
    assert learner.table.rows(["other"]) == [row]
    vector = learner.table.vectors[row].clone()
    learner.versions.roll_back("shop", kept, version, learning=True)
    assert torch.equal(learner.table.vectors[row], vector)
    tensors = learner.remember().tensors
    assert not (tensors["replay/target"][0] == row).any()
    assert not (tensors["replay/history"][0] == row).any()
    assert row not in learner.table.covisitation.describe(learner.table.own(0)).rows


def test_a_text_that_changed_since_stays_changed() -> None:
    learner, kept, version, _ = good_and_then_spoilt()
    (row,) = learner.table.rows(["shop-5"])
    changed = random_texts(1, seed=12)
    put(learner, ["shop-5"], changed, scenarios=("shop",))
    learner.versions.roll_back("shop", kept, version, learning=True)
    then = kept.tensors["table/vectors"][row] - kept.tensors["texts/projected"][row]
    projected: Tensor = learner._projection.apply(changed)[0]
    assert torch.allclose(learner.table.vectors[row], then + projected, atol=1e-6)


def test_a_learner_that_stops_while_an_earlier_version_is_served_goes_on_so(tmp_path: Path) -> None:
    learner, kept, version, served = good_and_then_spoilt()
    learner.versions.roll_back("shop", kept, version, learning=False)
    learner.save(tmp_path / "checkpoint", {})
    again = small_learner(settings())
    again.restore(tmp_path / "checkpoint")
    again.versions.adopt_good("shop", kept)
    assert again.promotion.standings["shop"].restores == version
    assert not again.promotion.standings["shop"].learning
    readers = Readers(again)
    assert readers.list_of("shop") == served
    assert readers.weights["shop"].restores == version


def test_a_version_from_before_the_scenario_was_there_is_refused_and_nothing_changes() -> None:
    old = small_learner(msgspec.structs.replace(small_settings(("news", "travel")), gate=settings().gate))
    put(old, NEWS)
    old.learn("news", stream(NEWS, 20))
    learner = two_shelves()
    before = learner.remember().tensors
    with pytest.raises(UnknownScenario, match="news, travel"):
        learner.versions.roll_back("shop", old.remember(), 3, learning=True)
    after = learner.remember().tensors
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10 * LARGEST_WEIGHT])
def test_what_is_no_number_or_out_of_all_proportion_is_not_fit_to_be_published(value: float) -> None:
    learner = two_shelves()
    assert learner.versions.unfit() == {}
    learner.table.vectors[learner.table.row_of["news-3"], 0] = value
    learner._news.suspect(torch.tensor([learner.table.row_of["news-3"]]))
    assert list(learner.versions.unfit()) == ["news"]
    learner._models[0].head.vector.data[0, 0] = value
    assert list(learner.versions.unfit()) == ["shop", "news"]


def test_while_nobody_has_been_here_for_long_enough_to_have_a_say_what_is_learnt_passes() -> None:
    learner = two_shelves(settings(settled_seconds=1000.0))
    learner.versions.promote("shop")
    learner.learn("shop", of_newcomers(stream([*SHOP, *BOTH], 40, seed=8, first=200)))
    assert learner.promotion.standings["shop"].test.pairs == 0
    assert learner.versions.verdicts()["shop"] == "passed"
    learner.learn("shop", of_newcomers(stream([*SHOP, *BOTH], 40, seed=8, first=2000)))
    learner.versions.promote("shop")
    assert learner.versions.verdicts()["shop"] == "undecided"


def test_after_a_rollback_to_a_version_from_long_ago_those_who_came_meanwhile_have_a_say() -> None:
    learner = two_shelves(settings(settled_seconds=50.0))
    version = learner.versions.promote("shop")
    kept = learner.remember()
    later = [
        msgspec.structs.replace(each, user_since=START + 1000.0)
        for each in stream([*SHOP, *BOTH], 40, seed=8, first=2000)
    ]
    learner.learn("shop", later)
    learner.versions.roll_back("shop", kept, version, learning=True)
    learner.learn("shop", [msgspec.structs.replace(each, offset=each.offset + 1000) for each in later])
    assert learner.promotion.standings["shop"].test.pairs > 0
