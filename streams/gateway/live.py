"""Live: what changed is told to every open dashboard; one reader of the database serves all of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
from sqlalchemy.exc import DBAPIError

from streams.gateway.overview import Overview, ScenarioSummary
from streams.gateway.refusal import Refusal
from streams.gateway.reports import ReportRow

log = logging.getLogger(__name__)

READ_SECONDS = 2.0
HEARTBEAT_SECONDS = 15.0
MOST_LISTENERS = 64
MOST_QUEUED = 16
"""Messages that a listener may be behind; one that reads more slowly is let go, and its browser comes back."""
LOOKED_BACK_SECONDS = 300.0
"""Reports may be kept a while after the moment that they speak of."""

RETRY = b"retry: 3000\n\n"
HEARTBEAT = b": still here\n\n"

ReadOverview = Callable[[], Awaitable[Overview]]
ReadReports = Callable[[float], Awaitable[list[ReportRow]]]
"""The reports since a time, newest first."""


class Live:
    """Reads while anybody listens, and not otherwise.

    Events: `scenarios` holds the summaries that changed (all of them at first), `reports` new reports, oldest first.
    """

    def __init__(
        self, overview: ReadOverview, reports: ReadReports, *, seconds: float = READ_SECONDS, most: int = MOST_LISTENERS
    ) -> None:
        self._overview = overview
        self._reports = reports
        self._seconds = seconds
        self._most = most
        self._listeners: set[asyncio.Queue[bytes | None]] = set()
        self._reader: asyncio.Task[None] | None = None
        self._told: dict[str, tuple[bytes, ScenarioSummary]] = {}
        self._reported: set[str] = set()
        self._closed = False

    def listen(self) -> AsyncIterator[bytes]:
        """What to send to one listener, until it goes, is too slow, or `close` is called.

        Raises:
            Refusal: 503, if as many listen as may, or the process stops.
        """
        if self._closed or len(self._listeners) >= self._most:
            message = f"{self._most} listen already, or the process stops; try again in a moment"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "too-many", message, headers={"Retry-After": "5"})
        return self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(MOST_QUEUED)
        if self._told:
            queue.put_nowait(_event("scenarios", [summary for _, summary in self._told.values()]))
        self._listeners.add(queue)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            yield RETRY
            while not self._closed:
                try:
                    message = await asyncio.wait_for(queue.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    message = HEARTBEAT
                if message is None:
                    return
                yield message
        finally:
            self._listeners.discard(queue)

    async def close(self) -> None:
        """End every stream, and the reading for them."""
        self._closed = True
        for queue in list(self._listeners):
            _end(queue)
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _read(self) -> None:
        try:
            self._reported = {each.report_id for each in await self._recent()}
            while self._listeners:
                try:
                    self._tell_scenarios(await self._overview())
                    self._tell_reports(await self._recent())
                except DBAPIError as error:
                    log.warning("nothing is told to dashboards while the database fails: %s", str(error.orig).strip())
                except Exception:
                    log.exception("nothing is told to dashboards")  # the next time is tried as if nothing had been
                await asyncio.sleep(self._seconds)
        finally:
            self._told.clear()
            self._reader = None

    async def _recent(self) -> list[ReportRow]:
        try:
            return await self._reports(time.time() - LOOKED_BACK_SECONDS)
        except DBAPIError:
            return []

    def _tell_scenarios(self, overview: Overview) -> None:
        changed = []
        for summary in overview.scenarios:
            known = _lasting(summary)
            if self._told.get(summary.scenario, (b"",))[0] != known:
                changed.append(summary)
            self._told[summary.scenario] = known, summary
        if changed:
            self._tell(_event("scenarios", changed))

    def _tell_reports(self, recent: list[ReportRow]) -> None:
        new = [each for each in reversed(recent) if each.report_id not in self._reported]
        self._reported = {each.report_id for each in recent}
        if new:
            self._tell(_event("reports", new))

    def _tell(self, message: bytes) -> None:
        for queue in list(self._listeners):
            if queue.full():
                self._listeners.discard(queue)
                _end(queue)
            else:
                queue.put_nowait(message)


def _lasting(summary: ScenarioSummary) -> bytes:
    """What of a summary makes it another one: not that its model grew a little older."""
    status = msgspec.to_builtins(summary.status)
    status["model"].pop("age_seconds")
    return msgspec.json.encode(msgspec.structs.replace(summary, status=status))


def _event(name: str, data: Any) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(data))


def _end(queue: asyncio.Queue[bytes | None]) -> None:
    """Whatever is left to send, the end comes next."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)
