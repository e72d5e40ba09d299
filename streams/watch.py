"""Watching: the recommendations of a scenario on a terminal, or as JSON lines, as they come."""

from __future__ import annotations

import logging
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, TopicAuthorizationFailedError
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from schemas.items import decode_item, decode_item_key
from schemas.recommendations import Recommendation, decode_recommendation
from schemas.records import OtherVersion, decode_weights
from schemas.settings import Settings
from schemas.topics import Topics
from streams.access import access_to, kafka_python
from streams.administration import begin_offsets, end_offsets
from streams.rights import Right, RightsMissing

log = logging.getLogger(__name__)

CONNECT_SECONDS = 20.0
POLL_MILLISECONDS = 200
TITLES_KEPT = 100_000
TITLES_WAITED_SECONDS = 5.0
VERSIONS_KEPT = 1000
WEIGHTS_LOOKED_BACK = 100
"""Records before the end of the weights topic, which are large: enough to hold the versions in use."""

Offsets = Mapping[tuple[str, int], int]


class NothingToWatch(ExplainedError):
    """The topic of the recommendations does not exist."""

    def __init__(self, topic: str, broker: str) -> None:
        self.topic, self.broker = topic, broker
        super().__init__(f'topic "{topic}" does not exist at {broker}; `headstream up` makes it')


def watch(
    settings: Settings,
    broker: str,
    scenario: str,
    *,
    user: str | None = None,
    as_json: bool = False,
    from_beginning: bool = False,
    count: int | None = None,
    console: Console,
    stop: threading.Event,
) -> int:
    """Show recommendations until `stop` is set or `count` of them have been shown.

    Args:
        user: show only this user's.
        as_json: the records as they are, one a line, in place of a table for people.
        from_beginning: begin with what the topic already holds, in place of its end at the time of the call.

    Returns:
        How many were shown.

    Raises:
        NothingToWatch: the topic does not exist.
        BrokerUnreachable: no broker answered.
    """
    topics = Topics(settings)
    topic = topics.recommendations(scenario)
    starts = (begin_offsets if from_beginning else end_offsets)(broker, [topic], timeout=CONNECT_SECONDS)
    if not starts:
        raise NothingToWatch(topic, broker)
    with reading(broker, starts) as consumer:
        if as_json:
            return _show(consumer, lambda raw, _: console.out(raw.decode(), highlight=False), user, count, stop)
        with Glossary(broker, topics, scenario) as glossary:
            console.print(f"watching {topic}; Ctrl-C stops", style="dim", markup=False, highlight=False)
            glossary.ready.wait(TITLES_WAITED_SECONDS)
            return _show(consumer, lambda _, each: console.print(picture(each, glossary)), user, count, stop)


@contextmanager
def reading(broker: str, starts: Offsets) -> Iterator[Any]:
    """A consumer of no group that stands at these offsets."""
    consumer = KafkaConsumer(
        **kafka_python(broker),
        client_id="headstream-watch",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        allow_auto_create_topics=False,
        metrics_enabled=False,
        fetch_max_wait_ms=POLL_MILLISECONDS,
        check_crcs=False,  # in pure Python it costs a core beside a busy weights topic
    )
    try:
        consumer.assign([TopicPartition(*partition) for partition in starts])
        for partition, offset in starts.items():
            consumer.seek(TopicPartition(*partition), offset)
        yield consumer
    except TopicAuthorizationFailedError as error:
        names = sorted({topic for topic, _ in starts})
        raise RightsMissing(access_to(broker).user, [Right("Read", "topic", name) for name in names]) from error
    finally:
        consumer.close()


