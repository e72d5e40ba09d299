"""A shift that real logs do not offer: one scenario falls silent while another goes on with its items, to other tastes.

Three scenarios of the simulated world. `outlet` has the very items of `shop`, and its users are the same people with
tastes of their own for it; `video` has items of its own, and shares most of everybody's tastes with `shop`. All are
busy, then `shop` is silent, then all are busy again. No model has a say in what users meet: they may act on any item
that is new to them, the likelier the more they would like it. So there is nothing to be known but tastes and renown.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from streams.columns import Row
from streams.shelf import ShelfItem
from streams.world import Shift, World

SILENT, RIVAL, OTHER = "shop", "outlet", "video"
SCENARIOS = (SILENT, RIVAL, OTHER)

ITEMS = 400
"""Of each shelf: nobody is so busy as to use half of it up and leave."""
USERS = 300

EVENTS_PER_SECOND = 50.0
EPOCH = 1_700_000_000.0
CHOOSINESS = 2.0
"""How much likelier an item is acted on: the chance that it would be clicked, to this power."""


@dataclass(frozen=True)
class Lengths:
    """Events of each part of the history."""

    before: int
    silent: int
    after: int

    def total(self) -> int:
        return self.before + self.silent + self.after


@dataclass
class Place:
    """A scenario as its users meet it.

    Attributes:
        world: whose users have their tastes for it.
        shelf: the world's name of it.
    """

    world: World
    shelf: str


class Silence:
    """The history, as `streams.sources.History` has it: the same seed, the same events."""

    name = "the simulated silence"
    home: str | None = None

    def __init__(self, lengths: Lengths, seed: int) -> None:
        self._lengths = lengths
        self._seed = seed

    def items(self) -> Iterator[Row]:
        world = World((SILENT, OTHER), self._seed, items=ITEMS, users=USERS)
        for line, item in enumerate(world.items()):
            yield Row(line, None, described(item))

    def events(self) -> Iterator[Row]:
        yield from self._events

    @cached_property
    def _events(self) -> list[Row]:
        return list(self._made())

    def _made(self) -> Iterator[Row]:
        places, generator = self._places(), np.random.default_rng(self._seed)
        quiet = range(self._lengths.before, self._lengths.before + self._lengths.silent)
        for number in range(self._lengths.total()):
            busy = [name for name in SCENARIOS if name != SILENT or number not in quiet]
            scenario = busy[int(generator.integers(len(busy)))]
            seat = int(generator.integers(USERS))
            item_id = choose(places[scenario], seat, generator)
            fields = {
                "user_id": f"seat-{seat}",
                "item_id": item_id,
                "event": "click",
                "timestamp": EPOCH + number / EVENTS_PER_SECOND,
            }
            yield Row(number, scenario, fields)

    def _places(self) -> dict[str, Place]:
        """Two worlds of one seed have the same items and people; in one, all tastes in the shop are drawn anew."""
        first = World((SILENT, OTHER), self._seed, items=ITEMS, users=USERS)
        second = World((SILENT, OTHER), self._seed, items=ITEMS, users=USERS, shifts=[Shift(SILENT, 0.0, 1.0)])
        second.advance(0.0)
        return {
            SILENT: Place(first, SILENT),
            RIVAL: Place(second, SILENT),
            OTHER: Place(first, OTHER),
        }


def choose(place: Place, seat: int, generator: np.random.Generator) -> str:
    """Let a user act on something new, by taste; no item ages, so that nothing but the silence changes anything."""
    unknown = place.world.unknown(seat, place.shelf)
    chances = place.world.click_probability(seat, place.shelf, unknown, elapsed=0.0) ** CHOOSINESS
    item_id = unknown[int(generator.choice(len(unknown), p=chances / chances.sum()))]
    place.world.act(seat, place.shelf, item_id)
    return item_id


def described(item: ShelfItem) -> dict[str, object]:
    return {
        "item_id": item.item_id,
        "title": item.title,
        "text": item.text,
        "categories": [item.category],
        "scenarios": [SILENT, RIVAL] if item.scenario == SILENT else [item.scenario],
    }
