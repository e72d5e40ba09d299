"""The dashboard in a real browser: every page with data, empty and failing; what an operator reads, and can do."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect

from benchmarks.past import fill
from benchmarks.past_records import fill_catalogue, publish_records
from schemas.control import Control, decode_control
from schemas.reports import DriftReport
from schemas.tables import Table
from schemas.times import say_time
from streams.history import Measured
from tests.streams.gateway.browsing import Watched, running_browser, watched
from tests.streams.gateway.conftest import NOBODY, opened, settings_of
from tests.streams.gateway.kafka import records
from tests.streams.gateway.running import TOKEN, Running, running_gateway
from tests.streams.gateway.test_recommending import StandIn

SCENARIOS = ("shop", "video", "news", "travel", "podcasts", "games", "garden")
PAGES = (
    "/",
    "/scenarios/travel",
    "/scenarios/travel/versions",
    "/data",
    "/look-up?user=u-3&scenario=shop",
    "/look-up?item=item-5&scenario=shop",
    "/login",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as found:
        yield found


@pytest.fixture(scope="module")
def furnished(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway before a past of ten hours, in which there is trouble in travel, with a SERVE that answers."""
    now = time.time()
    with running_gateway(broker, tmp_path_factory.mktemp("furnished"), SCENARIOS) as found:
        fill(found.history, now, scenarios=SCENARIOS, days=0.45, finest=60, prefix=found.settings.kafka.prefix)
        fill_catalogue(found.store, found.settings, now)
        publish_records(broker, found.settings, now, SCENARIOS[:4])
        with answering(found):
            yield found


@contextmanager
def answering(running: Running) -> Iterator[None]:
    """Somebody answers to requests as SERVE would."""
    served = StandIn(running.broker, running.topics, 1)
    thread = threading.Thread(target=served.run)
    thread.start()
    try:
        yield
    finally:
        served.stop.set()
        thread.join()


@pytest.fixture
def signed_in(browser: Browser, furnished: Running) -> Iterator[Watched]:
    with watched(browser, furnished.url) as found:
        sign_in(found.open("/login"))
        yield found


def sign_in(page: Page) -> None:
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("main").get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_whole_and_may_be_used_by_anybody(browser: Browser, furnished: Running, path: str) -> None:
    tall = {"width": 1280, "height": 5000}  # so that every chart is in sight, and so drawn
    with watched(browser, furnished.url, color_scheme="light", reduced_motion="reduce", viewport=tall) as watch:
        page = watch.open(path)
        assert page.get_by_role("heading", level=1).count() == 1
        assert page.locator(".failed").count() == 0
        expect(page.locator(".plot:has(.main-svg)")).to_have_count(page.locator(".plot").count())
        assert watch.violations() == []
        page.emulate_media(color_scheme="dark")
        assert watch.violations() == []
        page.set_viewport_size({"width": 360, "height": 780})
        assert watch.width() == 360


def test_the_overview_says_who_is_in_trouble_since_when_why_and_what_can_be_done(
    browser: Browser, furnished: Running
) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/")
        expect(page.get_by_role("heading", level=1)).to_have_text("travel is in trouble")
        matter = page.get_by_role("list", name="What needs somebody").get_by_role("listitem").first
        expect(matter).to_contain_text("The click rate fell from .12 to .06")
        expect(matter).to_contain_text(re.compile(r"since \d+ Nov, \d\d:\d\d, \d+ min ago|since \d+ \w+, \d\d:\d\d"))
        expect(matter).to_contain_text("What to do")
        matter.get_by_role("link", name="Roll back").click()
        page.wait_for_url("**/scenarios/travel/versions#rollback")


