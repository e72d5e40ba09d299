"""The audience on a real Kafka: it acts on what it is shown, keeps its rate, and measures truly."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from schemas.control_group import in_control_group
from schemas.events import Event, decode_event
from schemas.items import Item, decode_item
from schemas.recommendations import (
    ModelVersion,
    Recommendation,
    RecommendedItem,
    Request,
    Trigger,
    decode_request,
    encode_recommendation,
)
from schemas.settings import DEFAULT_EVENTS, Kafka, Scenario, Settings
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.client import TopicMissing
from streams.simulate import Audience, Session
from streams.world import World

SCENARIOS = ("shop", "news")
CONTROL = {"shop": 0.2, "news": 0.5}


def make_settings(prefix: str) -> Settings:
    return Settings(kafka=Kafka(prefix=prefix, partitions=2), scenarios={name: Scenario() for name in SCENARIOS})


@pytest.fixture
def topics(broker: str, prefix: str) -> Topics:
    settings = make_settings(prefix)
    topics = Topics(settings)
    ensure_topics(broker, topics.all(), settings.kafka.replication)
    return topics


def read_all(broker: str, *names: str) -> list[Message]:
    """Every record of these topics, up to their present ends."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "enable.auto.commit": False})
    places, wanted = [], 0
    for name in names:
        for partition in consumer.list_topics(name, timeout=10).topics[name].partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=10)
            places.append(TopicPartition(name, partition, low))
            wanted += high - low
    consumer.assign(places)
    found = consumer.consume(wanted, timeout=20) if wanted else []
    consumer.close()
    assert len(found) == wanted
    return found


class Responder:
    """Stands where Headstream would: answers every request and event with a random list.

    After `enough` events it sets `stop`.
    """

    def __init__(self, broker: str, topics: Topics, items: dict[str, list[str]], enough: int, stop: threading.Event):
        self._broker, self._topics, self._items, self._enough, self._stop = broker, topics, items, enough, stop
        self._random = random.Random(0)
        self.over = threading.Event()
        self.listening = threading.Event()
        self.answered = 0

    def run(self) -> None:
        topics = [self._topics.requests, *(self._topics.events(name) for name in SCENARIOS)]
        consumer = Consumer(
            {"bootstrap.servers": self._broker, "group.id": "responder", "auto.offset.reset": "earliest"}
        )
        consumer.assign([TopicPartition(name, partition, 0) for name in topics for partition in range(2)])
        producer = Producer({"bootstrap.servers": self._broker, "linger.ms": 0})
        events = 0
        self.listening.set()
        while not self.over.is_set():
            message = consumer.poll(0.05)
            producer.poll(0)
            if message is None:
                continue
            assert message.error() is None
            body: dict[str, Any] = msgspec.json.decode(message.value() or b"")
            topic, partition, offset = str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)
            events += topic != self._topics.requests
            scenario = body.get("scenario") or self._topics.scenario_of(topic)
            shown = self._random.sample(self._items[scenario], 10)
            trigger = Trigger(topic, partition, offset)
            answer = Recommendation(
                recommendation_id=trigger.recommendation_id,
                user_id=body["user_id"],
                scenario=scenario,
                request_id=body.get("request_id"),
                generated_at=datetime.now(UTC).isoformat(),
                items=[RecommendedItem(item_id, 1.0, "popular") for item_id in shown],
                trigger=trigger,
                model=ModelVersion(0, 0),
                trained_through={},
                index_sequence=0,
            )
            producer.produce(self._topics.recommendations(scenario), encode_recommendation(answer), body["user_id"])
            self.answered += 1
            if events >= self._enough:
                self._stop.set()
        producer.flush(10)
        consumer.close()


@contextmanager
def responding(broker: str, topics: Topics, world: World, enough: int, stop: threading.Event) -> Iterator[Responder]:
    items = {name: [item.item_id for item in world.items() if item.scenario == name] for name in SCENARIOS}
    responder = Responder(broker, topics, items, enough, stop)
    thread = threading.Thread(target=responder.run)
    thread.start()
    try:
        assert responder.listening.wait(20)
        yield responder
    finally:
        responder.over.set()
        thread.join(20)


def events_of(broker: str, topics: Topics, scenario: str) -> list[Event]:
    """What was published in a scenario; each record must be one that Headstream takes."""
    counts: Counter[str] = Counter()
    decoded = [
        decode_event(message.value() or b"", message.timestamp()[1] / 1000, scenario, DEFAULT_EVENTS, counts)
        for message in read_all(broker, topics.events(scenario))
    ]
    assert not counts
    events = [event for event in decoded if isinstance(event, Event)]
    assert len(events) == len(decoded)
    return events


def test_every_item_of_the_world_is_published_once_as_headstream_reads_it(broker: str, topics: Topics) -> None:
    world = World(SCENARIOS, 1, items=20, users=5)
    audience = Audience(broker, topics, world, control=CONTROL, events_per_second=1, seed=0)
    assert audience.publish_items() == 40
    records = read_all(broker, topics.items)
    decoded = [decode_item(record.value() or b"", record.timestamp()[1] / 1000, Counter()) for record in records]
    items = {item.item_id: item for item in decoded if isinstance(item, Item)}
    assert len(items) == len(records) == 40
    assert {record.key() for record in records} == {item_id.encode() for item_id in items}
    for truth in world.items():
        item = items[truth.item_id]
        assert (item.title, item.text, item.scenarios) == (truth.title, truth.text, (truth.scenario,))
        assert item.published_at is not None


