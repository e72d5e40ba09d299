"""The latest lists: what a scenario recommended last, and where each item came from, read from its topic's ends."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

import msgspec
from confluent_kafka import Message
from msgspec import Meta

from schemas.items import Item
from schemas.recommendations import Recommendation, decode_recommendation
from streams.gateway.backwards import newest_first, partitions_of, reading
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.receipts import is_erased

MOST_LISTS = 200


class LatestQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many."""

    limit: Annotated[int, Meta(ge=1, le=MOST_LISTS, description="How many lists, at most.")] = 20


class ListedItem(msgspec.Struct, frozen=True):
    """An item of a list; titles are None where the catalogue does not know the item."""

    item_id: str
    title: str | None
    score: float
    source: str
    because: str | None
    because_title: str | None


class Listed(msgspec.Struct, frozen=True):
    """A list as it went out at `at`, epoch seconds; for a user, or of what is similar to an item."""

    recommendation_id: str
    at: float
    user_id: str | None
    item_id: str | None
    requested: bool
    version: int
    items: list[ListedItem]


class Latest(msgspec.Struct, frozen=True):
    """Lists, newest first; `sources` counts the items of all of them by where they came from."""

    scenario: str
    lists: list[Listed]
    sources: dict[str, int]


def read_latest(gateway: Gateway, asked: Asked[LatestQuery, Nothing]) -> Latest:
    return latest_of(gateway, asked.path["scenario"], asked.query.limit)


def latest_of(gateway: Gateway, scenario: str, limit: int) -> Latest:
    """The newest lists over all partitions of the scenario's topic.

    Raises:
        Refusal: 404 for an unknown scenario, 503 if Kafka does not answer.
    """
    topic = gateway.topics.recommendations(gateway.check_scenario(scenario))
    with reading(gateway.broker) as consumer:
        records = [
            record
            for partition in partitions_of(consumer, topic)
            for record in newest_first(consumer, topic, None, limit, partition)
        ]
    newest = heapq.nlargest(limit, records, key=lambda record: record.timestamp()[1])
    lists = [(record, decode_recommendation(record.value() or b"")) for record in newest]
    erased = gateway.erasures.of({found.user_id for _, found in lists if found.user_id is not None})
    lists = [
        (record, found)
        for record, found in lists
        if found.user_id is None or not is_erased({found.user_id}, record.timestamp()[1] / 1000, erased)
    ]
    titles = gateway.learn.load_items(sorted(set(_names(found for _, found in lists))))
    sources = Counter(item.source for _, found in lists for item in found.items)
    return Latest(scenario, [_listed(record, found, titles) for record, found in lists], dict(sources.most_common()))


def _names(lists: Iterable[Recommendation]) -> Iterable[str]:
    for each in lists:
        for item in each.items:
            yield item.item_id
            if item.because is not None:
                yield item.because


def _listed(record: Message, found: Recommendation, titles: dict[str, Item]) -> Listed:
    return Listed(
        recommendation_id=found.recommendation_id,
        at=record.timestamp()[1] / 1000,
        user_id=found.user_id,
        item_id=found.item_id,
        requested=found.request_id is not None,
        version=found.model.version,
        items=listed_items(found, titles),
    )


def listed_items(found: Recommendation, titles: dict[str, Item]) -> list[ListedItem]:
    """The items of a list with what they are called."""

    def title(name: str | None) -> str | None:
        return titles[name].title if name is not None and name in titles else None

    return [
        ListedItem(each.item_id, title(each.item_id), each.score, each.source, each.because, title(each.because))
        for each in found.items
    ]


CALLS = (
    Endpoint(
        method="GET",
        path="/api/latest/{scenario}",
        summary="What a scenario recommended last, and where each item came from",
        call=read_latest,
        query=LatestQuery,
        answer=Latest,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
    ),
)
