"""Receipts: what an erasure removed, how far it is, and what Kafka itself still holds of the user, and until when."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from schemas.decoding import Refused, parse_id
from schemas.reports import PLACES
from schemas.topics import UNKNOWN_SCENARIO, Topics
from streams.access import access_to, librdkafka
from streams.administration import BrokerUnreachable
from streams.erasures import PARTS, Erased, Erasures
from streams.rights import Right, RightsMissing

POLL_SECONDS = 0.2
ADMIN_SECONDS = 10.0

_NAMED = re.compile(rb'"user_id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)')
"""Whom bytes name that are perhaps no JSON: what was put aside is often cut off, or wrong elsewhere."""


class Held(msgspec.Struct, frozen=True):
    """A topic that names users, and what Kafka keeps of it: a log cannot be edited.

    Attributes:
        retention_seconds: after which records may go; None is never.
        until: by when what is in it now is gone at the latest, epoch seconds: a record goes with its segment, and that
            is closed only after a while.
    """

    topic: str
    retention_seconds: float | None
    until: float | None


class Receipt(msgspec.Struct, frozen=True):
    """What became of an erasure; it does not say whose it was.

    Attributes:
        status: `pending` until a process has come to it, `done` once all of them are through.
        parts: when each process was through, epoch seconds; None while it is not.
        removed: how much from each place; examples are counted as they are met, so theirs may still grow.
        held: what Kafka still holds of the user, and of anybody.
        left: what the database keeps of deleted rows, in sentences; nothing is nothing.
    """

    erasure_id: str
    status: Literal["pending", "under way", "done"]
    requested_at: float | None
    reason: str
    parts: dict[str, float | None]
    removed: dict[str, int]
    held: list[Held]
    left: list[str]


def read_receipt(erasures: Erasures, erasure_id: str, held: Sequence[Held]) -> Receipt:
    """How far an erasure is by now; `pending` if nobody has come to it, or it does not exist."""
    parts, counts = erasures.parts(erasure_id), erasures.counts(erasure_id)
    done: dict[str, float | None] = {part: parts[part].done_at if part in parts else None for part in PARTS}
    first = next(iter(parts.values()), None)
    return Receipt(
        erasure_id=erasure_id,
        status="pending" if first is None else "done" if None not in done.values() else "under way",
        requested_at=first.requested_at if first else None,
        reason=first.reason if first else "",
        parts=done,
        removed={place: counts[place] for place in PLACES if place in counts},
        held=list(held),
        left=erasures.left,
    )


def await_receipt(
    erasures: Erasures, erasure_id: str, seconds: float, stop: threading.Event, tell: Callable[[Receipt], None]
) -> Receipt:
    """The receipt once it is done, or as it is when time is up or `stop` is set; `tell` hears how far it is."""
    deadline = time.monotonic() + seconds
    while True:
        found = read_receipt(erasures, erasure_id, ())
        tell(found)
        if found.status == "done" or time.monotonic() > deadline or stop.wait(POLL_SECONDS):
            return found


def held_by_kafka(broker: str, topics: Topics, now: float) -> list[Held]:
    """The topics that name users, as the cluster keeps them.

    Raises:
        BrokerUnreachable: it does not say.
        RightsMissing: it does not say so to us.
    """
    scenarios = topics.scenarios
    names = [
        *(topics.events(name) for name in scenarios),
        topics.requests,
        *(topics.recommendations(name) for name in (*scenarios, UNKNOWN_SCENARIO)),
        *(topics.examples(name) for name in scenarios),
        topics.dead_letters,
        topics.erasures,
    ]
    settings: dict[str, Any] = {**librdkafka(broker), "log_level": 0, "error_cb": lambda _error: None}
    admin = AdminClient(settings)
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
    try:
        asked = admin.describe_configs(resources, request_timeout=ADMIN_SECONDS)
        return [_held(each.name, asked[each].result(ADMIN_SECONDS), now) for each in resources]
    except KafkaException as failure:
        if failure.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise RightsMissing(
                access_to(broker).user, [Right("DescribeConfigs", "topic", each) for each in names]
            ) from None
        raise BrokerUnreachable(broker, failure.args[0].str()) from None


def _held(topic: str, configuration: Mapping[str, Any], now: float) -> Held:
    kept = int(configuration["retention.ms"].value) / 1000
    if kept < 0:
        return Held(topic, None, None)
    return Held(topic, kept, now + kept + int(configuration["segment.ms"].value) / 1000)


def named_in(key: bytes | None, value: bytes | None) -> set[str]:
    """The users that a record names, by its key or by a `user_id` in its value, JSON or not."""
    found: set[str] = set()
    if key:
        found.add(key.decode(errors="replace"))
    for each in _NAMED.findall(value or b""):
        try:
            found.add(parse_id("user_id", msgspec.json.decode(each, type=str | int)))
        except (msgspec.DecodeError, UnicodeDecodeError, Refused):
            continue
    return found


def is_erased(users: set[str], at: float, erased: Mapping[str, Erased]) -> bool:
    """Whether a record that was written at this time (epoch seconds) is of the past of somebody who was erased."""
    return any(user in erased and at <= erased[user].at for user in users)