def test_cards_stand_worst_first_and_no_data_is_not_zero(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/")
        names = page.locator(".card h3").all_inner_texts()
        assert names[0] == "travel"
        assert set(names[1:3]) == {"podcasts", "games"}
        garden = page.locator(".card", has=page.get_by_role("heading", name="garden"))
        expect(garden).to_contain_text("No event has come yet")
        assert "0.0" not in garden.inner_text()


def test_what_happened_is_marked_on_the_charts_and_said_in_words(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/scenarios/news?range=24h")
        happened = page.locator("#happened")
        expect(happened).to_contain_text("Rolled back")
        expect(happened).to_contain_text("version 1160 is served again")
        marks = page.locator("[data-chart=recall] .annotation-text").all_text_contents()
        assert marks[0].startswith("1")
        judged = page.locator("[data-chart=recall] .judged")
        expect(judged).to_contain_text("Recall@10: no alarm, at 0.31; below 24.8 % it would be one.")
        expect(page.locator("[data-chart=recall] .annotation-text", has_text="alarm below").first).to_be_visible()
        page.locator("[data-chart=recall]").get_by_text("The figures as a table").click()
        table = page.locator("[data-chart=recall] table")
        expect(table.get_by_role("columnheader", name="Recall@10", exact=True)).to_be_visible()
        assert table.get_by_role("row").count() > 50


def test_times_are_the_readers_own_with_utc_on_hover(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/scenarios/news?range=24h")
        told = page.locator("#happened time").first
        at = time.strptime(told.get_attribute("datetime") or "", "%Y-%m-%dT%H:%M:%SZ")
        minutes = (at.tm_hour * 60 + at.tm_min + 330) % 1440
        assert f"{minutes // 60:02}:{minutes % 60:02}" in told.inner_text()
        assert f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} UTC" in (told.get_attribute("title") or "")


def test_a_theme_that_was_chosen_is_kept(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url, color_scheme="light") as watch:
        page = watch.open("/")
        page.get_by_role("button", name="Dark colours").click()
        page = watch.open("/data")
        assert page.locator("html").get_attribute("data-theme") == "dark"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 21)"


def test_names_from_outside_are_text_and_nothing_else(browser: Browser, furnished: Running) -> None:
    hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    report = DriftReport(
        report_id="hostile", scenario="shop", signal="event_mix", status="cleared", severity="news", value=None,
        reference=None, threshold=None, window=0, detected_at=say_time(time.time()), action="", reason=hostile,
    )  # fmt: skip
    furnished.history.add_reports([report])
    with watched(browser, furnished.url) as watch:
        page = watch.open("/")
        expect(page.locator("#news")).to_contain_text(hostile)
        page = watch.open("/scenarios/shop")
        expect(page.locator("#happened")).to_contain_text(hostile)


# Acting


def test_without_the_token_one_may_look_but_order_nothing(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/scenarios/travel/versions")
        for button in page.locator("button[data-order]").all():
            expect(button).to_be_disabled()
        page.get_by_role("main").get_by_role("link", name="sign in").click()
        page.get_by_label("Token").fill("a guess")
        page.get_by_role("main").get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("The token is wrong")
        sign_in(page)
        assert page.url.endswith("/scenarios/travel/versions")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_a_rollback_says_what_will_happen_and_is_followed_until_it_is_done(
    signed_in: Watched, furnished: Running
) -> None:
    page = signed_in.open("/scenarios/travel/versions")
    page.get_by_role("row", name="1150").get_by_role("button", name="Roll back to version 1150").click()
    dialog = page.get_by_role("dialog", name="Roll back travel")
    expect(dialog).to_contain_text("Within about two seconds recommendations in travel come from the chosen version")
    expect(dialog.get_by_label("To")).to_have_value("1150")
    assert dialog.evaluate("dialog => dialog.scrollWidth === dialog.clientWidth")
    assert signed_in.violations() == []
    dialog.get_by_label("Your name").fill("eve")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog).to_be_visible()  # without a reason nothing is ordered
    dialog.get_by_label("Reason").fill("The click rate fell")
    dialog.get_by_role("button", name="Roll back").click()
    expect(page.locator("#ordered")).to_contain_text("waiting for LEARN")
    order = orders(furnished)[-1]
    assert (order.action, order.scenario, order.version) == ("rollback", "travel", 1150)
    assert (order.author, order.reason) == ("eve", "The click rate fell")
    furnished.history.record_action(carried_out(order, "done", "version 1150 is served"))
    expect(page.locator("#ordered")).to_contain_text("Done: rollback to version 1150 of travel. version 1150 is served")
    expect(page.locator("#performed")).to_contain_text("The click rate fell")


def test_an_order_that_learn_refuses_says_why(signed_in: Watched, furnished: Running) -> None:
    page = signed_in.open("/scenarios/games/versions#resume")
    dialog = page.get_by_role("dialog", name="Resume learning in games")
    dialog.get_by_label("Your name").fill("eve")
    dialog.get_by_label("Reason").fill("The tournament is over")
    dialog.get_by_role("button", name="Resume learning").click()
    expect(page.locator("#ordered")).to_contain_text("waiting for LEARN")
    order = orders(furnished)[-1]
    furnished.history.record_action(carried_out(order, "refused", "a consolidation runs"))
    expect(page.locator("#ordered")).to_contain_text("Refused: resume of games. a consolidation runs")


def test_the_keyboard_alone_leads_from_the_overview_to_an_order(signed_in: Watched, furnished: Running) -> None:
    page = signed_in.open("/")
    press_until(page, "Tab", "Roll back…")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Roll back travel")
    expect(dialog).to_be_visible()
    press_until(page, "Tab", "Your name")
    page.keyboard.type("kim")
    page.keyboard.press("Tab")
    page.keyboard.type("By hand, without a mouse")
    press_until(page, "Tab", "Roll back")
    page.keyboard.press("Enter")
    expect(page.locator("#ordered")).to_contain_text("waiting for LEARN")
    assert orders(furnished)[-1].reason == "By hand, without a mouse"


def test_escape_leaves_a_dialog_and_orders_nothing(signed_in: Watched, furnished: Running) -> None:
    before = len(orders(furnished))
    page = signed_in.open("/scenarios/travel/versions")
    page.get_by_role("button", name="Pause learning").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(orders(furnished)) == before


def test_a_dead_letter_is_put_right_and_goes_back(signed_in: Watched, furnished: Running) -> None:
    events = furnished.topics.events("shop")
    page = signed_in.open(f"/data?code=bad-event&topic={events}")
    letter = page.get_by_role("article").first
    expect(letter).to_contain_text('event "clik" is not one of')
    letter.get_by_text("Put it right and send it back").click()
    record = letter.get_by_label("Record, as JSON")
    record.fill("{")
    letter.get_by_label("Your name").fill("eve")
    letter.get_by_label("What was wrong").fill("A slip of the pen")
    send = letter.get_by_role("button", name="Send back")
    send.click()
    expect(letter.locator(".answer")).to_contain_text("it is not JSON yet")
    record.fill('{"user_id": "u-7", "item_id": "item-3", "event": "click"}')
    send.click()
    expect(letter.locator(".answer")).to_contain_text(f"Sent back to {events}")
    assert b'"click"' in records(furnished.broker, events)[-1].value()


def press_until(page: Page, key: str, name: str) -> None:
    """Press a key until what has the focus is called so."""
    for _ in range(60):
        page.keyboard.press(key)
        focused = page.evaluate(
            "((e) => e.labels?.[0]?.innerText ?? e.innerText ?? '')(document.activeElement).split('\\n')[0]"
        )
        if focused.startswith(name):
            return
    raise AssertionError(f"{key} does not lead to {name}")


def orders(running: Running) -> list[Control]:
    found = [decode_control(each.value(), 0.0, Counter()) for each in records(running.broker, running.topics.control)]
    return [each for each in found if isinstance(each, Control)]


def carried_out(order: Control, outcome: str, detail: str) -> dict[str, Any]:
    return {**msgspec.structs.asdict(order), "performed_at": time.time(), "outcome": outcome, "detail": detail}


# Looking up


def test_a_user_is_looked_up_from_the_lists_of_a_scenario(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/scenarios/shop")
        user = page.locator("#lists th a[href*='user=u-']").first
        user_id = user.inner_text()
        user.click()
        watch.wait_until_whole()
        expect(page.get_by_role("heading", level=2)).to_have_text(f"User {user_id}")
        expect(page.locator("table", has_text="Source")).to_contain_text(f"for {user_id}")
        expect(page.get_by_role("region", name="History")).to_contain_text(re.compile("harbour|kitchen|orchard|train"))


def test_an_item_shows_its_neighbours_and_how_often_it_is_shown(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/look-up?item=item-5&scenario=shop")
        expect(page.get_by_role("heading", name="Quiet garden")).to_be_visible()
        expect(page.get_by_role("main")).to_contain_text("for item-5")
        expect(page.get_by_role("main")).to_contain_text(
            re.compile(r"It stood in (none|\d+) of the last \d+ lists of shop")
        )


def test_an_unknown_id_is_named(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/look-up?user=nobody")
        expect(page.get_by_role("alert")).to_contain_text('no event of user "nobody" has been counted')


# Live


def test_news_come_by_themselves_and_what_is_open_stays_open(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url) as watch:
        page = watch.open("/scenarios/video")
        expect(page.locator("#live")).to_have_text("Live")
        page.get_by_text("What to do when much is forgotten").click()
        now = time.time()
        report = DriftReport(
            report_id="live", scenario="video", signal="recall@10", status="alarm", severity="page", value=0.1,
            reference=0.3, threshold=0.05, window=400, detected_at=say_time(now), action="", reason="It fell just now.",
        )  # fmt: skip
        furnished.history.add_reports([report])
        expect(page.locator("#condition")).to_contain_text("It fell just now.")
        expect(page.locator("#happened")).to_contain_text("It fell just now.")
        expect(page.get_by_text("A consolidation trains with much replay")).to_be_visible()
        cleared = msgspec.structs.replace(report, report_id="live-2", status="cleared", detected_at=say_time(now + 1))
        furnished.history.add_reports([cleared])
        expect(page.locator("#condition")).not_to_contain_text("It fell just now.")


def test_a_page_says_when_it_is_not_live_any_more(browser: Browser, tmp_path: Path) -> None:
    with opened(settings_of("t.", tmp_path), NOBODY, f"sqlite:///{tmp_path / 'door.db'}") as door:
        context = watched(browser, door.url, allow_errors=True)
        watch = context.__enter__()
        page = watch.open("/")
        expect(page.locator("#live")).to_have_text("Live")
    expect(page.locator("#live")).to_contain_text("Not live: no connection")
    context.__exit__(None, None, None)


# Empty and failing


@pytest.fixture(scope="module")
def empty(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway that was started first of all: topics without records, tables without rows."""
    with running_gateway(broker, tmp_path_factory.mktemp("empty"), SCENARIOS) as found:
        yield found


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/", ["No data has come yet", "Nothing yet: no alarm, no promotion, no rollback, no order."]),
        (
            "/scenarios/shop",
            [
                "Nothing has been measured of this scenario yet.",
                "No probe set has been tested yet.",
                "No list is on the topic",
            ],
        ),
        (
            "/scenarios/shop/versions",
            ["None yet. The first is kept once", "LEARN has not said yet how this scenario stands."],
        ),
        ("/data", ["None: every record that came could be taken.", "The dead-letters topic is empty", "no model yet"]),
        ("/look-up", ["Ids are those of the events and items topics."]),
    ],
)
def test_a_page_without_data_says_why_it_is_empty(browser: Browser, empty: Running, path: str, says: list[str]) -> None:
    with watched(browser, empty.url) as watch:
        page = watch.open(path)
        for sentence in says:
            expect(page.get_by_role("main")).to_contain_text(sentence)
        assert watch.violations() == []


def test_every_page_says_that_the_database_is_gone(browser: Browser, tmp_path: Path) -> None:
    door = opened(settings_of("t.", tmp_path), NOBODY, f"sqlite:///{tmp_path / 'door.db'}")
    with door as found, watched(browser, found.url, allow_errors=True) as watch:
        Table.metadata.drop_all(found.gateway.history.engine)
        for path in ("/", "/scenarios/shop", "/scenarios/shop/versions", "/data", "/look-up?user=u-1"):
            expect(watch.open(path).get_by_role("alert")).to_contain_text("The database does not answer")
        assert watch.violations() == []


def test_what_needs_kafka_says_that_kafka_is_gone_and_the_rest_is_shown(browser: Browser, tmp_path: Path) -> None:
    door = opened(settings_of("t.", tmp_path), NOBODY, f"sqlite:///{tmp_path / 'door.db'}")
    with door as found, watched(browser, found.url, allow_errors=True) as watch:
        page = watch.open("/data")
        for alert in page.get_by_role("alert").all():
            expect(alert).to_contain_text("Kafka does not answer")
        assert page.get_by_role("alert").count() == 2
        expect(page.get_by_role("main")).to_contain_text("None: every record that came could be taken.")


def test_charts_say_that_their_figures_cannot_be_had(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url, allow_errors=True) as watch:
        problem = {"error": {"code": "no-database", "message": "the database does not answer"}}
        watch.page.route("**/charts*", lambda route: route.fulfill(status=503, json=problem))
        page = watch.open("/scenarios/travel")
        assert {each.inner_text() for each in page.locator(".plot").all()} == {"the database does not answer"}


def test_an_unknown_page_and_an_unknown_scenario_are_said_to_be_so(browser: Browser, furnished: Running) -> None:
    with watched(browser, furnished.url, allow_errors=True) as watch:
        expect(watch.open("/nowhere").get_by_role("alert")).to_contain_text("There is no page of this address")
        expect(watch.open("/scenarios/shpo").get_by_role("alert")).to_contain_text('"shpo" is not configured')


def test_a_scenario_that_is_measured_no_more_is_silent(browser: Browser, empty: Running) -> None:
    long_ago = time.time() - 7200
    empty.history.add(Measured.one("video", "click_rate", long_ago + 10 * n, 0.1) for n in range(60))
    with watched(browser, empty.url) as watch:
        page = watch.open("/")
        expect(page.get_by_role("heading", level=1)).to_have_text("1 scenario has gone silent")
        expect(page.get_by_role("list", name="What needs somebody")).to_contain_text("Nothing is measured any more.")
