"""What SERVE writes down of itself every few seconds: series for people to look back on, and gauges for Prometheus."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor

from confluent_kafka import KafkaException
from sqlalchemy.exc import DBAPIError

from schemas.settings import Settings
from schemas.topics import Topics
from streams import metrics
from streams.exposure import Exposure
from streams.history import History, Measured
from streams.lag import Lag
from streams.mirror import Mirror
from streams.store import Store

log = logging.getLogger(__name__)

SERIES_SECONDS = 5.0
UNWRITTEN_KEPT = 2000
"""Of what could not be written, the newest so many are tried again the next time."""


class ServeSeries:
    """Asks what came since the last time, and writes it; whatever fails is logged, and SERVE goes on without it."""

    def __init__(self, settings: Settings, broker: str, store: Store, mirror: Mirror, exposure: Exposure) -> None:
        topics = Topics(settings)
        events = {name: topics.events(name) for name in settings.scenarios}
        self._mirror = mirror
        self._exposure = exposure
        self._history = History(store.engine)
        self._lag = Lag(broker, store, events, settings.kafka.partitions)
        self._unwritten: list[Measured] = []

    async def run(self, thread: Executor) -> None:
        """Go on for ever; what the mirror knows is asked on its `thread`."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SERIES_SECONDS)
            measured = await loop.run_in_executor(thread, self.look, time.time())
            await loop.run_in_executor(None, self.write, measured)

    def look(self, now: float) -> list[Measured]:
        """Everything but the lag; on the mirror's thread."""
        metrics.index_sequence.set(self._mirror.sequence)
        for name, index in self._mirror.indexes.items():
            metrics.set_index(name, index.report())
            weights = self._mirror.head(name).weights
            metrics.set_model(name, weights.lineage, weights.version, weights.step, weights.published_at)
        return self._exposure.measured(now)

    def write(self, measured: Sequence[Measured]) -> None:
        """Add the lag, and write all of it."""
        self._unwritten = [*self._unwritten, *measured, *self._behind()][-UNWRITTEN_KEPT:]
        try:
            self._history.add(self._unwritten)
        except DBAPIError as error:
            log.warning("what was measured is not written yet: %s", str(error.orig or error).splitlines()[0])
            return
        self._unwritten = []

    def _behind(self) -> list[Measured]:
        try:
            behind = self._lag.records()
        except (KafkaException, DBAPIError, TimeoutError) as error:
            log.warning("the lag is not known: %s", str(error).splitlines()[0])
            return []
        now = time.time()
        for name, records in behind.items():
            metrics.lag.labels(name).set(records)
        return [Measured.one(name, "lag", now, float(records)) for name, records in behind.items()]
