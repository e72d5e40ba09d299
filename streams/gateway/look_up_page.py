"""Look up: what is known of one user or one item, and what would be recommended now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from starlette.requests import Request

from streams.gateway.endpoint import Asked, Nothing
from streams.gateway.gateway import Gateway
from streams.gateway.latest import MOST_LISTS, latest_of, listed_items
from streams.gateway.lookup import ItemAnswer, UserAnswer, read_item, read_user_of
from streams.gateway.recommending import ask
from streams.gateway.refusal import Refusal

SIMILAR_SHOWN = 12


@dataclass(frozen=True)
class Exposure:
    """In how many of the newest lists of a scenario an item stood, at which place, with which scores."""

    lists: int
    shown: int
    place: float | None
    lowest: float | None
    highest: float | None
    sources: dict[str, int]


def read(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    given = request.query_params
    user_id, item_id = given.get("user", "").strip(), given.get("item", "").strip()
    user: UserAnswer | None = None
    item: ItemAnswer | None = None
    problem = ""
    try:
        if user_id:
            user = read_user_of(gateway, Asked(request, {"user_id": user_id}, Nothing(), Nothing()))
        elif item_id:
            item = read_item(gateway, Asked(request, {"item_id": item_id}, Nothing(), Nothing()))
    except Refusal as refusal:
        problem = refusal.fault.message
    chosen = given.get("scenario", "")
    if chosen not in gateway.settings.scenarios:
        chosen = next(iter(_usual(gateway, user, item)))
    return {
        "user_id": user_id,
        "item_id": item_id,
        "user": user,
        "item": item,
        "problem": problem,
        "chosen": chosen,
        "scenarios": list(gateway.settings.scenarios),
        "now": time.time(),
    }


def _usual(gateway: Gateway, user: UserAnswer | None, item: ItemAnswer | None) -> list[str]:
    """Scenarios to look at where none is named: those of the user or of the item first."""
    own = list(user.scenarios) if user is not None else item.eligible if item is not None else []
    return [name for name in [*own, *gateway.settings.scenarios] if name in gateway.settings.scenarios]


async def read_list(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """What is recommended to a user at this moment, by asking SERVE."""
    scenario, user_id = request.query_params.get("scenario", ""), request.query_params.get("user", "")
    return await _asked(gateway, scenario, {"user_id": user_id})


async def read_similar(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """What lies nearest to an item, by asking SERVE."""
    scenario, item_id = request.query_params.get("scenario", ""), request.query_params.get("item", "")
    return await _asked(gateway, scenario, {"item_id": item_id, "k": SIMILAR_SHOWN})


async def _asked(gateway: Gateway, scenario: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    began = time.perf_counter()
    found = await ask(gateway, scenario, fields)
    seconds = time.perf_counter() - began
    names = {name for each in found.items for name in (each.item_id, each.because) if name is not None}
    titles = await gateway.apart(gateway.learn.load_items, sorted(names))
    return {"found": found, "items": listed_items(found, titles), "seconds": seconds}


def read_lists(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """The last lists of a scenario."""
    return {"latest": latest_of(gateway, request.path_params["scenario"], 8), "now": time.time()}


def read_exposure(gateway: Gateway, request: Request) -> Mapping[str, Any]:
    """How often an item stands in the newest lists of a scenario."""
    scenario, item_id = request.query_params.get("scenario", ""), request.query_params.get("item", "")
    latest = latest_of(gateway, scenario, MOST_LISTS)
    found = [
        (place, each) for one in latest.lists for place, each in enumerate(one.items, 1) if each.item_id == item_id
    ]
    scores = [each.score for _, each in found]
    return {
        "scenario": scenario,
        "exposure": Exposure(
            lists=len(latest.lists),
            shown=len(found),
            place=fmean(place for place, _ in found) if found else None,
            lowest=min(scores, default=None),
            highest=max(scores, default=None),
            sources=dict(Counter(each.source for _, each in found)),
        ),
    }
