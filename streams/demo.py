"""The demo: a simulated audience on a running Headstream, shown as a live table and summed up for scripts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NotRequired, TypedDict

from rich import box
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schemas.settings import Settings
from schemas.topics import Topics
from streams.figures import WINDOW_SECONDS, Clicks, Latency, ScenarioFigures
from streams.simulate import Audience
from streams.status import ScenarioStatus
from streams.story import Chapter, Script, Story
from streams.world import World

CONTROL_SHARE = 0.2
"""Of the readers of each scenario."""

REFRESH_SECONDS = 0.5
STATUS_SECONDS = 1.0
ENOUGH_LOOKED_AT = 100
"""Items that each group must have looked at before the table calls one rate better than the other."""

NOTHING = "–"

WIDEST = 100

HEADINGS = (
    "events\n/s",
    "recs\n/s",
    "click %\nmodel",
    "click %\ncontrol",
    "recall\n@10",
    "ms\np50 / p99",
    "model\nversion",
    "model\nage",
    "dead\nletters",
)

EXPLANATION = (
    f"Clicks per item looked at, last {WINDOW_SECONDS} s. Model: readers are shown Headstream's lists. "
    f"Control: {CONTROL_SHARE * 100:.0f} % of the readers are shown what is most popular instead."
)


class ClickRates(TypedDict):
    """Clicks per item looked at; None where nothing was looked at."""

    model: float | None
    control: float | None


class Milliseconds(TypedDict):
    """From an event to the recommendation it triggered; None before the first."""

    p50: float | None
    p99: float | None


# "recall@10" is no Python name, so this one is spelt as a call.
ScenarioSummary = TypedDict(
    "ScenarioSummary",
    {
        "events": int,
        "recommendations": int,
        "click_rate": ClickRates,
        "recall@10": float | None,
        "latency_ms": Milliseconds,
        "dead_letters": int,
    },
)


class Summary(TypedDict):
    """What a script gets at the end; `story` where one was played."""

    seconds_to_ready: float
    scenarios: dict[str, ScenarioSummary]
    story: NotRequired[list[Chapter]]


def run_demo(
    settings: Settings,
    broker: str,
    *,
    seconds: float | None,
    events_per_second: float,
    json_output: bool,
    seed: int,
    read_status: Callable[[], Mapping[str, ScenarioStatus]],
    console: Console,
    stop: threading.Event,
    ready_after: float,
    script: Script | None = None,
) -> Summary:
    """Publish the world's items, let its users act until `stop` is set or `seconds` have passed, and sum up.

    Args:
        broker: host:port of a Kafka whose topics exist and are served.
        json_output: whether a script is the reader, and no table is drawn.
        read_status: called about once a second, in this thread.
        ready_after: seconds that it took to start everything.
        script: of a story to be played meanwhile, which ends with its last chapter.

    Raises:
        NotDelivered: Kafka did not take the items.
        TopicMissing: Headstream was not started at that broker with these settings.
    """
    world = World(tuple(settings.scenarios), seed, shifts=script.shifts if script else ())
    control = {name: scenario.control for name, scenario in settings.scenarios.items()}
    audience = Audience(
        broker,
        Topics(settings),
        world,
        control=control,
        events_per_second=events_per_second,
        seed=seed,
        floods=script.floods if script else (),
    )
    audience.publish_items()
    story = None if script is None else Story(broker, Topics(settings), script, seed)
    with ThreadPoolExecutor(3, "audience") as pool:
        running = [pool.submit(audience.run, stop, seconds)]
        if story is not None:
            running += [pool.submit(part, stop) for part in (story.watch, story.play)]
        try:
            if json_output:
                wait(running, return_when=FIRST_COMPLETED)  # where one has ended or failed, the others are of no use
            else:
                _show(running, audience, read_status, console, broker=broker, data=settings.data, story=story)
        finally:
            stop.set()
    for each in running:
        each.result()
    found = summary(audience.snapshot(), read_status(), ready_after)
    if story is not None:
        found["story"] = story.chapters()
    return found


def _show(
    running: Sequence[Future[None]],
    audience: Audience,
    read_status: Callable[[], Mapping[str, ScenarioStatus]],
    console: Console,
    *,
    broker: str,
    data: str,
    story: Story | None,
) -> None:
    began = time.monotonic()
    status, asked = read_status(), began
    with Live(console=console, auto_refresh=False) as live:
        while True:
            now = time.monotonic()
            if now - asked >= STATUS_SECONDS:
                status, asked = read_status(), now
            table = render(audience.snapshot(), status, now - began, broker=broker, data=data)
            live.update(table if story is None else Group(table, Text("\n".join(story.lines()))), refresh=True)
            if wait(running, timeout=REFRESH_SECONDS, return_when=FIRST_COMPLETED).done:
                return


def summary(
    figures: Mapping[str, ScenarioFigures], status: Mapping[str, ScenarioStatus], seconds_to_ready: float
) -> Summary:
    """The whole run as one object; what is not known is None."""
    return {
        "seconds_to_ready": round(seconds_to_ready, 3),
        "scenarios": {
            name: {
                "events": each.events,
                "recommendations": each.recommendations,
                "click_rate": {"model": _rounded(each.model.rate, 4), "control": _rounded(each.control.rate, 4)},
                "recall@10": _rounded(_recall(status.get(name)), 4),
                "latency_ms": {
                    "p50": _rounded(each.latency.p50 if each.latency else None, 1),
                    "p99": _rounded(each.latency.p99 if each.latency else None, 1),
                },
                "dead_letters": _dead_letters(status.get(name)) or 0,
            }
            for name, each in figures.items()
        },
    }


def render(
    figures: Mapping[str, ScenarioFigures],
    status: Mapping[str, ScenarioStatus],
    elapsed: float,
    *,
    broker: str,
    data: str,
) -> RenderableType:
    """The table at one moment; fits 80 columns.

    Args:
        status: scenarios may be missing early on, and so may their values; a dash stands for them.
        elapsed: seconds since the audience began.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, expand=True, header_style="bold cyan")
    table.add_column("\nscenario", no_wrap=True, style="bold", min_width=8)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True, min_width=max(map(len, heading.split("\n"))))
    for name, each in figures.items():
        known = status.get(name)
        model = known["model"] if known else None
        table.add_row(
            name,
            f"{each.events_per_second:.1f}",
            f"{each.recommendations_per_second:.1f}",
            _model_rate(each.recent_model, each.recent_control),
            _percent(each.recent_control.rate),
            _number(_recall(known), ".3f"),
            _milliseconds(each.latency),
            _number(model["version"] or None if model else None, "d"),
            _age(model["age_seconds"] if model else None),
            _dead_cell(_dead_letters(known)),
        )
    all_model = sum((each.recent_model for each in figures.values()), Clicks())
    all_control = sum((each.recent_control for each in figures.values()), Clicks())
    counted = [dead for name in figures if (dead := _dead_letters(status.get(name))) is not None]
    table.add_section()
    table.add_row(
        "all",
        f"{sum(each.events_per_second for each in figures.values()):.1f}",
        f"{sum(each.recommendations_per_second for each in figures.values()):.1f}",
        _model_rate(all_model, all_control),
        _percent(all_control.rate),
        "",
        "",
        "",
        "",
        _dead_cell(sum(counted) if counted else None),
    )
    return Constrain(Group(_header(elapsed, broker, data), table, Text(EXPLANATION, style="dim")), WIDEST)


