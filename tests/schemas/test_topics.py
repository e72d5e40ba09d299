"""Topics: each has one name, its partitions and its policy."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.decoding import MAX_RECORD_BYTES
from schemas.settings import DEFAULT_SCENARIOS, Kafka, Scenario, Settings
from schemas.topics import LARGEST_DEAD_LETTER_BYTES, LARGEST_INPUT_BYTES, UNKNOWN_SCENARIO, Topic, Topics

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,100}", fullmatch=True)
PREFIXES = st.from_regex(r"[A-Za-z0-9._-]{0,30}", fullmatch=True)


def topics_of(prefix: str, scenarios: set[str], partitions: int = 8) -> Topics:
    kafka = Kafka(prefix=prefix, partitions=partitions)
    return Topics(Settings(kafka=kafka, scenarios={name: Scenario() for name in sorted(scenarios)}))


def test_the_topics_of_the_defaults() -> None:
    counts = {topic.name: topic.partitions for topic in Topics(Settings()).all()}
    per_scenario = {f"headstream.events.{name}": 4 for name in DEFAULT_SCENARIOS}
    per_scenario |= {f"headstream.recommendations.{name}": 4 for name in (*DEFAULT_SCENARIOS, "unknown")}
    per_scenario |= {f"headstream.examples.{name}": 1 for name in DEFAULT_SCENARIOS}
    assert counts == per_scenario | {
        "headstream.requests": 4,
        "headstream.items": 4,
        "headstream.erasures": 1,
        "headstream.vectors": 1,
        "headstream.weights": 1,
        "headstream.drift": 1,
        "headstream.control": 1,
        "headstream.dead-letters": 1,
    }


@pytest.mark.parametrize(
    ("suffix", "policy"),
    [
        ("events.shop", "delete"),
        ("recommendations.shop", "delete"),
        ("examples.shop", "delete"),
        ("requests", "delete"),
        ("erasures", "delete"),
        ("drift", "delete"),
        ("control", "delete"),
        ("dead-letters", "delete"),
        ("items", "compact"),
        ("vectors", "compact"),
        ("weights", "compact"),
    ],
)
def test_what_is_state_is_compacted_and_what_is_history_expires(suffix: str, policy: str) -> None:
    found = topic_named(f"headstream.{suffix}")
    assert found.settings["cleanup.policy"] == policy
    assert ("retention.ms" in found.settings) == (policy == "delete")


@pytest.mark.parametrize("suffix", ["events.shop", "requests", "items", "erasures"])
def test_a_record_above_the_allowed_size_comes_in_and_its_dead_letter_out(suffix: str) -> None:
    taken_in = int(topic_named(f"headstream.{suffix}").settings["max.message.bytes"])
    put_aside = int(topic_named("headstream.dead-letters").settings["max.message.bytes"])
    assert 2 * MAX_RECORD_BYTES < taken_in == LARGEST_INPUT_BYTES < put_aside == LARGEST_DEAD_LETTER_BYTES


def topic_named(name: str) -> Topic:
    [found] = [topic for topic in Topics(Settings()).all() if topic.name == name]
    return found


@given(PREFIXES, NAMES)
def test_the_scenario_of_a_topic_is_the_one_it_was_named_for(prefix: str, scenario: str) -> None:
    topics = topics_of(prefix, {scenario})
    for name in (topics.events(scenario), topics.examples(scenario), topics.recommendations(scenario)):
        assert topics.scenario_of(name) == scenario


@given(PREFIXES, st.sets(NAMES, min_size=1, max_size=5), st.integers(1, 256))
def test_every_topic_is_named_once_and_as_kafka_allows(prefix: str, scenarios: set[str], partitions: int) -> None:
    found = topics_of(prefix, scenarios - {UNKNOWN_SCENARIO} or {"shop"}, partitions).all()
    names = [topic.name for topic in found]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name) and name.startswith(prefix) for name in names)
    assert {topic.partitions for topic in found} <= {1, 4, partitions}


@given(NAMES)
def test_answers_for_a_scenario_that_is_not_configured_have_one_topic(scenario: str) -> None:
    topics = topics_of("", {"shop"})
    expected = "recommendations.shop" if scenario == "shop" else "recommendations.unknown"
    assert topics.recommendations(scenario) == expected
    assert expected in {topic.name for topic in topics.all()}


def test_two_prefixes_share_no_topic() -> None:
    one, other = ({topic.name for topic in topics_of(prefix, {"shop"}).all()} for prefix in ("a.", "b."))
    assert not one & other
