"""The outbox: records that must be acknowledged by Kafka before what they follow from may be committed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.decoding import Invalid
from schemas.errors import ExplainedError
from schemas.reports import dead_letter_headers
from schemas.topics import LARGEST_DEAD_LETTER_BYTES, LARGEST_INPUT_BYTES
from streams import metrics
from streams.access import librdkafka
from streams.outage import Outage

ANY_PARTITION = -1
"""librdkafka chooses by the key."""
PATIENCE_SECONDS = 300.0
"""For which Kafka may be away: records, and the transaction that they are in, are still the same when it is back."""
CONNECT_SECONDS = 30.0
"""For which an older producer of the same id is waited for to be fenced off."""
LOOK_SECONDS = 2.0
"""How often it is looked whether Kafka takes anything of what is waited for."""

Headers = Sequence[tuple[str, bytes | None]]


class PublishFailed(Exception):
    """Kafka did not acknowledge all records in time."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"Kafka did not take the records: {reason}")


class TransactionTooLong(ExplainedError):
    """The cluster lets no transaction be as long as one of ours may become."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"Kafka refuses transactions of up to {seconds:.0f} s, for which LEARN holds one while Kafka is away. Set"
            f" the brokers' transaction.max.timeout.ms to {seconds * 1000:.0f} or more (its default is 900000)."
        )


class Outbox:
    """A producer on librdkafka, idempotent and in order; batches of many thousand records a second cost it little.

    With `gapless`, a record that could not be sent is never followed by a later one of its partition: what arrived of a
    failed batch is a prefix of it, so a reader that keeps the highest source offset seen may drop repeats safely.
    """

    def __init__(self, broker: str, *, timeout: float = PATIENCE_SECONDS, transactional_id: str | None = None) -> None:
        """Connect.

        Args:
            timeout: seconds that Kafka may take for what is flushed, or for a whole transaction.
            transactional_id: whoever connects with it later fences this one off.

        Raises:
            TransactionTooLong: the cluster allows no transaction of `timeout`.
        """
        self._timeout = timeout
        self._failure: KafkaError | None = None
        self._outage = Outage("Kafka", timeout)
        self._reason = "it does not answer"
        self.end_offsets: dict[tuple[str, int], int] = {}
        settings: dict[str, Any] = {
            **librdkafka(broker),
            "enable.idempotence": True,
            "enable.gapless.guarantee": transactional_id is None,
            "acks": "all",
            "linger.ms": 2,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",  # as the Java client does, so that keys meet their partitions again
            "message.max.bytes": LARGEST_DEAD_LETTER_BYTES,
            "queue.buffering.max.messages": 500_000,
            "delivery.timeout.ms": int(timeout * 1000),
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 2,
            "error_cb": self._on_error,
            "on_delivery": self._on_delivery,
        }
        if transactional_id is None:
            settings["delivery.report.only.error"] = True
        else:
            settings["transactional.id"] = transactional_id
            settings["transaction.timeout.ms"] = int(timeout * 1000)
        self._producer = Producer(settings)
        self._transactional = transactional_id is not None
        if self._transactional:
            try:
                self._producer.init_transactions(CONNECT_SECONDS)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
                    raise TransactionTooLong(timeout) from None
                raise

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int = ANY_PARTITION,
        headers: Headers | None = None,
    ) -> None:
        """Queue a record; it counts as sent only when `flush` has returned.

        Raises:
            PublishFailed: it will not be taken, such as for want of a right.
        """
        while True:
            try:
                if headers:
                    self._producer.produce(topic, value, key, partition, headers=list(headers))
                else:
                    self._producer.produce(topic, value, key, partition)
                return
            except BufferError:
                self._producer.poll(0.1)
            except KafkaException as error:
                raise PublishFailed(f"{error.args[0].str()} ({topic})") from error

    def put_aside(self, dead_letters: str, record: Any, source: str, invalid: Invalid) -> None:
        """Queue a record that cannot be taken, untouched but for headers that say why, for the topic of such.

        Where its own topic takes more than ours do, a record may be too large for that: then the headers go alone.
        """
        why = dead_letter_headers(invalid, source, record.partition, record.offset, record.timestamp)
        own = sum(len(name) + len(content or b"") for name, content in record.headers)
        if len(record.key or b"") + len(record.value or b"") + own > LARGEST_INPUT_BYTES:
            self.send(dead_letters, None, None, headers=why)
        else:
            self.send(dead_letters, record.key, record.value, headers=[*record.headers, *why])

    def flush(self) -> None:
        """Wait until every record is acknowledged.

        Raises:
            PublishFailed: at least one was not; none of the batch may be committed.
        """
        deadline, before = time.monotonic() + self._timeout + 1, len(self._producer) + 1
        while left := self._flush(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                raise PublishFailed(f"{left} records unacknowledged after {self._timeout:.0f} s")
            if left >= before:
                self._outage.goes_on(self._reason)
            before = left
        failure, self._failure = self._failure, None
        if failure is not None:
            raise PublishFailed(failure.str())
        self._outage.is_over()

    def _flush(self, seconds: float) -> int:
        """Wait so long at most; returns how much is left."""
        try:
            return self._producer.flush(seconds)
        except SystemError as error:
            # confluent-kafka 2.16 raises this, and says no more, where a producer has been fenced off.
            raise PublishFailed("the producer has failed for good; another one may have taken its place") from error

    def begin(self) -> None:
        """Open a Kafka transaction: readers see all that follows, or nothing."""
        self._producer.begin_transaction()

    def commit(self) -> None:
        """Close the transaction; raises `KafkaException` if another producer of this id has fenced this one."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                self._producer.commit_transaction(LOOK_SECONDS)
                break
            except KafkaException as failure:
                # Not within the time that was given: the same call goes on with the same commit.
                if not failure.args[0].retriable() or time.monotonic() >= deadline:
                    raise
                self._outage.goes_on(self._reason)
        self._outage.is_over()

    def close(self) -> None:
        self._producer.flush(2)

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failure = error
            metrics.outbox_errors.inc()
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if topic is not None and partition is not None and offset is not None:
            self.end_offsets[topic, partition] = offset + 1

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = error
        self._reason = error.str()
        metrics.outbox_errors.inc()
