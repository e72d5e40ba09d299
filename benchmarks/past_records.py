"""The records that belong to the made-up past: items, users, the last lists, and what could not be taken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from schemas.decoding import Invalid
from schemas.events import Event
from schemas.items import Item
from schemas.recommendations import ModelVersion, Recommendation, RecommendedItem, Trigger, encode_recommendation
from schemas.reports import dead_letter_headers
from schemas.settings import Settings
from schemas.times import say_time
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.outbox import Outbox
from streams.store import Store
from streams.users import UserCache

KINDS = ("Quiet", "Northern", "Little", "Open", "Second", "Golden", "Early", "Long")
THINGS = ("harbour", "kitchen", "orchard", "night train", "workshop", "garden", "mountain hut", "record shop")
ITEMS = [f"item-{number}" for number in range(len(KINDS) * len(THINGS))]
TITLES = [f"{kind} {thing}" for kind, thing in itertools.product(KINDS, THINGS)]
USERS = [f"u-{number}" for number in range(40)]
SOURCES = ("model", "model", "model", "model", "model", "model", "popular", "popular", "fresh")


def fill_catalogue(store: Store, settings: Settings, now: float, *, seed: int = 1) -> None:
    """Items, and users who have acted on some of them in the first scenarios."""
    random = np.random.default_rng(seed)
    items = [
        Item(
            item_id=name, title=title, text=f"{title}: told in a few words, for those who come by.",
            categories=("short", "long")[number % 2 : number % 2 + 1], published_at=now - 86_400.0 * number,
        )
        for number, (name, title) in enumerate(zip(ITEMS, TITLES, strict=True))
    ]  # fmt: skip
    with store.engine.begin() as connection:
        store.save_items(connection, items, [])
    cache = UserCache(store, len(USERS))
    users = cache.load(USERS)
    for user_id, user in users.items():
        for number, place in enumerate(random.choice(len(ITEMS), 14, replace=False)):
            scenario = list(settings.scenarios)[number % min(2, len(settings.scenarios))]
            weight = -1.0 if number == 5 else 1.0
            event = Event(
                user_id=user_id, item_id=ITEMS[place], event="click", weight=weight, time=now - 3600.0 * (14 - number)
            )
            user.apply(event, scenario, settings.serve, settings.model.history)
    with store.engine.begin() as connection:
        store.save_users(connection, cache.rows(users))


def publish_records(broker: str, settings: Settings, now: float, scenarios: Sequence[str], *, seed: int = 1) -> None:
    """The last lists of these scenarios, and dead letters with their causes."""
    topics = Topics(settings)
    ensure_topics(broker, topics.all(), settings.kafka.replication)
    random = np.random.default_rng(seed)
    outbox = Outbox(broker)
    try:
        for scenario in scenarios:
            for found in _lists(topics, scenario, now, random):
                outbox.send(
                    topics.recommendations(scenario), (found.user_id or "").encode(), encode_recommendation(found)
                )
        for scenario in scenarios[:2]:
            for offset, (invalid, value) in enumerate(_letters(scenario)):
                headers = dead_letter_headers(
                    invalid, topics.events(scenario), offset % 4, 8_000 + offset, round(now * 1000)
                )
                outbox.send(topics.dead_letters, b"u-7", value, headers=headers)
        outbox.flush()
    finally:
        outbox.close()


def _lists(topics: Topics, scenario: str, now: float, random: np.random.Generator) -> Iterator[Recommendation]:
    for number in range(30):
        places = random.choice(len(ITEMS), 10, replace=False)
        scores = np.sort(random.normal(1.5, 0.8, 10))[::-1]
        items = [
            RecommendedItem(
                ITEMS[place], round(float(score), 3), source := SOURCES[int(random.integers(len(SOURCES)))],
                ITEMS[int(random.integers(len(ITEMS)))] if source == "model" else None,
            )
            for place, score in zip(places, scores, strict=True)
        ]  # fmt: skip
        trigger = Trigger(topics.events(scenario), number % 4, 300_000 + number)
        yield Recommendation(
            recommendation_id=trigger.recommendation_id, user_id=USERS[int(random.integers(len(USERS)))],
            scenario=scenario, generated_at=say_time(now - 30 + number), items=items, trigger=trigger,
            model=ModelVersion(1188, 49_040), trained_through={}, index_sequence=48_110,
        )  # fmt: skip


def _letters(scenario: str) -> Iterator[tuple[Invalid, bytes]]:
    known = "view, click, read, watch, like, share, purchase"
    bad = {"user_id": "u-7", "item_id": "item-3", "event": "clik", "timestamp": "2026-11-27T04:11:09Z"}
    yield Invalid("bad-event", f'scenario "{scenario}": event "clik" is not one of {known}'), msgspec.json.encode(bad)
    empty = {"user_id": "", "item_id": "item-3", "event": "click"}
    yield Invalid("bad-id", "user_id is empty; 1 to 256 bytes of UTF-8 are allowed"), msgspec.json.encode(empty)
    yield Invalid("not-json", "the value is not JSON: truncated at byte 31"), b'{"user_id": "u-9", "item_id": "'
    yield Invalid("not-json", "the value is not JSON: byte 0 is 0x1f"), bytes.fromhex("1f8b0800a1b2c3d4")
