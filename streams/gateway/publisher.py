"""The publisher: records go to Kafka, and a call goes on once Kafka has acknowledged all that it sent."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from http import HTTPStatus
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.access import librdkafka
from streams.gateway.refusal import Refusal
from streams.outage import Outage
from streams.outbox import Headers

DELIVERY_SECONDS = 5.0
"""How long Kafka may take to acknowledge before the caller is told to come again."""
METADATA_SECONDS = 3.0
POLL_SECONDS = 0.2
CLOSING_SECONDS = 2.0
LARGEST_RECORD_BYTES = 2 << 20
QUEUED_KIBIBYTES = 64 << 10
RETRY_AFTER = {"Retry-After": "5"}


class Outgoing(NamedTuple):
    """A record to publish; a value of None deletes."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Publisher:
    """One producer for all calls, and the thread that hears what Kafka says to it."""

    def __init__(self, broker: str) -> None:
        self._outage = Outage("Kafka")
        self._producer = Producer(
            {
                **librdkafka(broker),
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",  # as the Java client does, so that keys meet their partitions again
                "message.max.bytes": LARGEST_RECORD_BYTES,
                "queue.buffering.max.kbytes": QUEUED_KIBIBYTES,
                "delivery.timeout.ms": int(DELIVERY_SECONDS * 1000),
                "request.timeout.ms": int(DELIVERY_SECONDS * 1000),
                "socket.keepalive.enable": True,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,
                "error_cb": lambda error: self._outage.goes_on(error.str()),
            }
        )
        self._closing = threading.Event()
        self._hearing = threading.Thread(target=self._hear, name="gateway-publisher", daemon=True)
        self._hearing.start()

    def _hear(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_SECONDS)

    async def publish(self, records: Sequence[Outgoing], threads: Executor) -> None:
        """Send records and wait until Kafka has all of them; they are queued on one of `threads`.

        Raises:
            Refusal: 503, if Kafka did not acknowledge some of them in time.
        """
        if not records:
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        batch = _Batch(len(records), lambda: loop.call_soon_threadsafe(_set, done))
        await loop.run_in_executor(threads, self._send, records, batch)
        await done
        if batch.failed:
            raise _not_taken(len(records), batch)

    def _send(self, records: Sequence[Outgoing], batch: _Batch) -> None:
        deadline = time.monotonic() + DELIVERY_SECONDS
        for number, (topic, key, value, headers) in enumerate(records):
            while True:
                try:
                    self._producer.produce(topic, value, key, headers=list(headers), on_delivery=batch.report)
                    break
                except BufferError:
                    if time.monotonic() > deadline:
                        batch.give_up(len(records) - number, "more is queued than Kafka takes")
                        return
                    time.sleep(0.01)
                except KafkaException as failure:
                    batch.give_up(1, str(failure.args[0].str()))
                    break

    def ask_broker(self) -> str | None:
        """Whether the cluster answers: None, or why not. Waits for it."""
        try:
            self._producer.list_topics(timeout=METADATA_SECONDS)
        except KafkaException as failure:
            return str(failure.args[0].str())
        self._outage.is_over()
        return None

    def close(self) -> None:
        self._producer.flush(CLOSING_SECONDS)
        self._closing.set()
        self._hearing.join()


class _Batch:
    """Counts what became of the records of one call; it is told on several threads."""

    def __init__(self, size: int, when_done: Callable[[], object]) -> None:
        self._left = size
        self._when_done = when_done
        self._lock = threading.Lock()
        self.failed = 0
        self.reason = ""

    def report(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self.give_up(1, error.str())
        else:
            self._end(1)

    def give_up(self, records: int, reason: str) -> None:
        with self._lock:
            self.failed += records
            self.reason = reason
        self._end(records)

    def _end(self, records: int) -> None:
        with self._lock:
            self._left -= records
            last = self._left == 0
        if last:
            self._when_done()


def _set(done: asyncio.Future[None]) -> None:
    if not done.done():  # the caller may have gone
        done.set_result(None)


def _not_taken(records: int, batch: _Batch) -> Refusal:
    message = (
        f"Kafka acknowledged {records - batch.failed} of {records} records ({batch.reason}); send them again, with an "
        "event_id in each event, so that one which did arrive counts once"
    )
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no-broker", message, headers=RETRY_AFTER)
