"""What lists were like is summed up per scenario, begins anew each time it is asked, and never says what it cannot."""

from __future__ import annotations

import math

import pytest
import torch

from schemas.settings import Scenario, Settings
from streams.exposure import COVERAGE_SECONDS, Exposure
from streams.history import Measured
from streams.mirror import Mirror

NOW = 1_700_000_000.0
NAMES = [f"i{number}" for number in range(10)]


@pytest.fixture
def mirror() -> Mirror:
    """Ten items in the shop, none in the news."""
    found = Mirror(Settings(scenarios={"shop": Scenario(), "news": Scenario()}), torch.device("cpu"))
    for name in NAMES:
        found.table.add(name)
        found.table.set_eligible(name, ("shop",))
    return found


def by_signal(found: list[Measured], scenario: str = "shop") -> dict[str, Measured]:
    return {each.signal: each for each in found if each.scenario == scenario}


def use(mirror: Mirror, item_ids: list[str]) -> None:
    mirror.table.popularity.update(0, torch.tensor(mirror.table.rows(item_ids)), 0.0)


def test_lists_are_counted_per_second_and_anew_each_time(mirror: Mirror) -> None:
    exposure = Exposure(mirror, NOW)
    exposure.note_lists("shop", [["i0"], ["i1"], ["i2"], ["i3"]], 3, NOW + 1)
    found = by_signal(exposure.measured(NOW + 2))
    assert (found["recommendations"].total, found["recommendations"].observations) == (2.0, 1.0)
    assert (found["personalised"].total, found["personalised"].observations) == (3, 4)
    assert by_signal(exposure.measured(NOW + 4))["recommendations"].total == 0.0


def test_waits_keep_their_extremes(mirror: Mirror) -> None:
    exposure = Exposure(mirror, NOW)
    for milliseconds in ([5.0, 1.0], [], [30.0]):
        exposure.note_waits("shop", milliseconds)
    assert by_signal(exposure.measured(NOW + 5))["latency_milliseconds"][3:] == (3, 36.0, 1.0, 30.0)


def test_what_was_in_a_list_of_late_is_covered_and_hidden_items_need_no_cover(mirror: Mirror) -> None:
    exposure = Exposure(mirror, NOW)
    exposure.note_lists("shop", [["i0", "i1"], ["i1", "i2"]], 0, NOW)
    assert by_signal(exposure.measured(NOW + 5))["coverage"].total == pytest.approx(0.3)
    exposure.note_lists("shop", [["i9"]], 0, NOW + COVERAGE_SECONDS - 5)
    assert by_signal(exposure.measured(NOW + COVERAGE_SECONDS - 5))["coverage"].total == pytest.approx(0.4)
    assert by_signal(exposure.measured(NOW + COVERAGE_SECONDS + 5))["coverage"].total == pytest.approx(0.1)
    mirror.table.set_eligible("i9", ())
    assert by_signal(exposure.measured(NOW + COVERAGE_SECONDS + 6))["coverage"].total == 0.0
    assert "coverage" not in by_signal(exposure.measured(NOW + 3 * COVERAGE_SECONDS))  # no list was made of late


def test_lists_of_hits_for_users_who_act_on_all_kinds_are_biased(mirror: Mirror) -> None:
    use(mirror, ["i0"] * 8 + ["i1", "i2"])
    exposure = Exposure(mirror, NOW)
    exposure.note_lists("shop", [["i0"], ["i0"]], 0, NOW)
    exposure.note_uses("shop", ["i0", "i1", "i2", "never heard of"])
    assert by_signal(exposure.measured(NOW + 5))["popularity_bias"].total > 1.5
    exposure.note_lists("shop", [["i1"], ["i2"]], 0, NOW)
    exposure.note_uses("shop", ["i0", "i0"])
    assert by_signal(exposure.measured(NOW + 10))["popularity_bias"].total < 0.3


def test_what_cannot_be_told_is_left_out_and_nothing_is_ever_infinite(mirror: Mirror) -> None:
    exposure = Exposure(mirror, NOW)
    exposure.note_lists("shop", [["i0"]], 0, NOW)  # nobody has used anything yet
    exposure.note_uses("shop", ["i0"])
    exposure.note_lists("news", [[]], 0, NOW)  # has no items
    found = exposure.measured(NOW)  # at once: no time has passed
    assert set(by_signal(found)) == {"recommendations", "personalised", "coverage"}
    assert set(by_signal(found, "news")) == {"recommendations", "personalised"}
    assert all(math.isfinite(number) for each in found for number in each[2:])


def test_rows_of_an_earlier_lineage_are_forgotten(mirror: Mirror) -> None:
    exposure = Exposure(mirror, NOW)
    exposure.note_lists("shop", [NAMES], 0, NOW)
    mirror._begin_lineage("first")
    mirror._begin_lineage("second")
    assert set(by_signal(exposure.measured(NOW + 5))) == {"recommendations"}
