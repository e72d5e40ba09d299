"""What is watched is what the topic holds: filtered, counted, with titles for people and untouched for scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from io import StringIO
from threading import Event as Signal

import msgspec
import pytest
from confluent_kafka import Producer
from rich.console import Console

from schemas.recommendations import (
    ModelVersion,
    Recommendation,
    RecommendedItem,
    Trigger,
    decode_recommendation,
    encode_recommendation,
)
from schemas.records import Weights
from schemas.records import encode as encode_record
from schemas.settings import Kafka, Scenario, Settings
from schemas.topics import Topics
from streams.administration import BrokerUnreachable, ensure_topics
from streams.watch import Glossary, NothingToWatch, harmless, picture, watch


class Terminal(StringIO):
    """What was printed, and a signal once it holds some text."""

    def __init__(self, awaited: str = "", then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._awaited, self._then = awaited, then

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._awaited and self._awaited in self.getvalue():
            self._awaited = ""
            self._then()
        return written


class Record:
    """A record as a consumer hands it out."""

    def __init__(self, topic: str, key: str, value: bytes | None) -> None:
        self.topic, self.key, self.value, self.timestamp = topic, key.encode(), value, 1_700_000_000_000
        self.partition, self.offset = 0, 0


def recommendation(user: str, offset: int, *, item: str = "i1", version: int = 3) -> Recommendation:
    trigger = Trigger("t.events.shop", 1, offset)
    return Recommendation(
        recommendation_id=trigger.recommendation_id,
        user_id=user,
        scenario="shop",
        generated_at="2026-01-02T03:04:05.678000+00:00",
        items=[RecommendedItem(item, 0.8125, "model", because="i2"), RecommendedItem("i3", -1.5, "popular")],
        trigger=trigger,
        model=ModelVersion(version, 3400),
        trained_through={"t.events.shop:1": 4},
        index_sequence=9,
    )


def weights(scenario: str, version: int, published_at: float) -> bytes:
    return encode_record(
        Weights(scenario, "line", version, 5, published_at, 1.0, 1.0, 0, [scenario], {}, None, 0, 0, 1, tensors=b"")
    )


def item(item_id: str, title: str) -> bytes:
    return msgspec.json.encode({"item_id": item_id, "title": title})


@pytest.fixture
def settings(broker: str, prefix: str) -> Settings:
    settings = Settings(kafka=Kafka(prefix=prefix, partitions=2), scenarios={"shop": Scenario(), "news": Scenario()})
    ensure_topics(broker, Topics(settings).all(), 1)
    return settings


def publish(broker: str, records: Sequence[tuple[str, str, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 0})
    for topic, key, value in records:
        producer.produce(topic, value, key.encode())
    assert producer.flush(20) == 0


def offline(*records: Record, titles_kept: int = 10) -> Glossary:
    glossary = Glossary("", Topics(Settings()), "shop", titles_kept=titles_kept)
    for record in records:
        glossary.take(record)
    return glossary


def printed(glossary: Glossary, what: Recommendation) -> str:
    console = Console(file=StringIO(), width=140)
    console.print(picture(what, glossary))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_a_picture_tells_who_and_why_with_titles_and_the_age_of_the_model() -> None:
    topics = Topics(Settings())
    made = 1767323045.678
    lines = printed(
        offline(
            Record(topics.items, "i1", item("i1", "Red mug")),
            Record(topics.items, "i2", item("i2", "Blue mug")),
            Record(topics.weights, "news", weights("news", 3, made - 50)),
            Record(topics.weights, "shop", weights("shop", 3, made - 2.5)),
        ),
        recommendation("u1", 81),
    ).splitlines()
    assert ".678  user u1  after t.events.shop 1:81  model v3, step 3,400, 2.5 s old" in lines[0]
    assert lines[1].split() == ["1", "Red", "mug", "0.812", "model", "because", "Blue", "mug"]
    assert lines[2].split() == ["2", "i3", "-1.500", "popular"]


def test_a_picture_of_similar_items_names_the_item_that_was_asked_about() -> None:
    answer = msgspec.structs.replace(recommendation("", 81), user_id=None, item_id="i1")
    glossary = offline(Record(Topics(Settings()).items, "i1", item("i1", "Red mug")))
    assert ".678  similar to Red mug  after t.events.shop 1:81" in printed(glossary, answer).splitlines()[0]


def test_an_item_that_went_has_no_title_and_a_version_that_nobody_saw_no_age() -> None:
    topics = Topics(Settings())
    lines = printed(
        offline(Record(topics.items, "i1", item("i1", "Red mug")), Record(topics.items, "i1", None)),
        recommendation("u1", 81),
    ).splitlines()
    assert lines[0].endswith("model v3, step 3,400")
    assert lines[1].split()[1] == "i1"


def test_titles_are_bounded_and_the_oldest_go_first() -> None:
    topic = Topics(Settings()).items
    published = [Record(topic, each, item(each, f"title {each}")) for each in "abac"]
    glossary = offline(*published, titles_kept=2)
    assert [glossary.title(each) for each in "abc"] == ["title a", "b", "title c"]


def test_no_record_that_is_none_of_ours_stops_the_glossary(caplog: pytest.LogCaptureFixture) -> None:
    topics = Topics(Settings())
    glossary = offline(Record(topics.items, "i1", b"not json"), Record(topics.weights, "shop", b"not msgpack"))
    assert glossary.title("i1") == "i1"
    assert "holds no weights" in caplog.text


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[2Jb\u202ec") == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c"
    topic = Topics(Settings()).items
    assert "[red]Mug[/]" in printed(offline(Record(topic, "i1", item("i1", "[red]Mug[/]"))), recommendation("u", 1))


def test_json_lines_are_the_records_as_they_are(broker: str, settings: Settings) -> None:
    topic = Topics(settings).recommendations("shop")
    long = recommendation("u" * 250, 1, item="[bold]" * 40)
    publish(broker, [(topic, "u", b"not json"), (topic, "u", None), (topic, "u", encode_recommendation(long))])
    console = Console(file=StringIO(), width=40)
    shown = watch(settings, broker, "shop", as_json=True, from_beginning=True, count=1, console=console, stop=Signal())
    assert shown == 1
    assert console.file.getvalue().encode() == encode_recommendation(long) + b"\n"  # type: ignore[attr-defined]


def test_only_the_recommendations_of_the_user_are_shown(broker: str, settings: Settings) -> None:
    topic = Topics(settings).recommendations("shop")
    publish(broker, [(topic, user, encode_recommendation(recommendation(user, n))) for n, user in enumerate("abcaba")])
    console = Console(file=StringIO())
    watch(
        settings, broker, "shop", user="a", as_json=True, from_beginning=True, count=3, console=console, stop=Signal()
    )
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    found = [decode_recommendation(line) for line in lines]
    assert [(each.user_id, each.trigger.offset) for each in found] == [("a", 0), ("a", 3), ("a", 5)]


def test_watching_begins_at_the_end_and_shows_titles_until_it_is_stopped(broker: str, settings: Settings) -> None:
    topics = Topics(settings)
    topic = topics.recommendations("shop")
    publish(
        broker,
        [
            (topics.items, "i1", item("i1", "Red mug")),
            (topics.weights, "shop", weights("shop", 3, 1767323045.0)),
            (topic, "old", encode_recommendation(recommendation("old", 0))),
        ],
    )
    stop = Signal()

    def send() -> None:
        publish(broker, [(topic, "new", encode_recommendation(recommendation("new", 1)))])

    terminal = Terminal("watching", then=lambda: threading.Thread(target=send).start())
    console = Console(file=terminal, width=120)
    assert watch(settings, broker, "shop", count=1, console=console, stop=stop) == 1
    assert "user new" in terminal.getvalue()
    assert "Red mug" in terminal.getvalue()
    assert "0.7 s old" in terminal.getvalue()
    assert "user old" not in terminal.getvalue()


def test_a_stop_ends_the_watching(broker: str, settings: Settings) -> None:
    stop = Signal()
    terminal = Terminal("watching", then=stop.set)
    assert watch(settings, broker, "shop", console=Console(file=terminal), stop=stop) == 0


def test_a_topic_that_is_not_there_is_named(broker: str, prefix: str) -> None:
    settings = Settings(kafka=Kafka(prefix=prefix))
    with pytest.raises(NothingToWatch, match=f"{prefix}recommendations.shop"):
        watch(settings, broker, "shop", console=Console(file=StringIO()), stop=Signal())


def test_a_broker_address_that_is_none_is_named() -> None:
    with pytest.raises(BrokerUnreachable, match="host:port"):
        watch(Settings(), ":", "shop", console=Console(file=StringIO()), stop=Signal())
