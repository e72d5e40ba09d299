"""The simulated world: users with hidden tastes, what they see in an item, and how they read a list of items."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from streams.phrasebook import DOMAINS, TOPICS
from streams.shelf import DIMENSIONS, Floats, Shelf, ShelfItem

# Appeal is a logit. These put lists of what is popular at 5 to 12 % clicks and lists by an oracle at 30 to 40 %.
INDIFFERENCE = -5.0
LOVED, LIKED, UNLOVED = 2.3, 0.8, -0.8
LOVED_TOPICS, LIKED_TOPICS = 2, 2
TASTE_NOISE = 0.3
SHARED_BETWEEN_SCENARIOS = 0.7
MOST_CLICKS = 0.7

WEARINESS = 0.3
WEARINESS_KEPT = 0.8

LOOKS_ON = 0.85
RARE = 0.08
VIEWS_PER_CLICK = 0.25
IDLE_VIEWS = 0.004
SEARCH_SPAN = 30
SEARCH_CLICKS = 0.5

ACTIVITY_SPREAD = 0.8
SHELF_SHARE_OF_A_LIFE = 0.5


@dataclass(frozen=True)
class Shift:
    """From `after_seconds` on, this share of the users has new tastes in one scenario.

    Attributes:
        fashion: whether the renown of the items is dealt anew too: what everybody took to be good no longer is.
    """

    scenario: str
    after_seconds: float
    share: float
    fashion: bool = False


class UnknownScenario(Exception):
    """A shift names a scenario that the world does not have."""

    def __init__(self, scenario: str, known: Sequence[str]) -> None:
        self.scenario = scenario
        self.known = tuple(known)
        super().__init__(f'shift: scenario "{scenario}" is not one of {", ".join(known)}')


class BadShift(Exception):
    """A shift whose share of the users is no share."""

    def __init__(self, shift: Shift) -> None:
        self.shift = shift
        super().__init__(f'shift of scenario "{shift.scenario}": share is {shift.share}; 0 to 1 is allowed')


@dataclass(frozen=True)
class Act:
    """What a user does to an item."""

    item_id: str
    event: str


@dataclass(frozen=True)
class Reading:
    """How a list was read: how many of its items were looked at, from the top, and the act that ended it, if any."""

    looked_at: int
    act: Act | None

    @property
    def clicked(self) -> bool:
        """Whether the act says that the item was liked; a view says only that it was looked into."""
        return self.act is not None and self.act.event != "view"


class World:
    """Everything that is true of items and users; the audience draws on it, and nothing else may.

    Users are addressed by their seat, 0 to `users - 1`. Who has acted on half a shelf leaves, and somebody new takes
    the seat, so the world neither runs dry nor grows.

    Args:
        scenarios: their names; a name that is no domain gets one in turn.
        seed: same seed and same calls, same world.
        items: items of each scenario at the start.
        users: seats.
        shifts: changes of taste that `advance` will bring about.

    Raises:
        UnknownScenario: a shift names a scenario that is not there.
        BadShift: its share is not between 0 and 1.
    """

    def __init__(
        self, scenarios: Sequence[str], seed: int, *, items: int = 200, users: int = 200, shifts: Sequence[Shift] = ()
    ) -> None:
        for shift in shifts:
            if shift.scenario not in scenarios:
                raise UnknownScenario(shift.scenario, scenarios)
            if not 0 <= shift.share <= 1:
                raise BadShift(shift)
        self.scenarios = tuple(scenarios)
        self._pending = sorted(shifts, key=lambda shift: shift.after_seconds)
        streams = iter(np.random.default_rng(seed).spawn(2 * len(scenarios) + 1))
        # A generator per scenario: what happens in one never moves the dice of another.
        turn: Iterator[str] = itertools.cycle(DOMAINS)
        self._shelves = {
            name: Shelf(name, DOMAINS[name if name in DOMAINS else next(turn)], items, next(streams))
            for name in scenarios
        }
        self._moods = {name: next(streams) for name in scenarios}
        self._births = next(streams)
        self._born = 0
        self.users = [""] * users
        self.activity: Floats = np.ones(users)
        self._taste = {name: np.zeros((users, DIMENSIONS)) for name in scenarios}
        self._weariness = {name: np.zeros((users, len(TOPICS))) for name in scenarios}
        self._acted: list[dict[str, set[str]]] = [{} for _ in range(users)]
        for seat in range(users):
            self._welcome(seat)

    def items(self) -> list[ShelfItem]:
        """Every item that can be met now."""
        return [item for shelf in self._shelves.values() for item in shelf.live()]

    def live(self, scenario: str, item_id: str) -> bool:
        return item_id in self._shelves[scenario].rows

    def acted(self, seat: int, scenario: str) -> set[str]:
        """What the user of a seat has acted on in a scenario; not to be changed."""
        return self._acted[seat][scenario]

    def unknown(self, seat: int, scenario: str) -> list[str]:
        """Live items that the user of a seat has not acted on."""
        acted = self._acted[seat][scenario]
        return [item_id for item_id in self._shelves[scenario].rows if item_id not in acted]

    def seconds_between_arrivals(self, scenario: str) -> float:
        return self._shelves[scenario].domain.arrival_seconds

    def arrive(self, scenario: str, elapsed: float) -> tuple[ShelfItem, str | None]:
        """A new item, and the id of the one that left for it, if one had to."""
        item, left = self._shelves[scenario].add(elapsed)
        if left is not None:
            for acted in self._acted:
                acted[scenario].discard(left)
        return item, left

    def advance(self, elapsed: float) -> list[Shift]:
        """Bring about the shifts that are due; returns them."""
        due = [shift for shift in self._pending if shift.after_seconds <= elapsed]
        del self._pending[: len(due)]
        for shift in due:
            mood = self._moods[shift.scenario]
            moved = mood.permutation(len(self.users))[: round(shift.share * len(self.users))]
            for seat in moved:
                self._taste[shift.scenario][seat] = _draw_taste(mood)
            if shift.fashion:
                self._shelves[shift.scenario].renown = mood.permutation(self._shelves[shift.scenario].renown)
        return due

    def click_probability(self, seat: int, scenario: str, item_ids: Sequence[str], elapsed: float) -> Floats:
        """Chance that a user who looks at an item likes it; (len(item_ids),). Nothing is liked twice, or once gone."""
        shelf = self._shelves[scenario]
        acted = self._acted[seat][scenario]
        rows = np.array([shelf.rows.get(item_id, -1) for item_id in item_ids], dtype=np.int64)
        ages = np.maximum(elapsed - shelf.born[rows], 0.0)
        appeal = (
            INDIFFERENCE
            + shelf.taste[rows] @ self._taste[scenario][seat]
            + shelf.renown[rows]
            + shelf.domain.novelty * np.exp(-ages / shelf.domain.fading_seconds)
            - WEARINESS * self._weariness[scenario][seat][shelf.topic[rows]]
        )
        possible = (rows >= 0) & np.array([item_id not in acted for item_id in item_ids], dtype=bool)
        chances: Floats = np.where(possible, np.minimum(1.0 / (1.0 + np.exp(-appeal)), MOST_CLICKS), 0.0)
        return chances

    def read(
        self, seat: int, scenario: str, item_ids: Sequence[str], elapsed: float, generator: np.random.Generator
    ) -> Reading:
        """Look through a list from the top until something is acted on or interest ends; changes nothing."""
        chances = self.click_probability(seat, scenario, item_ids, elapsed)
        possible = chances > 0
        for at, (item_id, chance) in enumerate(zip(item_ids, chances, strict=True)):
            dice = generator.random()
            if dice < chance:
                rare = self._shelves[scenario].domain.rare_event
                return Reading(at + 1, Act(item_id, rare if generator.random() < RARE else "click"))
            if possible[at] and dice < chance * (1 + VIEWS_PER_CLICK) + IDLE_VIEWS:
                return Reading(at + 1, Act(item_id, "view"))
            if generator.random() > LOOKS_ON:
                return Reading(at + 1, None)
        return Reading(len(item_ids), None)

    def search(self, seat: int, scenario: str, elapsed: float, generator: np.random.Generator) -> Act | None:
        """What a user finds without any recommendation: the likeliest of some items come upon, by taste."""
        unknown = self.unknown(seat, scenario)
        if not unknown:
            return None
        met = [unknown[at] for at in generator.integers(len(unknown), size=SEARCH_SPAN)]
        chances = self.click_probability(seat, scenario, met, elapsed)
        found = met[int(generator.choice(len(met), p=chances / chances.sum()))]
        return Act(found, "click" if generator.random() < SEARCH_CLICKS else "view")

    def act(self, seat: int, scenario: str, item_id: str) -> None:
        """Remember an act: the item is done with, its topic wearies, and whoever has seen enough leaves."""
        shelf = self._shelves[scenario]
        row = shelf.rows.get(item_id)
        if row is None:
            return
        weariness = self._weariness[scenario][seat]
        weariness *= WEARINESS_KEPT
        weariness[shelf.topic[row]] += 1.0
        acted = self._acted[seat][scenario]
        acted.add(item_id)
        if len(acted) >= SHELF_SHARE_OF_A_LIFE * len(shelf.rows):
            self._welcome(seat)

    def _welcome(self, seat: int) -> None:
        self._born += 1
        self.users[seat] = f"u-{self._born:05d}"
        births = self._births
        self.activity[seat] = births.lognormal(0.0, ACTIVITY_SPREAD)
        shared = _draw_taste(births)
        for scenario in self.scenarios:
            own = _draw_taste(births)
            # Whole topics are taken from the one or the other, so that loves stay loves and are not averaged away.
            mask = births.random(DIMENSIONS) < SHARED_BETWEEN_SCENARIOS
            self._taste[scenario][seat] = np.where(mask, shared, own)
            self._weariness[scenario][seat] = 0.0
        self._acted[seat] = {scenario: set() for scenario in self.scenarios}


def _draw_taste(generator: np.random.Generator) -> Floats:
    """A user's vector: few loved topics, some liked, the rest unloved; styles and hidden factors as they come."""
    topics = np.full(len(TOPICS), UNLOVED)
    order = generator.permutation(len(TOPICS))
    topics[order[:LOVED_TOPICS]] = LOVED
    topics[order[LOVED_TOPICS : LOVED_TOPICS + LIKED_TOPICS]] = LIKED
    topics += generator.normal(0.0, TASTE_NOISE, len(TOPICS))
    rest: Floats = generator.normal(0.0, 1.0, DIMENSIONS - len(TOPICS))
    return np.concatenate((topics, rest))
