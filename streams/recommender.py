"""The recommender: from who asks to lists of items, the model's, or what is popular for the control group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from learner.popular import most_popular
from learner.ranking import OWN_CANDIDATES, Question, rank, reasons
from schemas.control_group import in_control_group
from schemas.packed import unpack, unpack_times
from schemas.recommendations import RecommendedItem, Request, Trigger
from schemas.settings import Settings
from streams.mirror import Mirror
from streams.users import User

RANKED_AT_ONCE = 64
SMALLEST_LIST_WITH_A_NEW_ITEM = 3


@dataclass(frozen=True)
class Asked:
    """A recommendation to be made: for whom, where, and in answer to which record.

    Attributes:
        now: when it happened that is answered, and `received`: when Kafka got the record of it, epoch seconds.
        control: whether it is for a user of the scenario's control group.
    """

    trigger: Trigger
    user_id: str
    user: User
    scenario: str
    now: float
    received: float
    k: int
    control: bool
    request: Request | None = None
    item_id: None = None

    @property
    def categories(self) -> frozenset[str]:
        return frozenset(self.request.categories if self.request else ())


@dataclass(frozen=True)
class Made:
    """A list in answer to what was asked, best first; `source` is where most of its items come from."""

    asked: Asked
    items: list[RecommendedItem]
    source: str


class Recommender:
    """Makes lists out of what the mirror holds; changes nothing but the count of a new item's impressions."""

    def __init__(self, settings: Settings, mirror: Mirror) -> None:
        self._settings = settings
        self._mirror = mirror

    def shelf(self, scenario: str) -> str:
        """A scenario that is not configured is answered from the first one's shelf, from what is popular there."""
        return scenario if self.knows(scenario) else self._mirror.scenarios[0]

    def knows(self, scenario: str) -> bool:
        return scenario in self._settings.scenarios

    def in_control(self, user_id: str, scenario: str) -> bool:
        """Whether a user is shown what is popular in a scenario, to compare the model with."""
        known = self._settings.scenarios.get(scenario)
        return known is not None and in_control_group(user_id, scenario, known.control)

    def make(self, asked: Sequence[Asked]) -> Iterator[list[Made]]:
        """The lists, some of one scenario at a time; each is made when it is taken."""
        groups: dict[tuple[str, bool, frozenset[str]], list[Asked]] = {}
        for each in asked:
            groups.setdefault((each.scenario, each.control, each.categories), []).append(each)
        for (scenario, control, categories), group in groups.items():
            for start in range(0, len(group), RANKED_AT_ONCE):
                some = group[start : start + RANKED_AT_ONCE]
                yield self._popular(scenario, some, categories) if control else self._rank(scenario, some, categories)

    def _popular(self, scenario: str, asked: Sequence[Asked], categories: frozenset[str]) -> list[Made]:
        mirror, table = self._mirror, self._mirror.table
        excluded = [frozenset(table.rows(list(self._unwanted(scenario, each)))) for each in asked]
        most = max(each.k for each in asked)
        lists = most_popular(
            table, mirror.number(scenario), mirror.clocks(scenario), excluded, most, self._allowed(categories)
        )
        return [
            Made(
                each,
                [RecommendedItem(str(table.id_of[row]), share, "popular") for row, share in pairs[: each.k]],
                "popular",
            )
            for each, pairs in zip(asked, lists, strict=True)
        ]

    def _rank(self, scenario: str, asked: Sequence[Asked], categories: frozenset[str]) -> list[Made]:
        mirror, table = self._mirror, self._mirror.table
        shelf, known = self.shelf(scenario), self.knows(scenario)
        repeat = self._settings.scenarios[shelf].repeat
        unwanted = [self._unwanted(shelf, each) for each in asked]
        questions = [
            self._question(each, list(names), known, unpack(each.user.may_return(shelf, repeat)))
            for each, names in zip(asked, unwanted, strict=True)
        ]
        most = max(each.k for each in asked)
        ranking = rank(
            mirror.head(shelf).model, table, mirror.number(shelf), mirror.clocks(shelf), questions,
            mirror.search(shelf), self._allowed(categories), minimum=most,
        )  # fmt: skip
        tops = ranking.rows[:, :most].tolist()
        scores = ranking.scores[:, :most].tolist()
        lists = [[row for row in top[: each.k] if row] for each, top in zip(asked, tops, strict=True)]
        because = reasons(table, questions, lists)
        found = []
        for number, each in enumerate(asked):
            source = "model" if questions[number].history else "popular"
            items = [
                RecommendedItem(str(table.id_of[row]), score, source, reason)
                for row, score, reason in zip(lists[number], scores[number], because[number], strict=False)
            ]
            self._give_new_item_a_chance(shelf, each, unwanted[number], categories, items)
            found.append(Made(each, items, source))
        return found

    def _allowed(self, categories: frozenset[str]) -> torch.Tensor | None:
        return torch.tensor(self._mirror.rows_in(categories), dtype=torch.long) if categories else None

    def _unwanted(self, shelf: str, asked: Asked) -> frozenset[str]:
        """Items that the user must not be shown."""
        excluded = asked.user.excluded(shelf, self._settings.scenarios[shelf].repeat)
        return frozenset(unpack(excluded)) | frozenset(asked.request.exclude if asked.request else ())

    def _question(self, asked: Asked, unwanted: list[str], known: bool, used: list[str]) -> Question:
        user, table = asked.user, self._mirror.table
        length = self._settings.model.history
        items = unpack(user.items)[-length:] if known else []
        times = unpack_times(user.times)[-length:] or [asked.now] * len(items)
        history = [(row, at) for row, at in zip(table.rows(items), times, strict=False) if row]
        return Question(
            history=[row for row, _ in history],
            times=[at for _, at in history],
            now=asked.now,
            excluded=[row for row in table.rows(unwanted) if row],
            used=[row for row in table.rows(used[-OWN_CANDIDATES:]) if row],
        )

    def _give_new_item_a_chance(
        self,
        shelf: str,
        asked: Asked,
        unwanted: frozenset[str],
        categories: frozenset[str],
        items: list[RecommendedItem],
    ) -> None:
        """The last place of a list is for the newest item that nobody has seen yet: how else would it be learnt?"""
        if self._settings.serve.fresh_impressions == 0 or len(items) < SMALLEST_LIST_WITH_A_NEW_ITEM:
            return
        newest = self._mirror.newest(shelf, time.time(), unwanted, categories)
        if newest is None:
            return
        if all(item.item_id != newest for item in items):
            if len(items) == asked.k:
                items.pop()
            items.append(RecommendedItem(newest, items[-1].score, "fresh"))
        self._mirror.count_impression(shelf, newest)
