"""A history on disk becomes a checkpoint that LEARN begins from, and no model is lost by it."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from typer.testing import CliRunner

from learner.checkpoint import CheckpointMismatch
from learner.online import OnlineLearner
from learner.warm import Schedule
from schemas.settings import Learn, Model, Scenario, Settings
from schemas.tables import Checkpoint
from streams.checkpoint_lock import CheckpointsInUse, checkpoints_alone, share_checkpoints
from streams.cli import app
from streams.store import Store, database_url, open_engine
from streams.warm import ModelExists, NothingLearnt, NothingToLearn, ScenariosNotRun, WarmReport, warm_source
from tests.learner.builders import example
from tests.streams.builders import write_records

ENCODER_DIMENSION = 384
SCHEDULE = Schedule(epochs=2, patience=2, validation=0.1)
TITLES = ["Garden hose", "Rose shears", "Compost bin", "Frying pan", "Kitchen knife", "Espresso machine"]


def settings_of(data: Path, scenarios: tuple[str, ...] = ("shop", "video"), **model: int) -> Settings:
    sizes: dict[str, Any] = {"dimension": 8, "history": 5, "adapter_rank": 2, **model}
    return Settings(
        data=str(data),
        scenarios={name: Scenario() for name in scenarios},
        model=Model(**sizes),
        learn=Learn(micro_batch=16, replay_batch=8, replay_rows=50, device="cpu"),
    )


def history(folder: Path, scenarios: tuple[str, ...] = ("shop", "video"), count: int = 120) -> str:
    """Users who go through six items that have records and one that has none."""
    folder.mkdir(parents=True, exist_ok=True)
    write_records(
        folder / "items.jsonl", [{"item_id": f"i{number}", "title": title} for number, title in enumerate(TITLES)]
    )
    events = [
        {
            "user_id": f"u{number % 30}",
            "item_id": f"i{(number + number // 30) % 7}",
            "event": "view",
            "timestamp": 1_700_000_000 + number,
            "scenario": scenarios[number % len(scenarios)],
        }
        for number in range(count)
    ]
    write_records(folder / "events.jsonl", events)
    return str(folder / "events.jsonl")


def warm(settings: Settings, source: str, **options: Any) -> WarmReport:
    return warm_source(settings, source, SCHEDULE, nullcontext(threading.Event()), **options)


def checkpoints(settings: Settings) -> list[Checkpoint]:
    engine = open_engine(database_url(settings))
    try:
        return Store(engine, "headstream.learn", "test").checkpoints()
    finally:
        engine.dispose()


def restored(settings: Settings, folder: str) -> OnlineLearner:
    learner = OnlineLearner(settings, ENCODER_DIMENSION, torch.device("cpu"))
    assert learner.restore(Path(folder)).extra == {"examples": [], "items": []}
    return learner


def test_the_checkpoint_is_the_one_that_learn_begins_from(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    report = warm(settings, history(tmp_path))
    (row,) = checkpoints(settings)
    assert (row.number, row.folder, row.step) == (1, report.checkpoint, report.step)
    assert Path(row.folder) == tmp_path / "data" / "checkpoints" / "00000001"
    learner = restored(settings, row.folder)
    assert learner.run.step == report.step > 0
    assert set(learner.table.row_of) == {f"i{number}" for number in range(7)}
    assert int(learner.table.popularity.events.sum()) + len(learner.probes) == 120
    # All that Kafka brings is new.
    assert learner.run.examples == {"shop": 0, "video": 0}
    assert learner.learn("shop", [example("i1", ["i2"], offset=0)]) == 1


def test_an_item_without_a_record_may_not_be_recommended_yet(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    table = restored(settings, warm(settings, history(tmp_path)).checkpoint).table
    unknown, known = table.rows(["i6", "i5"])
    assert (bool(table.eligible[:, unknown].any()), bool(table.eligible[:, known].all())) == (False, True)


def test_the_report_says_what_was_done(tmp_path: Path) -> None:
    report = warm(settings_of(tmp_path / "data"), history(tmp_path))
    assert (report.events, report.learnt, report.items, report.stopped) == (120, 120, 7, False)
    assert {name: each.events for name, each in report.scenarios.items()} == {"shop": 60, "video": 60}
    assert sum(each.tested for each in report.scenarios.values()) > 0
    assert [each.epoch for each in report.epochs] == list(range(len(report.epochs)))
    assert report.recall == max(each.recall for each in report.epochs if each.recall is not None)
    assert msgspec.json.decode(msgspec.json.encode(report))["recall@10"] == report.recall


def test_a_model_that_is_there_is_kept_unless_its_place_is_to_be_taken(tmp_path: Path) -> None:
    settings, source = settings_of(tmp_path / "data"), history(tmp_path)
    first = warm(settings, source).checkpoint
    with pytest.raises(ModelExists, match=f"{tmp_path / 'data'} already holds a model .*00000001.*--replace"):
        warm(settings, source)
    assert [row.folder for row in checkpoints(settings)] == [first]
    second = warm(settings, source, replace=True).checkpoint
    assert [row.folder for row in checkpoints(settings)] == [second, first]
    assert restored(settings, first).run.lineage != restored(settings, second).run.lineage


def test_what_takes_a_models_place_does_so_though_that_is_damaged(tmp_path: Path) -> None:
    settings, source = settings_of(tmp_path / "data"), history(tmp_path)
    (Path(warm(settings, source).checkpoint) / "facts.json").write_text("{}")
    assert restored(settings, warm(settings, source, replace=True).checkpoint).run.step > 0


def test_a_checkpoint_that_no_database_names_is_not_written_over(tmp_path: Path) -> None:
    settings, source = settings_of(tmp_path / "data"), history(tmp_path)
    lying = tmp_path / "data" / "checkpoints" / "00000003"
    lying.mkdir(parents=True)
    with pytest.raises(ModelExists, match="00000003"):
        warm(settings, source)
    assert Path(warm(settings, source, replace=True).checkpoint).name == "00000004"
    assert lying.is_dir()


def test_where_learn_runs_no_warm_start_is_made(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    share_checkpoints(tmp_path / "data")
    share_checkpoints(tmp_path / "data")  # another LEARN may stand by
    with pytest.raises(CheckpointsInUse, match=f"{tmp_path / 'data'} are in use: LEARN"):
        warm(settings, history(tmp_path), replace=True)
    assert not (tmp_path / "data" / "checkpoints").exists()


def test_where_a_warm_start_is_made_learn_does_not_begin(tmp_path: Path) -> None:
    with checkpoints_alone(tmp_path), pytest.raises(CheckpointsInUse, match="headstream warm"):
        share_checkpoints(tmp_path)
    share_checkpoints(tmp_path)


def test_scenarios_that_up_would_not_run_are_not_invented(tmp_path: Path) -> None:
    settings, source = settings_of(tmp_path / "data"), history(tmp_path, scenarios=("books", "films"))
    with pytest.raises(ScenariosNotRun, match=r'"books", "films".*will run: shop, video\. Say --scenario NAME'):
        warm(settings, source)
    assert checkpoints(settings) == []
    report = warm(settings, source, scenario="video")
    assert {name: each.events for name, each in report.scenarios.items()} == {"shop": 0, "video": 120}


def test_a_history_without_an_event_says_why(tmp_path: Path) -> None:
    bad = [{"user_id": "", "item_id": "i", "event": "view", "scenario": "shop"}] * 2
    source = write_records(tmp_path / "bad.jsonl", bad)
    with pytest.raises(NothingToLearn, match="2 bad-id"):
        warm(settings_of(tmp_path / "data"), str(source))


def test_the_model_is_refused_by_a_configuration_of_another_one(tmp_path: Path) -> None:
    folder = warm(settings_of(tmp_path / "data"), history(tmp_path)).checkpoint
    with pytest.raises(CheckpointMismatch, match=r"made with model\.dimension = 8, the settings say 16"):
        restored(settings_of(tmp_path / "data", dimension=16), folder)


def test_what_is_stopped_before_it_begins_leaves_nothing(tmp_path: Path) -> None:
    settings, stop = settings_of(tmp_path / "data"), threading.Event()

    @contextmanager
    def stopped() -> Iterator[threading.Event]:
        stop.set()
        yield stop

    with pytest.raises(NothingLearnt):
        warm_source(settings, history(tmp_path), SCHEDULE, stopped())
    assert checkpoints(settings) == []


def test_events_out_of_order_are_noticed(tmp_path: Path) -> None:
    events = [
        {"user_id": f"u{number % 5}", "item_id": f"i{number % 7}", "event": "view", "timestamp": 1_700_000_000 - number}
        for number in range(40)
    ]
    source = str(write_records(tmp_path / "back.jsonl", events))
    (notice,) = warm(settings_of(tmp_path / "data"), source, scenario="shop").notices
    assert notice.startswith("39 of 40 events are older")


def test_the_command_prints_one_line_for_scripts_or_a_table(tmp_path: Path) -> None:
    source = history(tmp_path)
    options = [source, "--scenario", "shop", "--epochs", "1"]
    done = CliRunner().invoke(app, ["warm", *options, "--data", str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    assert msgspec.json.decode(line)["checkpoint"].startswith(str(tmp_path / "a"))
    shown = CliRunner().invoke(app, ["warm", *options, "--data", str(tmp_path / "b")]).stdout
    assert "recall@10" in shown
    assert str(tmp_path / "b" / "checkpoints" / "00000001") in shown


def test_the_readme_names_options_that_exist() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme[readme.index("headstream warm") : readme.index("How good is it")]
    shown = CliRunner().invoke(app, ["warm", "--help"]).output
    named = set(re.findall(r"--[a-z]+", section))
    assert {"--epochs", "--patience", "--validation", "--replace"} <= named
    assert [name for name in named if name not in shown] == []
