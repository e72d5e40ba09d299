"""Replies: answers to requests are read off the recommendations topics and given to whoever waits for them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus

import msgspec
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from schemas.recommendations import Recommendation, decode_recommendation
from streams.access import librdkafka
from streams.gateway.refusal import Refusal

log = logging.getLogger(__name__)

MOST_WAITING = 256
METADATA_SECONDS = 5.0
POLL_SECONDS = 0.2
RETRY_SECONDS = 0.5
MOST_AT_ONCE = 1000
MARK = b'"request_id"'
"""Stands in an answer to a request, and in no other record of these topics but by chance: the rest is not decoded."""


class Replies:
    """One reader, of no group, for all calls; it begins at the ends of the topics.

    Attributes:
        listening: set once an answer to what is asked from now on will be heard.
    """

    def __init__(self, broker: str, topics: Sequence[str], *, most_waiting: int = MOST_WAITING) -> None:
        self._broker = broker
        self._topics = tuple(topics)
        self._most_waiting = most_waiting
        self._waiting: dict[str, asyncio.Future[Recommendation]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._read, name="gateway-replies", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self.listening = asyncio.Event()

    def start(self) -> None:
        """Begin to listen, on a thread; answers are handed over to the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    @contextmanager
    def expect(self, request_id: str) -> Iterator[asyncio.Future[Recommendation]]:
        """What the answer to this request will come to; ask only within.

        Raises:
            Refusal: 429, if as many wait already as may.
        """
        if len(self._waiting) >= self._most_waiting:
            message = f"{self._most_waiting} requests wait for their answers; try again in a moment"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too-many", message, headers={"Retry-After": "1"})
        answer = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        try:
            yield answer
        finally:
            del self._waiting[request_id]

    def close(self) -> None:
        self._closing.set()
        if self.listening.is_set():  # else it waits for a broker that is away, which nobody shall wait for
            self._thread.join()

    # On the thread

    def _read(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
            except Exception:
                log.exception("answers are not heard; listening begins anew")
                self._loop.call_soon_threadsafe(self.listening.clear)
                self._closing.wait(RETRY_SECONDS)

    def _follow(self) -> None:
        consumer = Consumer(
            {
                **librdkafka(self._broker),
                # The library wants a name, but partitions are assigned by hand and nothing is ever committed.
                "group.id": "headstream-gateway",
                "enable.auto.commit": False,
                "auto.offset.reset": "latest",
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,
                "error_cb": lambda error: log.debug("Kafka consumer: %s", error.str()),  # the publisher says the same
            }
        )
        try:
            while not self._closing.is_set() and not self._assign(consumer):
                self._closing.wait(RETRY_SECONDS)
            while not self._closing.is_set():
                message = consumer.poll(POLL_SECONDS)
                for _ in range(MOST_AT_ONCE):
                    if message is None:
                        break
                    self._take(message)
                    message = consumer.poll(0)
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer) -> bool:
        """Stand at the ends as they are now; False if the broker does not say where they are."""
        places = []
        try:
            for topic in self._topics:
                known = consumer.list_topics(topic, timeout=METADATA_SECONDS).topics[topic]
                if known.error is not None:
                    raise KafkaException(known.error)
                for partition in known.partitions:
                    place = TopicPartition(topic, partition)
                    _, place.offset = consumer.get_watermark_offsets(place, timeout=METADATA_SECONDS)
                    places.append(place)
        except KafkaException as failure:
            log.warning("answers cannot be listened for yet: %s", failure.args[0].str())
            return False
        if self._closing.is_set():
            return False
        consumer.assign(places)
        self._loop.call_soon_threadsafe(self.listening.set)
        return True

    def _take(self, message: Message) -> None:
        value = message.value()
        if message.error() is not None:
            log.warning("reading recommendations: %s", message.error())
        elif value is not None and MARK in value:
            try:
                found = decode_recommendation(value)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                place = f"{message.topic()}:{message.partition()}:{message.offset()}"
                log.warning("%s is no recommendation: %s", place, error)
                return
            if found.request_id in self._waiting:
                self._loop.call_soon_threadsafe(self._hand_over, found)

    # On the event loop

    def _hand_over(self, found: Recommendation) -> None:
        answer = self._waiting.get(found.request_id or "")
        if answer is not None and not answer.done():
            answer.set_result(found)
