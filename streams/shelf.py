"""A shelf: the items of one simulated scenario, their hidden tastes, and the titles that tell only part of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from streams.phrasebook import DEPARTMENTS, HINTS, STYLES, TOPICS, Domain

Floats = NDArray[np.float64]
Word = TypeVar("Word")

HIDDEN = 5
"""Factors of taste that no text tells; only behaviour does."""

DIMENSIONS = len(TOPICS) + len(STYLES) + HIDDEN

SECOND_TOPIC = 0.4
STYLE_SPREAD = 0.6
HIDDEN_SPREAD = 0.35
RENOWN_SPREAD = 0.8

# How honest texts are: the share of items whose title, hint and style phrase speak of what the item really is.
TITLE_TELLS = 0.85
HINT_TELLS = 0.75
STYLE_TELLS = 0.7

SPARE = 1.5
TITLE_ATTEMPTS = 8


@dataclass(frozen=True)
class ShelfItem:
    """One item of the world; `topic` is the truth that its text tells only mostly."""

    item_id: str
    scenario: str
    title: str
    text: str
    category: str
    topic: str
    born: float


class Shelf:
    """A table of live items that is renewed row by row, so that it never grows past its capacity.

    Attributes:
        taste: hidden vectors; (capacity, DIMENSIONS).
        renown: appeal that all users agree on; (capacity,).
        born: seconds since the start of the world, negative for the first items; (capacity,), infinite where empty.
        topic: index into `TOPICS`; (capacity,).
        rows: where each live item stands.
    """

    def __init__(self, scenario: str, domain: Domain, size: int, generator: np.random.Generator) -> None:
        self.domain = domain
        self._scenario = scenario
        self._generator = generator
        self._made = 0
        capacity = math.ceil(size * SPARE)
        self.taste: Floats = np.zeros((capacity, DIMENSIONS))
        self.renown: Floats = np.zeros(capacity)
        self.born: Floats = np.full(capacity, np.inf)
        self.topic: NDArray[np.int64] = np.zeros(capacity, dtype=np.int64)
        self.items: list[ShelfItem | None] = [None] * capacity
        self.rows: dict[str, int] = {}
        for _ in range(size):
            self.add(born=-float(generator.exponential(domain.fading_seconds * 3)))

    def add(self, born: float) -> tuple[ShelfItem, str | None]:
        """Put a new item on the shelf; on a full one the oldest makes room.

        Args:
            born: seconds since the start of the world.

        Returns:
            The item, and the id of the one that left for it.
        """
        row = len(self.rows)
        left: str | None = None
        if row == len(self.items):
            row = int(self.born.argmin())
            oldest = self.items[row]
            left = oldest.item_id if oldest else None
            self.rows = {item_id: at for item_id, at in self.rows.items() if at != row}
        generator = self._generator
        main, second = generator.choice(len(TOPICS), size=2, replace=False)
        style = generator.normal(0.0, 1.0, len(STYLES))
        taste = np.zeros(DIMENSIONS)
        taste[main], taste[second] = 1.0, SECOND_TOPIC
        taste[len(TOPICS) : len(TOPICS) + len(STYLES)] = style * STYLE_SPREAD
        taste[len(TOPICS) + len(STYLES) :] = generator.normal(0.0, HIDDEN_SPREAD, HIDDEN)
        item = self._compose(TOPICS[main], TOPICS[second], style, born)
        self.taste[row] = taste
        self.renown[row] = generator.exponential(RENOWN_SPREAD) - RENOWN_SPREAD
        self.born[row] = born
        self.topic[row] = main
        self.items[row] = item
        self.rows[item.item_id] = row
        return item, left

    def live(self) -> list[ShelfItem]:
        """All items that can be met now, in the order of their rows."""
        return [item for item in self.items if item is not None]

    def _compose(self, main: str, second: str, style: Floats, born: float) -> ShelfItem:
        self._made += 1
        told = main if self._tells(TITLE_TELLS) else self._pick(TOPICS)
        hints = (
            self._pick(HINTS[main if self._tells(HINT_TELLS) else self._pick(TOPICS)]),
            self._pick(HINTS[second if self._tells(HINT_TELLS) else self._pick(TOPICS)]),
        )
        taken = {item.title for item in self.items if item is not None}
        for _ in range(TITLE_ATTEMPTS):
            title = f"{self._pick(self.domain.subjects[told])}{self.domain.joint}{self._detail(style)}"
            if title not in taken:
                break
        return ShelfItem(
            item_id=f"{self._scenario}-{self._made:05d}",
            scenario=self._scenario,
            title=title,
            text=" ".join(dict.fromkeys((*hints, self._pick(self.domain.remarks)))),
            category=DEPARTMENTS[main],
            topic=main,
            born=born,
        )

    def _detail(self, style: Floats) -> str:
        axis = int(np.abs(style).argmax()) if self._tells(STYLE_TELLS) else int(self._generator.integers(len(STYLES)))
        low, high = self.domain.details[axis]
        return self._pick(high if style[axis] > 0 else low)

    def _tells(self, share: float) -> bool:
        return bool(self._generator.random() < share)

    def _pick(self, words: tuple[Word, ...]) -> Word:
        return words[int(self._generator.integers(len(words)))]
