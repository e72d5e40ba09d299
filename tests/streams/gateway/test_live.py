"""Live: every listener hears of what changed, none holds the others up, and all end with the process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from streams.gateway import live
from streams.gateway.live import Live
from streams.gateway.overview import Overview
from streams.gateway.refusal import Refusal
from streams.gateway.reports import ReportRow
from tests.streams.gateway.conftest import Door
from tests.streams.gateway.rows import report, serve_something


def events(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    """Names and contents, as a browser's EventSource has them."""
    name = ""
    for line in answer.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)


def test_a_listener_hears_all_at_first_and_then_what_changed(closed_door: Door) -> None:
    with closed_door.stream("GET", "/api/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = events(answer)
        name, first = next(heard)
        assert (name, sorted(each["scenario"] for each in first)) == ("scenarios", ["news", "shop"])
        serve_something(closed_door.gateway, "shop")
        name, changed = next(heard)
        assert (name, [each["scenario"] for each in changed]) == ("scenarios", ["shop"])
        closed_door.gateway.history.add_reports([report(1, at=time.time())])
        found = dict([next(heard), next(heard)])
        assert [each["report_id"] for each in found["reports"]] == ["r-001"]
        assert found["scenarios"][0]["state"] == "trouble"


def test_the_process_stops_though_somebody_listens(closed_door: Door) -> None:
    with closed_door.stream("GET", "/api/live") as answer:
        heard = events(answer)
        next(heard)
        asyncio.run_coroutine_threadsafe(closed_door.gateway.live.close(), closed_door.gateway.replies._loop).result(5)
        assert list(heard) == []
    assert closed_door.get("/api/live").status_code == 503


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Readings:
    """What the database would say, and how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def overview(self) -> Overview:
        self.asked += 1
        return Overview(0.0, 0.0, 1, [])

    async def reports(self, _since: float) -> list[ReportRow]:
        return [ReportRow(f"r-{self.asked}", "shop", "lag", "alarm", "page", None, None, None, 1, 0.0, "", "It is so.")]


async def some(stream: AsyncIterator[bytes], count: int) -> list[bytes]:
    return [await anext(stream) for _ in range(count)]


@pytest.mark.anyio
async def test_of_many_listeners_each_hears_everything_and_one_reads() -> None:
    readings = Readings()
    told = Live(readings.overview, readings.reports, seconds=0.01)
    streams = [told.listen() for _ in range(5)]
    heard = await asyncio.gather(*(some(each, 4) for each in streams))
    assert all(len([line for line in each if line.startswith(b"event: reports")]) == 3 for each in heard)
    assert readings.asked < 12
    await told.close()


@pytest.mark.anyio
async def test_nobody_reads_while_nobody_listens() -> None:
    readings = Readings()
    told = Live(readings.overview, readings.reports, seconds=0.01)
    stream = told.listen()
    await some(stream, 2)
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator
    await asyncio.sleep(0.05)
    asked = readings.asked
    await asyncio.sleep(0.05)
    assert readings.asked == asked
    await told.close()


@pytest.mark.anyio
async def test_who_does_not_keep_up_is_let_go_and_the_others_hear_on() -> None:
    readings = Readings()
    told = Live(readings.overview, readings.reports, seconds=0.001)
    slow, quick = told.listen(), told.listen()
    await some(slow, 1)
    await some(quick, live.MOST_QUEUED * 2)
    assert len(told._listeners) == 1
    with pytest.raises(StopAsyncIteration):
        await some(slow, live.MOST_QUEUED * 2)
    await told.close()


@pytest.mark.anyio
async def test_no_more_listen_than_may() -> None:
    readings = Readings()
    told = Live(readings.overview, readings.reports, seconds=0.01, most=1)
    stream = told.listen()
    await some(stream, 1)
    with pytest.raises(Refusal, match="1 listen already"):
        told.listen()
    await told.close()


@pytest.mark.anyio
async def test_silence_is_broken_by_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.01)
    readings = Readings()
    told = Live(readings.overview, readings.reports, seconds=60)
    assert (await some(told.listen(), 4))[2:] == [live.HEARTBEAT, live.HEARTBEAT]
    await told.close()