def test_the_audience_reads_what_it_is_shown_and_measures_what_it_did(broker: str, topics: Topics) -> None:
    world, stop = World(SCENARIOS, 1, users=40), threading.Event()
    audience = Audience(broker, topics, world, control=CONTROL, events_per_second=60, seed=0)
    with responding(broker, topics, world, 200, stop) as responder:
        audience.run(stop, seconds=60)
    figures = audience.snapshot()

    read = sum(each.recommendations for each in figures.values())
    assert responder.answered / 2 < read <= responder.answered
    for name in SCENARIOS:
        events = events_of(broker, topics, name)
        assert figures[name].events == len(events) > 50
        assert figures[name].undelivered == 0
        assert len({event.event_id for event in events}) == len(events)
        pairs = Counter((event.user_id, event.item_id) for event in events)
        assert max(pairs.values()) == 1
        assert {event.event for event in events} <= set(DEFAULT_EVENTS)

        latency = figures[name].latency
        assert latency is not None
        assert 0 < latency.p50 <= latency.p99
        assert min(figures[name].model.looked_at, figures[name].control.looked_at) > 0

        # An act on a list says which list it was, in both groups.
        led = [event for event in events if event.recommendation_id is not None]
        clicked = Counter(
            in_control_group(event.user_id, name, CONTROL[name]) for event in led if event.event != "view"
        )
        assert clicked[True] == figures[name].control.clicked > 0
        assert clicked[False] == figures[name].model.clicked > 0

    requests = [decode_request(record.value() or b"", Counter()) for record in read_all(broker, topics.requests)]
    asked = [request for request in requests if isinstance(request, Request)]
    assert len(asked) == len(requests) > 0
    groups = {in_control_group(each.user_id or "", each.scenario, CONTROL[each.scenario]) for each in asked}
    assert groups == {True, False}


def test_the_audience_publishes_no_faster_than_it_is_told(broker: str, topics: Topics) -> None:
    world, stop = World(SCENARIOS, 1, users=40), threading.Event()
    audience = Audience(broker, topics, world, control=CONTROL, events_per_second=20, seed=0)
    with responding(broker, topics, world, 10_000, stop):
        audience.run(stop, seconds=4)
    events = sum(each.events for each in audience.snapshot().values())
    # Every open session may still act once more than was promised.
    assert 0 < events < 20 * 4 * 1.5


def test_a_silent_system_is_counted_and_nobody_reads(broker: str, topics: Topics) -> None:
    world = World(SCENARIOS, 1, users=40)
    audience = Audience(broker, topics, world, control=CONTROL, events_per_second=40, seed=0, patience=1.0)
    audience.run(threading.Event(), seconds=4)
    figures = audience.snapshot().values()
    assert sum(each.unanswered for each in figures) > 10
    assert sum(each.events for each in figures) > 5  # who searches needs no list
    assert [(each.recommendations, each.latency, each.model.rate, each.control.rate) for each in figures] == [
        (0, None, None, None)
    ] * 2


class BusyWorld(World):
    """Items come all the time."""

    def seconds_between_arrivals(self, scenario: str) -> float:
        return super().seconds_between_arrivals(scenario) / 500


def test_new_items_are_published_and_those_that_left_are_deleted(broker: str, topics: Topics) -> None:
    world = BusyWorld(SCENARIOS, 1, items=10, users=5)
    first = {item.item_id for item in world.items()}
    audience = Audience(broker, topics, world, control=CONTROL, events_per_second=5, seed=0)
    audience.publish_items()
    audience.run(threading.Event(), seconds=1.5)
    newest: dict[str, bytes | None] = {}
    for record in read_all(broker, topics.items):
        newest[(record.key() or b"").decode()] = record.value()
    live = {item.item_id for item in world.items()}
    assert {item_id for item_id, value in newest.items() if value is not None} == live
    assert live - first
    assert first - live


def test_an_audience_without_topics_says_which_one_is_missing(broker: str, prefix: str) -> None:
    topics = Topics(make_settings(prefix))
    audience = Audience(
        broker, topics, World(SCENARIOS, 1, items=2, users=2), control=CONTROL, events_per_second=1, seed=0
    )
    with pytest.raises(TopicMissing) as caught:
        audience.run(threading.Event(), seconds=1)
    assert caught.value.topic == topics.recommendations("shop")
    assert str(caught.value) == f'topic "{caught.value.topic}" does not exist at {broker}; start Headstream there first'


def answer(trigger: Trigger, request_id: str | None = None) -> Recommendation:
    return Recommendation(
        recommendation_id="r",
        user_id="u",
        scenario="shop",
        request_id=request_id,
        generated_at="2024-01-01T00:00:00Z",
        items=[],
        trigger=trigger,
        model=ModelVersion(0, 0),
        trained_through={},
        index_sequence=0,
    )


def test_a_session_takes_the_answer_to_its_request_and_no_other() -> None:
    session = Session(0, "u", "shop", control=False)
    assert not session.awaits(answer(Trigger("requests", 0, 1), "mine"))
    session.wait("mine")
    assert session.awaits(answer(Trigger("requests", 0, 1), "mine"))
    assert not session.awaits(answer(Trigger("requests", 0, 1), "other"))
    assert not session.awaits(answer(Trigger("events", 0, 1)))


def test_a_session_takes_the_list_for_its_event_or_for_a_later_one() -> None:
    session = Session(0, "u", "shop", control=False)
    session.wait(None)
    assert not session.awaits(answer(Trigger("events", 1, 7)))
    session.trigger = Trigger("events", 1, 7)
    for partition, offset in itertools.product((0, 1), (6, 7, 8)):
        assert session.awaits(answer(Trigger("events", partition, offset))) == (partition == 1 and offset >= 7)
