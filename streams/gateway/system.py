"""The system: whether it is alive and ready, what it measures, and how healthy its data are."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from starlette.responses import Response, StreamingResponse

from schemas.signals import SIGNALS, Signal
from streams import metrics
from streams.gateway.condition import Trouble
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.publisher import RETRY_AFTER
from streams.gateway.refusal import Refusal
from streams.status import DEAD, PartitionStatus, read_status

BROKER_SECONDS = 5.0


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: str


class Ready(msgspec.Struct, frozen=True, omit_defaults=True):
    """It does its work; `degraded` names what does not, and what that means meanwhile."""

    status: str
    degraded: list[Trouble] = []


class Freshness(msgspec.Struct, frozen=True):
    """How far a scenario is behind, and how old what it serves is; None before anything was published."""

    lag: int
    learning_lag: int
    model_age_seconds: float | None


class DeadLetterCount(msgspec.Struct, frozen=True):
    """How many records of a topic could not be taken for the same reason."""

    topic: str
    code: str
    count: int


class HealthOfData(msgspec.Struct, frozen=True):
    """Lag per partition by topic, freshness by scenario, and dead letters by topic and code, most first."""

    topics: dict[str, dict[str, PartitionStatus]]
    freshness: dict[str, Freshness]
    dead_letters: list[DeadLetterCount]


def health(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> Alive:
    return Alive("alive")


def ready(gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> Ready:
    troubles = gateway.condition.look()
    reasons = [each.sentence for each in troubles if each.part in ("database", "kafka")]
    if not reasons and not gateway.replies.listening.is_set():
        reasons.append("Answers to requests are not heard yet.")
    if reasons:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", " ".join(reasons), headers=RETRY_AFTER)
    return Ready("ready", troubles)


def signals(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> list[Signal]:
    return list(SIGNALS.values())


def health_of_data(gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> HealthOfData:
    status = read_status(gateway.settings, gateway.broker, gateway.serve, gateway.learn, timeout=BROKER_SECONDS)
    dead = [
        DeadLetterCount(topic, code.removeprefix(DEAD), count)
        for (topic, code), count in gateway.serve.tallies().items()
        if code.startswith(DEAD)
    ]
    return HealthOfData(
        topics=status["topics"],
        freshness={
            name: Freshness(each["lag"], each["learning_lag"], each["model"]["age_seconds"])
            for name, each in status["scenarios"].items()
        },
        dead_letters=sorted(dead, key=lambda each: (-each.count, each.topic, each.code)),
    )


async def tell_prometheus(_gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> Response:
    return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)


async def live(gateway: Gateway, _asked: Asked[Nothing, Nothing]) -> Response:
    return StreamingResponse(
        gateway.live.listen(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


CALLS = (
    Endpoint(method="GET", path="/health", summary="Whether this process answers", call=health, answer=Alive),
    Endpoint(
        method="GET",
        path="/ready",
        summary="Whether database and broker answer it, and which other part does not do its work",
        call=ready,
        answer=Ready,
        refusals=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        summary="What this process tells Prometheus of itself",
        call=tell_prometheus,
        answer=str,
        media="text/plain",
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
        path="/api/health-of-data",
        summary="Lag per partition, freshness, and dead letters by reason",
        call=health_of_data,
        answer=HealthOfData,
        refusals=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
    Endpoint(
        method="GET",
        path="/api/live",
        summary="Server-sent events: `scenarios` with summaries that changed, `reports` with new ones",
        call=live,
        answer=str,
        media="text/event-stream",
        refusals=(HTTPStatus.SERVICE_UNAVAILABLE,),
    ),
)
