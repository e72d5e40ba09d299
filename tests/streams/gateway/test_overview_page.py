"""The overview's headline and what it offers to do."""

from __future__ import annotations

import msgspec

from streams.gateway.overview import ScenarioSummary, State
from streams.gateway.overview_page import headline, steps
from tests.streams.gateway.test_versions_page import summary


def scenario(name: str, state: State, restores: int | None = None, learning: str = "on") -> ScenarioSummary:
    return msgspec.structs.replace(summary(restores=restores, learning=learning), scenario=name, state=state)


def test_a_rollback_stands_in_the_headline() -> None:
    shop, travel = scenario("shop", "trouble", 10), scenario("travel", "trouble")
    assert headline([shop]) == "shop was rolled back to version 10 and is still in trouble"
    assert headline([shop, scenario("news", "trouble", 4)]) == "shop and news were rolled back and are still in trouble"
    assert headline([shop, travel]) == "shop and travel are in trouble; shop was rolled back to version 10"
    assert headline([travel]) == "travel is in trouble"
    calm = scenario("shop", "watch", 10)
    assert headline([travel, calm]) == "travel is in trouble; shop was rolled back to version 10"
    assert headline([calm, scenario("news", "good")]) == "shop was rolled back to version 10; nothing is in trouble"
    silent = scenario("news", "silent")
    assert headline([silent, calm]) == "1 scenario has gone silent; shop was rolled back to version 10"


def test_what_was_rolled_back_may_be_promoted_changed_or_stopped() -> None:
    def says(found: ScenarioSummary) -> list[str]:
        return [each.says for each in steps(found)]

    first, last = ["Promote…", "Roll back to another…"], ["See what happened"]
    assert says(scenario("shop", "trouble", 10)) == [*first, "Pause…", *last]
    assert says(scenario("shop", "watch", 10)) == [*first, "Pause…", *last]
    assert says(scenario("shop", "watch", 10, "paused")) == [*first, "Resume…", *last]
    assert says(scenario("shop", "paused", None, "paused")) == ["Resume learning…", *last]
