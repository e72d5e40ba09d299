"""Look-up: what is known of one user, and of one item."""

from __future__ import annotations

import itertools
from http import HTTPStatus

import msgspec

from schemas.items import Item
from schemas.packed import unpack, unpack_times
from streams.gateway.endpoint import Asked, Endpoint, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.intake import read_id
from streams.gateway.refusal import Refusal
from streams.users import read_user

MOST_ACTS = 200


class Act(msgspec.Struct, frozen=True):
    """An item that the user acted on, and when, epoch seconds; `title` is None for an item that is not known."""

    item_id: str
    title: str | None
    at: float


class Counts(msgspec.Struct, frozen=True):
    """How many items of a scenario the user has acted on, and how many are disliked; neither comes back."""

    used: int
    disliked: int


class UserAnswer(msgspec.Struct, frozen=True):
    """What is known of a user.

    Attributes:
        version: grows by one with every write.
        history: newest first; what recommendations are made from.
        scenarios: by name, those in which the user has acted.
    """

    user_id: str
    version: int
    history: list[Act]
    scenarios: dict[str, Counts]


class ItemAnswer(msgspec.Struct, frozen=True):
    """An item as LEARN has last seen it.

    Attributes:
        visible: whether it may be recommended at all.
        eligible: the scenarios in which it may be, if it is visible.
        published_at: epoch seconds.
    """

    item_id: str
    title: str
    text: str
    categories: tuple[str, ...]
    published_at: float | None
    visible: bool
    eligible: list[str]


def read_user_of(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> UserAnswer:
    user_id = read_id("user_id", asked.path["user_id"])
    stored = gateway.serve.load_users([user_id]).get(user_id)
    if stored is None:
        message = f'no event of user "{user_id}" has been counted; events name the user by this very id?'
        raise Refusal(HTTPStatus.NOT_FOUND, "unknown-user", message)
    user = read_user(stored.state)
    acts = list(zip(unpack(user.items), unpack_times(user.times), strict=True))[-MOST_ACTS:][::-1]
    titles = {name: item.title for name, item in gateway.learn.load_items([name for name, _ in acts]).items()}
    return UserAnswer(
        user_id=user_id,
        version=stored.version,
        history=[Act(name, titles.get(name), at) for name, at in acts],
        scenarios={
            name: Counts(len(unpack(user.used.get(name, ""))), len(unpack(user.disliked.get(name, ""))))
            for name in dict.fromkeys(itertools.chain(user.used, user.disliked))
        },
    )


def read_item(gateway: Gateway, asked: Asked[Nothing, Nothing]) -> ItemAnswer:
    item_id = read_id("item_id", asked.path["item_id"])
    item: Item | None = gateway.learn.load_items([item_id]).get(item_id)
    if item is None:
        message = f'item "{item_id}" is not in the catalogue: it was deleted, or LEARN has not read its record yet'
        raise Refusal(HTTPStatus.NOT_FOUND, "unknown-item", message)
    everywhere = list(gateway.settings.scenarios)
    return ItemAnswer(
        item_id=item.item_id,
        title=item.title,
        text=item.text,
        categories=item.categories,
        published_at=item.published_at,
        visible=not item.hidden,
        eligible=everywhere if item.scenarios is None else [name for name in everywhere if name in item.scenarios],
    )


CALLS = (
    Endpoint(
        method="GET",
        path="/api/users/{user_id:path}",
        summary="What is known of a user",
        call=read_user_of,
        answer=UserAnswer,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
    ),
    Endpoint(
        method="GET",
        path="/api/items/{item_id:path}",
        summary="What is known of an item",
        call=read_item,
        answer=ItemAnswer,
        refusals=(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND),
    ),
)
