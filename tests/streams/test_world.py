"""The world is honest: same seed, same world; texts tell topics in part; better lists are clicked more."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.figures import Clicks
from streams.phrasebook import DEPARTMENTS, DOMAINS, HINTS, STYLES, TOPICS
from streams.world import BadShift, Shift, UnknownScenario, World

SCENARIOS = ("shop", "news")
LIST = 10

Acts = Counter[str]
"""How often each item of a scenario was acted on."""

Policy = Callable[[World, int, str, Acts, float, np.random.Generator], list[str]]


def popular(world: World, seat: int, scenario: str, acts: Acts, _: float, __: np.random.Generator) -> list[str]:
    known = world.acted(seat, scenario)
    return [item_id for item_id, _ in acts.most_common() if item_id not in known][:LIST]


def oracle(world: World, seat: int, scenario: str, _: Acts, elapsed: float, __: np.random.Generator) -> list[str]:
    unknown = world.unknown(seat, scenario)
    chances = world.click_probability(seat, scenario, unknown, elapsed)
    return [unknown[at] for at in np.argsort(-chances)[:LIST]]


def anything(world: World, seat: int, scenario: str, _: Acts, __: float, generator: np.random.Generator) -> list[str]:
    unknown = world.unknown(seat, scenario)
    return [unknown[at] for at in generator.permutation(len(unknown))[:LIST]]


def click_rate(policy: Policy, *, acts: int = 2500, seed: int = 3) -> float:
    """Let users read lists of one policy, with some searching, as the audience does but without Kafka or time."""
    world, generator, total = World(SCENARIOS, seed), np.random.default_rng(seed + 1), Clicks()
    acted = {name: Counter[str]() for name in SCENARIOS}
    for step, scenario in zip(range(acts), itertools.cycle(SCENARIOS), strict=False):
        elapsed = step / 20
        seat = int(generator.integers(len(world.users)))
        if step < 200 or generator.random() < 0.15:
            act = world.search(seat, scenario, elapsed, generator)
        else:
            shown = policy(world, seat, scenario, acted[scenario], elapsed, generator)
            reading = world.read(seat, scenario, shown, elapsed, generator)
            total += Clicks(reading.looked_at, int(reading.clicked))
            act = reading.act
        if act is not None:
            world.act(seat, scenario, act.item_id)
            acted[scenario][act.item_id] += 1
    assert total.rate is not None
    return total.rate


def chances(world: World, scenario: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """What every user thinks of every item; (users, items)."""
    items = [item.item_id for item in world.items() if item.scenario == scenario]
    return np.array([world.click_probability(seat, scenario, items, 0.0) for seat in range(len(world.users))])


def test_the_same_seed_makes_the_same_world() -> None:
    one, other = World(SCENARIOS, 7), World(SCENARIOS, 7)
    assert one.items() == other.items()
    assert one.users == other.users
    assert np.array_equal(chances(one, "news"), chances(other, "news"))
    assert [one.arrive("news", at) for at in (1.0, 2.0)] == [other.arrive("news", at) for at in (1.0, 2.0)]


def test_another_seed_makes_another_world() -> None:
    assert World(SCENARIOS, 7).items() != World(SCENARIOS, 8).items()


def test_what_happens_in_one_scenario_does_not_change_the_next_item_of_another() -> None:
    quiet, busy = World(SCENARIOS, 7), World(SCENARIOS, 7)
    for at in range(5):
        busy.arrive("shop", float(at))
    assert quiet.arrive("news", 9.0) == busy.arrive("news", 9.0)


def test_lists_by_taste_are_clicked_far_more_than_popular_lists_and_those_more_than_any() -> None:
    by_taste, by_popularity, by_chance = click_rate(oracle), click_rate(popular), click_rate(anything)
    assert 0.25 < by_taste < 0.45
    assert 0.045 < by_popularity < 0.13
    assert by_taste > 2.5 * by_popularity
    assert by_popularity > 1.1 * by_chance


def test_texts_of_one_topic_are_more_alike_but_do_not_give_it_away() -> None:
    items = World(SCENARIOS, 5, items=100).items()
    # Words of five letters and more: the short ones say nothing of a topic.
    words = [set(re.findall(r"[a-z]{5,}", f"{item.title} {item.text}".lower())) for item in items]
    alike: dict[bool, list[float]] = {True: [], False: []}
    for left, right in itertools.combinations(range(len(items)), 2):
        union = words[left] | words[right]
        alike[items[left].topic == items[right].topic].append(len(words[left] & words[right]) / len(union))
    assert np.mean(alike[True]) > 1.5 * np.mean(alike[False])
    subjects = DOMAINS["shop"].subjects
    shop = [item for item in items if item.scenario == "shop"]
    told = [item.title.startswith(subjects[item.topic]) for item in shop]
    assert 0.75 < np.mean(told) < 0.97


def test_tastes_are_shared_between_scenarios_in_part() -> None:
    world = World(SCENARIOS, 5)
    topics = {
        name: np.array([[item.topic == topic for item in world.items() if item.scenario == name] for topic in TOPICS])
        for name in SCENARIOS
    }
    # Mean appeal of each topic for each user in both scenarios.
    means = {name: np.log(chances(world, name)) @ topics[name].T / topics[name].sum(axis=1) for name in SCENARIOS}
    centred = {name: mean - mean.mean(axis=0) for name, mean in means.items()}
    correlation = np.corrcoef(centred["shop"].ravel(), centred["news"].ravel())[0, 1]
    assert 0.4 < correlation < 0.95


def test_a_shift_changes_clicks_in_the_named_scenario_alone_and_only_when_it_is_due() -> None:
    world = World(SCENARIOS, 5, shifts=[Shift("news", after_seconds=60, share=0.5)])
    before = {name: chances(world, name) for name in SCENARIOS}
    assert world.advance(59.9) == []
    assert np.array_equal(chances(world, "news"), before["news"])
    assert world.advance(60.0) == [Shift("news", 60, 0.5)]
    moved = (chances(world, "news") != before["news"]).any(axis=1)
    assert moved.sum() == len(world.users) // 2
    assert np.array_equal(chances(world, "shop"), before["shop"])
    assert world.advance(61.0) == []


def test_with_a_fashion_what_everybody_took_to_be_good_no_longer_is() -> None:
    def liked(fashion: bool) -> tuple[np.ndarray, np.ndarray]:
        """How well each item is liked in the mean, before and after all tastes shift."""
        world = World(SCENARIOS, 5, shifts=[Shift("news", 60, 1.0, fashion)])
        before = chances(world, "news").mean(axis=0)
        world.advance(60.0)
        return before, chances(world, "news").mean(axis=0)

    alike = [float(np.corrcoef(*liked(fashion))[0, 1]) for fashion in (False, True)]
    assert alike[0] > 0.6 > 0.3 > alike[1]


def test_a_shift_of_no_scenario_or_of_no_share_is_refused_by_name() -> None:
    with pytest.raises(UnknownScenario, match='scenario "films" is not one of shop, news'):
        World(SCENARIOS, 1, shifts=[Shift("films", 1.0, 0.5)])
    with pytest.raises(BadShift, match=r"share is 1\.5; 0 to 1 is allowed"):
        World(SCENARIOS, 1, shifts=[Shift("news", 1.0, 1.5)])


def test_an_item_acted_on_is_never_acted_on_again() -> None:
    world, generator = World(("video",), 2, items=30, users=3), np.random.default_rng(0)
    item_id = world.items()[0].item_id
    world.act(1, "video", item_id)
    assert world.click_probability(1, "video", [item_id], 0.0) == [0.0]
    assert world.click_probability(2, "video", [item_id], 0.0) > 0
    acts = [world.read(1, "video", [item_id], 0.0, generator).act for _ in range(500)]
    found = [world.search(1, "video", 0.0, generator) for _ in range(500)]
    assert set(acts) == {None}
    assert item_id not in {act.item_id for act in found if act}


def test_a_topic_met_again_and_again_loses_appeal_and_the_others_do_not() -> None:
    world = World(("video",), 2, users=3)
    first = world.items()[0]
    same = [item.item_id for item in world.items() if item.topic == first.topic][:12]
    other = [item.item_id for item in world.items() if item.topic != first.topic]
    watched, rest = same[:6], same[6:]
    before = world.click_probability(0, "video", [*rest, *other], 0.0)
    for item_id in watched:
        world.act(0, "video", item_id)
    after = world.click_probability(0, "video", [*rest, *other], 0.0)
    assert (after[: len(rest)] < before[: len(rest)]).all()
    assert np.array_equal(after[len(rest) :], before[len(rest) :])


def test_what_stands_lower_in_a_list_is_looked_at_less() -> None:
    world, generator = World(("video",), 2), np.random.default_rng(0)
    shown = [item.item_id for item in world.items()][:LIST]
    depth = [world.read(0, "video", shown, 0.0, generator).looked_at for _ in range(2000)]
    looked = [sum(at < each for each in depth) for at in range(LIST)]
    assert looked[0] == 2000
    assert looked == sorted(looked, reverse=True)
    assert looked[-1] < looked[0] / 2


def test_an_item_that_left_or_never_was_is_not_liked() -> None:
    world = World(("news",), 2, items=2)
    arrivals = [world.arrive("news", float(at)) for at in range(2)]
    gone = [left for _, left in arrivals if left is not None]
    assert len(gone) == 1
    assert not world.live("news", gone[0])
    assert gone[0] not in {item.item_id for item in world.items()}
    assert world.click_probability(0, "news", [*gone, "never"], 0.0).tolist() == [0.0, 0.0]


def test_a_new_item_of_a_news_page_appeals_most_while_it_is_new() -> None:
    world = World(("news",), 2)
    item, _ = world.arrive("news", 100.0)
    new, old = (world.click_probability(0, "news", [item.item_id], at)[0] for at in (100.0, 500.0))
    assert new > 1.5 * old


def test_news_come_faster_than_journeys() -> None:
    world = World(("news", "travel"), 2)
    assert world.seconds_between_arrivals("news") < world.seconds_between_arrivals("travel") / 5


def test_who_has_acted_on_half_a_shelf_gives_the_seat_to_somebody_new() -> None:
    world = World(("video",), 2, items=20, users=2)
    leaving, staying = world.users
    for item in world.items()[:10]:
        world.act(0, "video", item.item_id)
    assert world.users[0] not in (leaving, staying)
    assert world.users[1] == staying
    assert world.acted(0, "video") == set()


def test_scenarios_that_are_no_domain_get_one_in_turn() -> None:
    world = World(("a", "b", "news"), 2, items=4)
    titles = {name: [item.title for item in world.items() if item.scenario == name] for name in world.scenarios}
    for name, domain in (("a", "shop"), ("b", "video"), ("news", "news")):
        subjects = tuple(itertools.chain(*DOMAINS[domain].subjects.values()))
        assert all(title.startswith(subjects) for title in titles[name])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), arrivals=st.integers(0, 60), items=st.integers(2, 20))
def test_a_shelf_never_grows_past_its_room_and_names_no_item_twice(seed: int, arrivals: int, items: int) -> None:
    world = World(("social",), seed, items=items, users=2)
    ids = [item.item_id for item in world.items()]
    for at in range(arrivals):
        item, left = world.arrive("social", float(at))
        ids.append(item.item_id)
        assert left is None or not world.live("social", left)
        assert world.live("social", item.item_id)
    assert len(set(ids)) == len(ids) == items + arrivals
    assert len(world.items()) == min(items + arrivals, -(-items * 3 // 2))
    assert all(item.title and item.text for item in world.items())


def test_every_domain_speaks_of_every_topic_and_style() -> None:
    assert set(HINTS) == set(DEPARTMENTS) == set(TOPICS)
    for domain in DOMAINS.values():
        assert set(domain.subjects) == set(TOPICS)
        assert len(domain.details) == len(STYLES)
        assert all(low and high for low, high in domain.details)