def _show(consumer: Any, show: Any, user: str | None, count: int | None, stop: threading.Event) -> int:
    shown = 0
    while not stop.is_set():
        polled = consumer.poll(timeout_ms=POLL_MILLISECONDS)
        for record in sorted((record for records in polled.values() for record in records), key=_moment):
            if record.value is None:
                continue
            try:
                recommendation = decode_recommendation(record.value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                log.warning("%s:%d:%d is no recommendation: %s", record.topic, record.partition, record.offset, error)
                continue
            if user is not None and recommendation.user_id != user:
                continue
            show(record.value, recommendation)
            shown += 1
            if shown == count or stop.is_set():
                return shown
    return shown


def _moment(record: Any) -> tuple[int, int, int]:
    return record.timestamp, record.partition, record.offset


class Glossary:
    """What recommendations refer to, read beside them: titles of items, and when a model version was published.

    Attributes:
        ready: set once what the topics held at the start has been read.
    """

    def __init__(self, broker: str, topics: Topics, scenario: str, *, titles_kept: int = TITLES_KEPT) -> None:
        self._broker, self._topics, self._scenario, self._titles_kept = broker, topics, scenario, titles_kept
        self._titles: OrderedDict[str, str] = OrderedDict()
        self._published: OrderedDict[int, float] = OrderedDict()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="watch-glossary", daemon=True)
        self.ready = threading.Event()

    def __enter__(self) -> Glossary:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def title(self, item_id: str) -> str:
        """An item's title; its id where there is none."""
        return self._titles.get(item_id) or item_id

    def published_at(self, version: int) -> float | None:
        """When a version of the scenario's model was published, epoch seconds."""
        return self._published.get(version)

    def _read(self) -> None:
        try:
            starts, ends = self._range()
            with reading(self._broker, starts) as consumer:
                while not self._stop.is_set():
                    for records in consumer.poll(timeout_ms=POLL_MILLISECONDS).values():
                        for record in records:
                            self.take(record)
                    if not self.ready.is_set() and self._caught_up(consumer, ends):
                        self.ready.set()
        except (KafkaError, ExplainedError) as error:
            log.warning("titles are not shown any more: %s", error)
        finally:
            self.ready.set()

    def _range(self) -> tuple[Offsets, Offsets]:
        names = [self._topics.items, self._topics.weights]
        ends = end_offsets(self._broker, names, timeout=CONNECT_SECONDS)
        starts = begin_offsets(self._broker, names, timeout=CONNECT_SECONDS)
        late = {
            partition: max(start, ends[partition] - WEIGHTS_LOOKED_BACK)
            for partition, start in starts.items()
            if partition[0] == self._topics.weights
        }
        return {**starts, **late}, ends

    @staticmethod
    def _caught_up(consumer: Any, ends: Offsets) -> bool:
        return all(consumer.position(TopicPartition(*partition)) >= end for partition, end in ends.items())

    def take(self, record: Any) -> None:
        """Note what a record of the items or the weights topic says."""
        if record.topic == self._topics.items:
            self._take_item(record)
        elif record.value is not None and record.key == self._scenario.encode():
            try:
                weights = decode_weights(record.value)
            except OtherVersion as error:
                log.warning("%s:%d:%d holds no weights: %s", record.topic, record.partition, record.offset, error)
                return
            self._published[weights.version] = weights.published_at
            _bound(self._published, VERSIONS_KEPT)

    def _take_item(self, record: Any) -> None:
        if record.value is None:
            item_id = decode_item_key(record.key)
            if not isinstance(item_id, Invalid):
                self._titles.pop(item_id, None)
            return
        item = decode_item(record.value, record.timestamp / 1000, Counter())
        if isinstance(item, Invalid):
            return
        self._titles[item.item_id] = item.title
        self._titles.move_to_end(item.item_id)
        _bound(self._titles, self._titles_kept)


def _bound(kept: OrderedDict[Any, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


def picture(recommendation: Recommendation, glossary: Glossary) -> Group:
    """A recommendation for people: when, for whom, in answer to what and by which model; then its items, best first."""
    made = datetime.fromisoformat(recommendation.generated_at)
    model, trigger = recommendation.model, recommendation.trigger
    published = glossary.published_at(model.version)
    age = "" if published is None else f", {max(0.0, made.timestamp() - published):.1f} s old"
    request = "" if recommendation.request_id is None else f"  request {recommendation.request_id}"
    if recommendation.item_id is None:
        whom, name = "user", recommendation.user_id or ""
    else:
        whom, name = "similar to", glossary.title(recommendation.item_id)
    heading = Text.assemble(
        (f"{made.astimezone():%H:%M:%S}.{made.microsecond // 1000:03d}", "cyan"),
        f"  {whom} ", (harmless(name), "bold"), harmless(request),
        (f"  after {trigger.topic} {trigger.partition}:{trigger.offset}", "dim"),
        (f"  model v{model.version}, step {model.step:,}{age}", "dim"),
    )  # fmt: skip
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", width=5)
    table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", width=8)
    table.add_column(width=7)
    table.add_column(ratio=2, no_wrap=True, overflow="ellipsis", style="dim")
    for rank, item in enumerate(recommendation.items, 1):
        because = "" if item.because is None else f"because {harmless(glossary.title(item.because))}"
        title = Text(harmless(glossary.title(item.item_id)))
        table.add_row(str(rank), title, f"{item.score:.3f}", item.source, Text(because))
    return Group(heading, table)


def harmless(text: str) -> str:
    """Text that comes from outside, without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
