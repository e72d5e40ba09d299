"""An operator takes a scenario back: seen from outside, by its recommendations, its reports and what is on record."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from schemas.recommendations import Recommendation
from schemas.reports import DriftReport, decode_report
from schemas.tables import PerformedAction
from streams.history import History
from streams.store import database_url, open_engine
from tests.streams.gateway.browsing import running_browser, watched
from tests.system.installation import Installation, until

SHOP = [f"shop-{number}" for number in range(16)]
NEWS = [f"news-{number}" for number in range(8)]
WORDS = ("kettle", "lantern", "saddle", "violin", "anchor", "mirror", "basket", "candle")


@pytest.fixture
def system(alone: Installation) -> Iterator[Installation]:
    gate = {"HEADSTREAM_GATE_SECONDS": "1", "HEADSTREAM_GATE_SHARE": "1", "HEADSTREAM_GATE_LEAST_PAIRS": "10"}
    alone.start("learn", **gate)
    alone.start("serve")
    for scenario, names in (("shop", SHOP), ("news", NEWS)):
        for number, name in enumerate(names):
            alone.item(name, f"{WORDS[number % 8]} {number}", scenarios=[scenario])
    alone.flush()
    until(lambda: len(alone.answer("shop", "nobody", k=100).items) == len(SHOP), "all items are known")
    yield alone


@pytest.fixture
def history(system: Installation) -> Iterator[History]:
    engine = open_engine(database_url(system.settings))
    yield History(engine)
    engine.dispose()


def order(system: Installation, action: str, action_id: str = "", **more: Any) -> str:
    body = {"action_id": action_id or uuid.uuid4().hex, "action": action, "author": "eve", "reason": "a test", **more}
    system.send(system.topics.control, body)
    system.flush()
    return str(body["action_id"])


def reports(system: Installation) -> list[DriftReport]:
    return [decode_report(record.value()) for record in system.records(system.topics.drift)]


def done(history: History, action_id: str) -> PerformedAction:
    found: PerformedAction = until(lambda: history.action(action_id), f"{action_id} is carried out")
    return found


def learnt(system: Installation, scenario: str, count: int) -> None:
    until(lambda: system.scenarios()[scenario]["examples"] >= count, f"{count} examples of {scenario} are learnt")


def shown(system: Installation, wanted: Callable[[Recommendation], object], what: str) -> Recommendation:
    """The answer for somebody with a history in the shop, once it is as wanted."""

    def answer() -> Recommendation | None:
        found = system.answer("shop", "ann", history=[SHOP[0], SHOP[1]], k=16)
        return found if wanted(found) else None

    found: Recommendation = until(answer, what)
    return found


def ids(found: Recommendation) -> list[str]:
    return [item.item_id for item in found.items]


def test_a_scenario_goes_back_to_a_version_and_stays_there_until_a_person_or_the_gate_says_otherwise(
    system: Installation, history: History
) -> None:
    system.start("gateway", HEADSTREAM_GATEWAY_PORT="0")
    url = until(lambda: re.search(r"GATEWAY answers on (\S+)", system.log("gateway")), "GATEWAY answers")[1]
    token = (Path(system.settings.data) / "gateway.token").read_text().strip()

    # It learns something, and that is made good.
    for number in range(60):
        system.event("shop", f"u{number % 12}", SHOP[2 + (number * 5) % 7])
        system.event("news", f"u{number % 12}", NEWS[number % 8])
    system.flush()
    learnt(system, "shop", 60)
    learnt(system, "news", 60)
    assert done(history, order(system, "pause", scenario="shop")).outcome == "done"
    assert done(history, order(system, "promote", scenario="shop")).outcome == "done"
    good = history.versions("shop")[0].version
    assert history.stances()["shop"].good == good
    before = shown(system, lambda found: found.model.version >= good, "the good version is served")

    # While it is paused, events are counted and nothing is learnt.
    step = before.model.step
    system.event("shop", "u1", SHOP[15])
    system.flush()
    learnt(system, "shop", 61)
    assert system.answer("shop", "ann").model.step == step

    # It learns on, from people who hate what everybody likes.
    assert done(history, order(system, "resume", scenario="shop")).outcome == "done"
    for number in range(240):
        system.event("shop", f"bot{number}", SHOP[2 + number % 7], "hate")
    system.flush()
    learnt(system, "shop", 301)
    shown(system, lambda found: ids(found) != ids(before), "the lists have changed")

    # Back: the lists, their lineage, and nobody else's.
    back = order(system, "rollback", "back-1", scenario="shop", version=good)
    assert done(history, back).detail == f"Version {good} is served again; learning is paused until it is resumed."
    after = shown(system, lambda found: found.model.restores == good, "the good version is served again")
    assert ids(after) == ids(before)
    assert system.answer("news", "ann").model.restores is None
    stance = history.stances()["shop"]
    assert (stance.learning, stance.restores, stance.good, stance.reason) == ("paused", good, good, "a test")
    status = system.status()["scenarios"]["shop"]
    assert (status["learning"], status["model"]["restores"]) == ("paused", good)

    # The same order again is no other order, and one that cannot be carried out says why.
    order(system, "rollback", "back-1", scenario="shop", version=good)
    refused = done(history, order(system, "rollback", scenario="shop", version=999_999))
    assert refused.outcome == "refused" and "999999 of shop is not kept" in refused.detail
    unknown = done(history, order(system, "pause", scenario="hotel"))
    assert unknown.outcome == "refused" and '"hotel" is not one of' in unknown.detail
    said = [each.status for each in reports(system) if each.report_id.startswith("action:")]
    assert said == ["paused", "promoted", "resumed", "rolled_back", "refused", "refused"]

    # It outlives the process.
    system.kill("learn")
    system.start("learn", "again", HEADSTREAM_GATE_SECONDS="1", HEADSTREAM_GATE_SHARE="1")
    until(lambda: "restored checkpoint" in system.log("again"), "LEARN goes on")
    system.event("news", "u1", NEWS[3])
    system.flush()
    learnt(system, "news", 61)
    assert system.answer("shop", "ann").model.restores == good

    # A consolidation is for all of them.
    told = done(history, order(system, "consolidate"))
    assert told.outcome == "done" and "generation 1" in told.detail
    assert system.answer("shop", "ann").model.restores == good

    # It learns on, and why that version is served again is not forgotten.
    assert done(history, order(system, "resume", scenario="shop", reason="enough")).outcome == "done"
    until(lambda: history.stances()["shop"].learning == "on", "it is said that shop learns")
    resumed = history.stances()["shop"]
    assert (resumed.learning, resumed.restores, resumed.reason, resumed.since) == ("on", good, "a test", stance.since)

    # A person says that what is learnt is to be served.
    assert done(history, order(system, "promote", scenario="shop")).outcome == "done"
    shown(system, lambda found: found.model.restores is None, "what is learnt is served")

    # And another one, at the dashboard, wants the good one back.
    with running_browser() as browser, watched(browser, url) as watch:
        watch.open("/login").get_by_label("Token").fill(token)
        watch.page.get_by_role("main").get_by_role("button", name="Sign in").click()
        page = watch.open("/scenarios/shop/versions")
        page.get_by_role("button", name=f"Roll back to version {good}").click()
        dialog = page.get_by_role("dialog", name="Roll back shop")
        dialog.get_by_label("Your name").fill("kim")
        dialog.get_by_label("Reason").fill("It was better before")
        dialog.get_by_role("button", name="Roll back").click()
        clicked = shown(system, lambda found: found.model.restores == good, "the good version is served again")
        assert ids(clicked) == ids(before)
        expect(page.locator("#ordered")).to_contain_text("Done")
