"""The gateway: what all its handlers share, and the threads on which they wait for database and Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from schemas.settings import Settings
from schemas.topics import Topics
from streams.gateway.refusal import unknown_scenario
from streams.history import History
from streams.store import Store

THREADS = 8
"""Calls that wait for the database or for a reader of Kafka at the same time; further ones wait for a thread."""

Given = ParamSpec("Given")
Found = TypeVar("Found")


class Gateway:
    """Settings, database and broker of one GATEWAY; nothing in it outlives the process.

    Attributes:
        serve: the store by SERVE's name, and `learn` by LEARN's: what those two have written.
    """

    def __init__(self, settings: Settings, broker: str, history: History, serve: Store, learn: Store) -> None:
        self.settings = settings
        self.topics = Topics(settings)
        self.broker = broker
        self.history = history
        self.serve = serve
        self.learn = learn
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway")

    async def apart(self, call: Callable[Given, Found], *given: Given.args, **named: Given.kwargs) -> Found:
        """Run what blocks on a thread, while the event loop goes on."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*given, **named))

    def check_scenario(self, name: str) -> str:
        """The name, if it is one of the configured.

        Raises:
            Refusal: 404 that names the known ones.
        """
        if name not in self.settings.scenarios:
            raise unknown_scenario(name, self.settings.scenarios)
        return name

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
