"""The process of GATEWAY: takes its port, serves until it is told to stop, and lets open calls end first."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import NoReturn

import uvicorn
from sqlalchemy.engine import Engine

from schemas.settings import Settings
from streams.gateway.address import listen, url_of
from streams.gateway.application import make_app
from streams.gateway.doorkeeper import Doorkeeper, load_token, where_token
from streams.gateway.gateway import Gateway
from streams.history import History
from streams.signals import StopSignals
from streams.store import Store
from streams.worker import end_if_stuck

log = logging.getLogger(__name__)

OPEN_CALLS_SECONDS = 5
"""How long calls that are being answered may take to end when the process stops."""


class Server(uvicorn.Server):
    """Tells when it answers, and ends what streams for ever before it waits for calls to end."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], before_stop: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._before_stop = before_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._before_stop()
        await super().shutdown(sockets)


def make_server(gateway: Gateway, on_ready: Callable[[], None]) -> Server:
    config = uvicorn.Config(
        make_app(gateway),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=OPEN_CALLS_SECONDS,
    )
    return Server(config, on_ready, gateway.live.close)


def run_gateway(
    settings: Settings, broker: str, engine: Engine, owner: str, stops: StopSignals, on_ready: Callable[[str], None]
) -> NoReturn:
    """Serve until told to stop; `on_ready` is called with the URL once it answers.

    Raises:
        PortTaken: its address cannot be listened on.
    """
    listening = listen(settings.gateway.host, settings.gateway.port)
    url = url_of(listening)
    serve, learn = (Store(engine, f"{settings.kafka.prefix}{name}", owner) for name in ("serve", "learn"))
    doorkeeper = Doorkeeper(load_token(settings), where_token(settings))
    gateway = Gateway(settings, broker, history=History(engine), serve=serve, learn=learn, doorkeeper=doorkeeper)

    def ready() -> None:
        log.info("GATEWAY answers on %s", url)
        on_ready(url)

    server = make_server(gateway, ready)

    async def serve_it() -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            end_if_stuck(settings.stop_seconds, loop)
            server.should_exit = True

        stops.then(stop)
        await server.serve([listening])

    with listening:
        asyncio.run(serve_it())
    engine.dispose()
    sys.exit(0)