def _header(elapsed: float, broker: str, data: str) -> Text:
    minutes, seconds = divmod(int(elapsed), 60)
    hours, minutes = divmod(minutes, 60)
    return Text.assemble(
        ("Headstream", "bold cyan"),
        f" up {hours}:{minutes:02d}:{seconds:02d}",
        ("  Ctrl-C stops", "yellow"),
        ("\nbroker ", "dim"),
        broker,
        ("  data ", "dim"),
        data,
    )


def _model_rate(model: Clicks, control: Clicks) -> Text:
    enough = min(model.looked_at, control.looked_at) >= ENOUGH_LOOKED_AT
    ahead = enough and (model.rate or 0.0) > (control.rate or 0.0)
    return Text(_percent(model.rate), style="bold green" if ahead else "")


def _percent(rate: float | None) -> str:
    return NOTHING if rate is None else f"{rate * 100:.1f}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _milliseconds(latency: Latency | None) -> str:
    return NOTHING if latency is None else f"{latency.p50:.0f} / {latency.p99:.0f}"


def _age(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _dead_cell(dead: int | None) -> Text:
    return Text(NOTHING if dead is None else str(dead), style="bold red" if dead else "")


def _recall(status: ScenarioStatus | None) -> float | None:
    return status["model"]["recall@10"] if status else None


def _dead_letters(status: ScenarioStatus | None) -> int | None:
    return sum(status["dead_letters"].values()) if status else None


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
