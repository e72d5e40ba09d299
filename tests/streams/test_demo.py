"""The demo's table fits its terminal and says what is known; its last word is what scripts rely on."""

from __future__ import annotations

import io
import json
import threading

import pytest
from rich.console import Console

from schemas.settings import Kafka, Scenario, Settings
from schemas.topics import Topics
from streams.administration import ensure_topics
from streams.client import TopicMissing
from streams.demo import EXPLANATION, HEADINGS, render, run_demo, summary
from streams.figures import Clicks, Latency, ScenarioFigures
from streams.status import ScenarioStatus

SCENARIOS = ("shop", "video", "news", "travel", "social")


MODEL, CONTROL, LATENCY = Clicks(1000, 231), Clicks(400, 40), Latency(17.24, 45.4)


def make_figures(
    model: Clicks = MODEL, control: Clicks = CONTROL, latency: Latency | None = LATENCY
) -> ScenarioFigures:
    return ScenarioFigures(
        events=1234,
        recommendations=1200,
        undelivered=0,
        unanswered=3,
        events_per_second=1234.5,
        recommendations_per_second=987.6,
        model=model,
        control=control,
        recent_model=model,
        recent_control=control,
        latency=latency,
    )


def make_status(version: int = 1212, dead: dict[str, int] | None = None) -> ScenarioStatus:
    return {
        "events": 1230,
        "duplicates": 0,
        "examples": 1229,
        "lag": 0,
        "learning_lag": 1,
        "learning": "on",
        "model": {
            "version": version,
            "step": 99,
            "age_seconds": 0.42,
            "recall@10": 0.21342,
            "good": None,
            "restores": None,
        },
        "dead_letters": dead or {},
        "counts": {},
    }


UNKNOWN: ScenarioStatus = {
    "events": 0,
    "duplicates": 0,
    "examples": 0,
    "lag": 0,
    "learning_lag": 0,
    "learning": "on",
    "model": {"version": 0, "step": 0, "age_seconds": None, "recall@10": None, "good": None, "restores": None},
    "dead_letters": {},
    "counts": {},
}


def draw(
    figures: dict[str, ScenarioFigures], status: dict[str, ScenarioStatus], width: int = 100, *, colour: bool = False
) -> list[str]:
    console = Console(
        width=width, file=io.StringIO(), record=True, force_terminal=colour, color_system="standard" if colour else None
    )
    console.print(render(figures, status, 3723.9, broker="127.0.0.1:19092", data=".headstream/demo"))
    return console.export_text(styles=colour).splitlines()


def row(lines: list[str], name: str) -> str:
    """One row's cells, with single spaces between them."""
    return next(" ".join(line.split()) for line in lines if line.split()[:1] == [name])


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_whole_table_fits_and_nothing_is_cut(width: int) -> None:
    lines = draw({name: make_figures() for name in SCENARIOS}, {name: make_status() for name in SCENARIOS}, width)
    assert max(map(len, lines)) <= min(width, 100)
    text = "\n".join(lines)
    assert "…" not in text
    for word in (word for heading in HEADINGS for word in heading.split()):
        assert word in text
    for name in SCENARIOS:
        assert row(lines, name) == f"{name} 1234.5 987.6 23.1 10.0 0.213 17 / 45 1212 0.4 s 0"
    assert row(lines, "all") == "all 6172.5 4938.0 23.1 10.0 0"


def test_the_header_and_the_footer_say_where_it_runs_how_it_stops_and_what_is_compared() -> None:
    text = " ".join(" ".join(draw({"shop": make_figures()}, {})).split())
    assert "up 1:02:03" in text
    assert "Ctrl-C stops" in text
    assert "broker 127.0.0.1:19092 data .headstream/demo" in text
    assert EXPLANATION in text


def test_what_is_not_known_yet_is_a_dash() -> None:
    nothing = make_figures(Clicks(), Clicks(), None)
    lines = draw({"shop": nothing, "news": nothing}, {"news": UNKNOWN})
    assert row(lines, "shop") == "shop 1234.5 987.6 – – – – – – –"
    assert row(lines, "news") == "news 1234.5 987.6 – – – – – – 0"
    assert row(lines, "all") == "all 2469.0 1975.2 – – 0"


