"""The calls of the API, each with its path, its words and what it answers."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from schemas.signals import SIGNALS, Signal
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.overview import Overview, read_overview
from streams.gateway.series import DEFAULT_RANGE, Range, SeriesAnswer, SeriesQuery, read_seconds, read_series


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


def health(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> Alive:
    return Alive("alive")


class OverviewQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Over how long trends go."""

    range: Range = DEFAULT_RANGE


def overview(gateway: Gateway, asked: Asked[OverviewQuery, Nothing]) -> Overview:
    seconds = read_seconds(asked.query.range)
    return read_overview(gateway.settings, gateway.serve, gateway.history, seconds=seconds)


def signals(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> list[Signal]:
    return list(SIGNALS.values())


CALLS: tuple[Endpoint, ...] = (
    Endpoint(
        method="GET", path="/health", summary="Whether this process answers", call=health, answer=Alive
    ),
    Endpoint(
        method="GET",
        path="/api/scenarios",
        summary="Every scenario at a glance, worst first",
        call=overview,
        query=OverviewQuery,
        answer=Overview,
        refusals=(HTTPStatus.BAD_REQUEST,),
    ),
    Endpoint(
        method="GET",
        path="/api/signals",
        summary="What is measured, what it means, and what to do when it is red",
        call=signals,
        answer=list[Signal],
    ),
    Endpoint(
        method="GET",
        path="/api/series/{scenario}",
        summary="Signals of a scenario over time, at most 500 points",
        call=read_series,
        query=SeriesQuery,
        answer=SeriesAnswer,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
    ),
)  # fmt: skip
