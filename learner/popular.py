"""What is popular: the list for those with whom the model is compared, and no model has a part in it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import islice

from torch import Tensor

from learner.items import ItemTable
from learner.ranking import Clocks, among


def most_popular(
    table: ItemTable,
    scenario: int,
    clocks: Clocks,
    excluded: Sequence[Collection[int]],
    most: int,
    allowed: Tensor | None = None,
) -> list[list[tuple[int, float]]]:
    """The most popular items of a scenario for each user, best first; those never used come last.

    Args:
        excluded: for each user the rows never to return.
        most: items of one list.
        allowed: rows that may be returned; None is all. (n,), int64.

    Returns:
        For each user rows, and their shares of the scenario's events of late.
    """
    eligible = table.eligible[scenario]
    shelf = eligible if allowed is None else among(eligible, allowed)
    enough = most + max(map(len, excluded), default=0)
    rows = table.popularity.top(scenario, shelf, enough, clocks.scenario_clock)
    shares = table.popularity.share_of_late(scenario, rows, clocks.scenario_clock)
    leading = list(zip(rows.tolist(), shares.tolist(), strict=True))
    return [list(islice((pair for pair in leading if pair[0] not in unwanted), most)) for unwanted in excluded]
