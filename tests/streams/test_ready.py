"""A process is ready when its metrics say so, and in no other case."""

from __future__ import annotations

from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from streams.ready import is_ready


@pytest.fixture
def gauge() -> Iterator[tuple[Gauge, WSGIServer]]:
    registry = CollectorRegistry()
    server, thread = start_http_server(0, "127.0.0.1", registry=registry)
    yield Gauge("headstream_ready", "As in streams.metrics.", registry=registry), server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_process_is_ready_from_when_it_says_so(gauge: tuple[Gauge, WSGIServer]) -> None:
    ready, server = gauge
    url = f"http://127.0.0.1:{server.server_port}/metrics"
    assert not is_ready(url)
    ready.set(1)
    assert is_ready(url)


def test_where_nothing_answers_nothing_is_ready() -> None:
    assert not is_ready("http://127.0.0.1:1/metrics")
