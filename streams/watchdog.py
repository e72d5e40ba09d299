"""The watchdog: finds that records wait while nothing is worked, and has the process end, to be started anew."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from streams import metrics
from streams.access import librdkafka
from streams.lag import LATEST, TIMEOUT_SECONDS
from streams.patience import Patience
from streams.store import Partition

log = logging.getLogger(__name__)

LOOKS = 10
"""So often in its time the watchdog looks."""
WORKING = 0.2
"""Share of a core above which a process is taken to work, on a long batch or on what it must do first."""
LONGEST = 10.0
"""Times its time after which it bites though the process is busy: with whatever, it is not with what waits."""


class Watchdog:
    """Bites when records of a topic wait and none of them was worked for a while.

    It never does while the database is waited for, while Kafka does not answer, or for a time in which the process, or
    the machine, was suspended; each of these makes it begin anew.
    """

    def __init__(
        self,
        broker: str,
        seconds: float,
        done: Callable[[], Mapping[Partition, int]],
        patience: Patience,
        bite: Callable[[str], object],
    ) -> None:
        """Put together; it looks once it is started.

        Args:
            seconds: for which nothing may happen.
            done: of each partition that is this process's, the end of what was worked.
            bite: called once, on the watchdog's thread, with what is the matter.
        """
        self._broker = broker
        self._seconds = seconds
        self._done = done
        self._patience = patience
        self._bite = bite
        self._admin: AdminClient | None = None
        self._stands: dict[str, tuple[dict[Partition, int], float, float]] = {}
        self._looked_at: float | None = None

    def start(self) -> None:
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self._seconds / LOOKS)
            if (matter := self.look(time.monotonic(), time.process_time())) is not None:
                self._bite(matter)
                return

    def look(self, now: float, cpu: float) -> str | None:
        """Look once.

        Args:
            now: seconds by a clock that goes on while the process is suspended.
            cpu: seconds of processor that the process has used.

        Returns:
            What is the matter, if it is to bite.
        """
        late = self._looked_at is not None and now - self._looked_at > self._seconds / 2 + 2 * TIMEOUT_SECONDS
        self._looked_at = now
        done = dict(self._done())
        ends = {} if late or self._patience.waits else self._ends(done)
        waiting = {key[0] for key, end in ends.items() if end > done[key]}
        longest = 0.0
        for topic in {*self._stands, *waiting}:
            at = {key: offset for key, offset in done.items() if key[0] == topic}
            if topic not in waiting or self._stands.get(topic, ({}, 0.0, 0.0))[0] != at:
                self._stands.pop(topic, None)
            if topic not in waiting:
                continue
            _, since, used = self._stands.setdefault(topic, (at, now, cpu))
            passed = now - since
            longest = max(longest, passed)
            busy = cpu - used > WORKING * passed
            if passed >= self._seconds * (LONGEST if busy else 1.0):
                records = sum(end - done[key] for key, end in ends.items() if key[0] == topic)
                return f"{records} records of {topic} wait, and none was worked for {passed:.0f} s"
        metrics.stalled_seconds.set(longest)
        return None

    def _ends(self, done: Mapping[Partition, int]) -> dict[Partition, int]:
        """Where these partitions end; none while Kafka does not say."""
        if not done:
            return {}
        # A client that saw its broker restart may be refused for ever.
        admin, self._admin = self._admin or AdminClient({**librdkafka(self._broker), "log_level": 2}), None
        try:
            answers = admin.list_offsets(
                {TopicPartition(*key): LATEST for key in done},
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=TIMEOUT_SECONDS,
            )
            ends = {(each.topic, each.partition): answer.result(TIMEOUT_SECONDS).offset
                    for each, answer in answers.items()}  # fmt: skip
        except (KafkaException, TimeoutError):
            return {}
        self._admin = admin
        return ends
