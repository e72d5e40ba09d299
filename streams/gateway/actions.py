"""Actions: an operator's orders over HTTP, and what came of each."""

from __future__ import annotations

from collections import Counter
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.control import Action, Control, decode_control, encode_control
from schemas.tables import PerformedAction
from streams.gateway.backwards import newest_first, reading
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.publisher import Outgoing
from streams.gateway.refusal import Refusal, bad_request, unknown_scenario
from streams.orders import OrderRefused, make_order

MOST_LOOKED_THROUGH = 1000
"""Orders that are looked through for one whose outcome is not known yet."""


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What shall be done, by whose wish, and why.

    Attributes:
        scenario: left out for `consolidate`, which is for all of them.
        version: that a rollback goes to; left out: the last good one.
        action_id: of your own; the same one is carried out once, however often it is sent.
    """

    action: Action
    author: str
    reason: str
    scenario: str | None = None
    version: int | None = None
    action_id: str | None = None


class Ordered(msgspec.Struct, frozen=True):
    """Kafka has the order; /api/actions/{action_id} says what comes of it."""

    action_id: str


class Outcome(msgspec.Struct, frozen=True):
    """An order and what came of it.

    Attributes:
        outcome: `pending` until LEARN has come to it; `begun` only while a dead letter is on its way back.
        detail: why, or what was done.
        performed_at: epoch seconds, as `requested_at`; None while it is pending.
    """

    action_id: str
    action: str
    scenario: str | None
    version: int | None
    author: str
    reason: str
    requested_at: float
    performed_at: float | None
    outcome: Literal["pending", "begun", "done", "refused"]
    detail: str


class Outcomes(msgspec.Struct, frozen=True):
    """Newest first."""

    actions: list[Outcome]


class ActionsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which ones."""

    scenario: Annotated[str, Meta(description="Only those for this scenario, or for all.")] | None = None
    limit: Annotated[int, Meta(ge=1, le=500, description="How many, at most.")] = 100


async def order(gateway: Gateway, asked: Asked[Nothing, Order]) -> Ordered:
    wanted, scenarios = asked.body, gateway.settings.scenarios
    try:
        made = make_order(
            wanted.action,
            wanted.scenario,
            version=wanted.version,
            author=wanted.author,
            reason=wanted.reason,
            action_id=wanted.action_id,
            scenarios=scenarios,
        )
    except OrderRefused as refused:
        if refused.invalid.code == "unknown-scenario":
            raise unknown_scenario(wanted.scenario or "", scenarios) from None
        raise bad_request(refused.invalid) from None
    await gateway.publish([Outgoing(gateway.topics.control, (made.scenario or "").encode(), encode_control(made))])
    return Ordered(made.action_id)


def read_action(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> Outcome:
    """From the database, or from the control topic while LEARN has not come to it."""
    action_id = asked.path["action_id"]
    if (known := gateway.history.action(action_id)) is not None:
        return outcome_of(known)
    if (waiting := _in_topic(gateway, action_id)) is not None:
        return _pending(waiting)
    message = f'no order "{action_id[:256]}" is known; POST /api/actions answers with the id of the one it gives'
    raise Refusal(HTTPStatus.NOT_FOUND, "unknown-action", message)


def read_actions(gateway: Gateway, asked: Asked[ActionsQuery, Nothing]) -> Outcomes:
    query = asked.query
    if query.scenario is not None:
        gateway.check_scenario(query.scenario)
    return Outcomes([outcome_of(each) for each in gateway.history.actions(query.scenario, query.limit)])


def outcome_of(row: PerformedAction) -> Outcome:
    return Outcome(**{name: getattr(row, name) for name in Outcome.__struct_fields__})


def _in_topic(gateway: Gateway, action_id: str) -> Control | None:
    with reading(gateway.broker) as consumer:
        for record in newest_first(consumer, gateway.topics.control, None, MOST_LOOKED_THROUGH):
            value = record.value()
            found = decode_control(value, record.timestamp()[1] / 1000, Counter()) if value is not None else None
            if isinstance(found, Control) and found.action_id == action_id:
                return found
    return None


def _pending(order: Control) -> Outcome:
    return Outcome(
        action_id=order.action_id,
        action=order.action,
        scenario=order.scenario,
        version=order.version,
        author=order.author,
        reason=order.reason,
        requested_at=order.requested_at,
        performed_at=None,
        outcome="pending",
        detail="LEARN has not come to it yet",
    )


CALLS = (
    Endpoint(
        method="POST",
        path="/api/actions",
        summary="Pause, resume, promote, roll back or consolidate",
        call=order,
        body=Order,
        answer=Ordered,
        status=HTTPStatus.ACCEPTED,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
        token=True,
    ),
    Endpoint(
        method="GET",
        path="/api/actions",
        summary="What was done, by whom and why, newest first",
        call=read_actions,
        query=ActionsQuery,
        answer=Outcomes,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
    ),
    Endpoint(
        method="GET",
        path="/api/actions/{action_id:path}",
        summary="What came of an order",
        call=read_action,
        answer=Outcome,
        refusals=(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    ),
)
