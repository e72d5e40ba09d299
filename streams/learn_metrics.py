"""What LEARN tells Prometheus of its state, looked up every few seconds; what it does is counted where it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import Executor

from confluent_kafka import KafkaException
from sqlalchemy.exc import DBAPIError

from learner.online import OnlineLearner
from schemas.settings import Settings
from schemas.topics import Topics
from streams import metrics
from streams.history import History
from streams.lag import Lag
from streams.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


class LearnMetrics:
    """Looks at the learner on its thread, and at what the database and the broker say on another one."""

    def __init__(self, settings: Settings, broker: str, store: Store, learner: OnlineLearner) -> None:
        topics = Topics(settings)
        self._learner = learner
        self._store = store
        self._history = History(store.engine)
        self._lag = Lag(broker, store, {name: topics.examples(name) for name in settings.scenarios}, partitions=1)
        self._examples: Mapping[str, int] = learner.run.examples
        self._steps, self._skipped = learner.run.step, learner.run.skipped_steps

    async def run(self, thread: Executor) -> None:
        """Go on for ever; what cannot be asked is logged, and stays as it was."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.run_in_executor(thread, self.look)
            await loop.run_in_executor(None, self.ask)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """At the learner. It may have gone back to an earlier state since: what it counts is then not counted again."""
        learner = self._learner
        examples, steps, skipped = learner.run.examples, learner.run.step, learner.run.skipped_steps
        for name, count in examples.items():
            metrics.examples.labels(name).inc(max(0, count - self._examples[name]))
            metrics.replay_rows.labels(name).set(learner.remembered[name])
            if (recall := learner.run.recall[name]) is not None:
                metrics.recall.labels(name).set(recall)
        metrics.steps.inc(max(0, steps - self._steps))
        metrics.skipped_steps.inc(max(0, skipped - self._skipped))
        metrics.items_left_out.set(learner.run.left_out)
        metrics.examples_over_share.set(learner.fair_share.refused)
        self._examples, self._steps, self._skipped = examples, steps, skipped

    def ask(self) -> None:
        """The database and the broker."""
        for each in (self._ask_database, self._ask_broker):
            try:
                each()
            except (KafkaException, DBAPIError, TimeoutError) as error:
                log.warning("some metrics stay as they were: %s", str(error).splitlines()[0])

    def _ask_database(self) -> None:
        heads, stances, checkpoints = self._store.heads(), self._history.stances(), self._store.checkpoints()
        for name in self._examples:
            if name in heads:
                head = heads[name]
                metrics.set_model(name, head.lineage, head.version, head.step, head.published_at)
            if name in stances:
                metrics.learning_paused.labels(name).set(stances[name].learning == "paused")
                metrics.serving_restored.labels(name).set(stances[name].restores is not None)
        metrics.checkpoint_made.set(checkpoints[0].made_at if checkpoints else 0)

    def _ask_broker(self) -> None:
        for name, records in self._lag.records().items():
            metrics.lag.labels(name).set(records)
