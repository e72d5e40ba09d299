"""The gateway: what all its handlers share, and the threads on which they wait for database and Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import ParamSpec, TypeVar

from schemas.settings import Settings
from schemas.topics import Topics
from streams.erasures import Erasures
from streams.gateway.condition import Condition
from streams.gateway.doorkeeper import Doorkeeper
from streams.gateway.live import Live
from streams.gateway.overview import Overview, read_overview
from streams.gateway.publisher import RETRY_AFTER, Outgoing, Publisher
from streams.gateway.refusal import Refusal, unknown_scenario
from streams.gateway.replies import Replies
from streams.gateway.reports import ReportRow, report_row
from streams.history import History
from streams.status import read_processes
from streams.store import Store

THREADS = 8
"""Calls that wait for the database or for a reader of Kafka at the same time; further ones wait for a thread."""

LIVE_SECONDS = 3600.0
"""Over how long the trends go that are told live."""

Given = ParamSpec("Given")
Found = TypeVar("Found")


class Gateway:
    """Settings, database and broker of one GATEWAY; nothing in it outlives the process.

    Attributes:
        serve: the store by SERVE's name, and `learn` by LEARN's: what those two have written.
    """

    def __init__(
        self,
        settings: Settings,
        broker: str,
        *,
        history: History,
        serve: Store,
        learn: Store,
        doorkeeper: Doorkeeper,
    ) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.broker = broker
        self.history = history
        self.erasures = Erasures(history.engine)
        self.serve = serve
        self.learn = learn
        self.doorkeeper = doorkeeper
        self.publisher = Publisher(broker)
        answered = [self.topics.recommendations(name) for name in settings.scenarios]
        self.replies = Replies(broker, answered)
        self.condition = Condition(partial(read_processes, settings, serve, history), self.publisher.ask_broker)
        self.live = Live(self._overview, self._reports)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway")

    async def apart(self, call: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
        """Run what blocks on a thread, while the event loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*given, **named))

    async def publish(self, records: Sequence[Outgoing]) -> None:
        """Send records and wait until Kafka has all of them.

        Raises:
            Refusal: 503, at once while Kafka is known to be away, or if it does not acknowledge some of them in time.
        """
        self.check_broker()
        await self.publisher.publish(records, self._threads)

    def check_broker(self) -> None:
        """Nobody shall wait for a Kafka that is known to be away.

        Raises:
            Refusal: 503, with since when it is.
        """
        if (trouble := self.condition.of("kafka")) is not None:
            message = f"{trouble.sentence} Nothing was taken; send it again then."
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "no-broker", message, headers=RETRY_AFTER)

    def check_scenario(self, name: str) -> str:
        """The name, if it is one of the configured.

        Raises:
            Refusal: 404 that names the known ones.
        """
        if name not in self.settings.scenarios:
            raise unknown_scenario(name, self.settings.scenarios)
        return name

    def start(self) -> None:
        """Begin to listen for answers, and to look after the parts; on the event loop that serves."""
        self.replies.start()
        self.condition.start()

    async def _overview(self) -> Overview:
        read = partial(read_overview, self.settings, self.serve, self.history, seconds=LIVE_SECONDS)
        return await self.apart(read)

    async def _reports(self, since: float) -> list[ReportRow]:
        return [report_row(each) for each in await self.apart(self.history.reports, since=since)]

    def close(self) -> None:
        self.condition.close()
        self.replies.close()
        self.publisher.close()
        self._threads.shutdown(cancel_futures=True)
