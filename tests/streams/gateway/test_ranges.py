"""How far back a page looks: as far as there is something to see, until somebody chooses."""

from __future__ import annotations

import re
import time

import pytest

from streams.history import Measured
from tests.streams.gateway.conftest import Door

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


def measure(door: Door, ago: float, scenario: str = "shop", signal: str = "click_rate") -> None:
    door.gateway.history.add([Measured.one(scenario, signal, time.time() - ago, 0.1)])


def shown(door: Door, path: str = "/") -> str:
    found = re.search(r'range=(\w+)" aria-current="true"', door.get(path).text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("ago", "span"),
    [
        (5.0, "15m"), (14 * MINUTE, "15m"), (20 * MINUTE, "1h"), (58 * MINUTE, "1h"), (2 * HOUR, "6h"),
        (8 * HOUR, "24h"), (40 * DAY, "24h"),
    ],
)  # fmt: skip
def test_the_shortest_range_that_covers_the_data_is_shown(either_door: Door, ago: float, span: str) -> None:
    measure(either_door, ago)
    measure(either_door, 1.0, signal="recall@10")
    either_door.gateway.history.prune(time.time())
    assert shown(either_door) == span
    assert shown(either_door, "/scenarios/shop") == span


def test_before_anything_is_measured_it_is_the_shortest(either_door: Door) -> None:
    assert shown(either_door) == "15m"


def test_a_scenario_that_is_younger_than_the_others_has_a_range_of_its_own(either_door: Door) -> None:
    measure(either_door, 8 * HOUR)
    measure(either_door, MINUTE, scenario="news")
    assert (shown(either_door), shown(either_door, "/scenarios/news")) == ("24h", "15m")
    charts = either_door.get("/scenarios/news/charts").json()
    assert charts["until"] - charts["since"] == pytest.approx(15 * MINUTE)


def test_what_was_chosen_stays_on_every_page(either_door: Door) -> None:
    assert shown(either_door, "/?range=7d") == "7d"
    assert shown(either_door, "/scenarios/shop") == shown(either_door) == "7d"
    charts = either_door.get("/scenarios/shop/charts").json()
    assert charts["until"] - charts["since"] == pytest.approx(7 * DAY)
    assert shown(either_door, "/scenarios/shop?range=1h") == "1h"
    assert shown(either_door) == "1h"


def test_a_range_that_is_none_is_not_kept(either_door: Door) -> None:
    assert shown(either_door, "/?range=9y") == "15m"
    assert "range" not in either_door.cookies