def test_a_model_is_shown_as_better_only_when_both_groups_looked_at_enough() -> None:
    better = "\x1b[1;32m"
    clear = draw({"shop": make_figures(Clicks(1000, 231), Clicks(400, 40))}, {}, colour=True)
    early = draw({"shop": make_figures(Clicks(10, 3), Clicks(10, 1))}, {}, colour=True)
    worse = draw({"shop": make_figures(Clicks(1000, 50), Clicks(400, 40))}, {}, colour=True)
    assert [better in "\n".join(lines) for lines in (clear, early, worse)] == [True, False, False]


def test_dead_letters_of_all_codes_are_added_up_and_stand_out() -> None:
    lines = draw({"shop": make_figures()}, {"shop": make_status(dead={"not-json": 2, "bad-id": 3})}, colour=True)
    red = [line for line in lines if "\x1b[1;31m" in line]
    assert len(red) == 2  # the scenario's row and the sum
    assert all("5" in line for line in red)


def test_the_summary_is_what_scripts_were_promised() -> None:
    figures = {"shop": make_figures(), "news": make_figures(Clicks(), Clicks(), None)}
    assert summary(figures, {"shop": make_status(dead={"not-json": 2, "bad-id": 3})}, 12.34567) == {
        "seconds_to_ready": 12.346,
        "scenarios": {
            "shop": {
                "events": 1234,
                "recommendations": 1200,
                "click_rate": {"model": 0.231, "control": 0.1},
                "recall@10": 0.2134,
                "latency_ms": {"p50": 17.2, "p99": 45.4},
                "dead_letters": 5,
            },
            "news": {
                "events": 1234,
                "recommendations": 1200,
                "click_rate": {"model": None, "control": None},
                "recall@10": None,
                "latency_ms": {"p50": None, "p99": None},
                "dead_letters": 0,
            },
        },
    }


def make_settings(prefix: str) -> Settings:
    return Settings(
        data="/somewhere", kafka=Kafka(prefix=prefix, partitions=1), scenarios={"shop": Scenario(), "news": Scenario()}
    )


@pytest.mark.parametrize("json_output", [True, False])
def test_the_demo_ends_by_itself_and_sums_up(broker: str, prefix: str, json_output: bool) -> None:
    settings, stop = make_settings(prefix), threading.Event()
    ensure_topics(broker, Topics(settings).all(), 1)
    console = Console(width=100, file=io.StringIO(), record=True)
    found = run_demo(
        settings,
        broker,
        seconds=1.5,
        events_per_second=30,
        json_output=json_output,
        seed=1,
        read_status=lambda: {"shop": make_status(dead={"not-json": 2})},
        console=console,
        stop=stop,
        ready_after=9.0,
    )
    assert stop.is_set()
    assert json.loads(json.dumps(found)) == found
    assert found["seconds_to_ready"] == 9.0
    assert set(found["scenarios"]) == {"shop", "news"}
    assert found["scenarios"]["shop"]["dead_letters"] == 2
    assert sum(each["events"] for each in found["scenarios"].values()) > 0
    drawn = console.export_text()
    assert ("/somewhere" in drawn and "travel" not in drawn) if not json_output else drawn == ""


def test_setting_stop_ends_the_demo(broker: str, prefix: str) -> None:
    settings, stop = make_settings(prefix), threading.Event()
    ensure_topics(broker, Topics(settings).all(), 1)
    asked = 0

    def read_status() -> dict[str, ScenarioStatus]:
        nonlocal asked
        asked += 1
        if asked == 2:
            stop.set()
        return {}

    run_demo(
        settings,
        broker,
        seconds=None,
        events_per_second=5,
        json_output=False,
        seed=1,
        read_status=read_status,
        console=Console(file=io.StringIO()),
        stop=stop,
        ready_after=0.0,
    )
    assert stop.is_set()
    assert asked >= 3  # at the start, a second later, and for the summary


def test_a_failure_of_the_audience_ends_the_demo_with_its_reason(broker: str, prefix: str) -> None:
    settings = make_settings(prefix)
    topics = Topics(settings)
    ensure_topics(broker, [topic for topic in topics.all() if topic.name == topics.items], 1)
    with pytest.raises(TopicMissing, match=r"recommendations\.shop"):
        run_demo(
            settings,
            broker,
            seconds=None,
            events_per_second=5,
            json_output=True,
            seed=1,
            read_status=dict,
            console=Console(file=io.StringIO()),
            stop=threading.Event(),
            ready_after=0.0,
        )
