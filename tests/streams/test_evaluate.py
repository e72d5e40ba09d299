"""A history on disk is evaluated as serving and learning would meet it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from learner.evaluation import MODELS
from learner.outcomes import Report
from schemas.packed import unpack
from schemas.settings import Learn, Model, Scenario, Settings
from streams.cli import app
from streams.evaluate import NothingToTest, UnknownModels, evaluate_source, read_examples
from streams.sources import open_history

SETTINGS = Settings(
    scenarios={"shop": Scenario(), "video": Scenario()},
    model=Model(dimension=8, history=5, adapter_rank=2),
    learn=Learn(micro_batch=16, replay_batch=8, replay_rows=50),
)
TITLES = [
    "Garden hose",
    "Rose shears",
    "Compost bin",
    "Frying pan",
    "Kitchen knife",
    "Espresso machine",
    "Tent",
    "Stove",
]


def history(folder: Path, events: int = 120, scenarios: tuple[str, ...] = ("shop", "video")) -> str:
    """A file of events, of users who go through the items in turn, with a file of items beside it."""
    items = [
        {"item_id": f"i{number}", "title": title, "scenarios": [scenarios[number % len(scenarios)]]}
        for number, title in enumerate(TITLES)
    ]
    (folder / "items.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, items)))
    rows = []
    for number in range(events):
        item = (number + number // 12) % len(TITLES)
        rows.append(
            {
                "user_id": f"u{number % 12}",
                "item_id": f"i{item}",
                "event": "view",
                "timestamp": 1_700_000_000 + number,
                "scenario": scenarios[item % len(scenarios)],
            }
        )
    (folder / "events.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return str(folder / "events.jsonl")


def test_the_report_has_the_models_that_were_asked_for(tmp_path: Path) -> None:
    report = evaluate_source(SETTINGS, history(tmp_path), models=["popularity", "headstream", "item-knn"])
    assert list(report.models) == ["headstream", "popularity", "item-knn"]
    assert report.events == 120
    assert 0 < report.tested <= 84
    assert set(report.models["headstream"].scenarios) == {"shop", "video"}
    found = msgspec.json.decode(msgspec.json.encode(report))["models"]["headstream"]
    assert 0 <= found["recall@10"] <= 1
    assert report.memory_megabytes > 0
    for name, ratio in report.ratios.items():
        assert name in {"popularity", "item-knn"}
        assert ratio.value == pytest.approx(report.models["headstream"].recall / report.models[name].recall)


def test_where_events_say_what_is_disliked_the_report_tells_it_from_what_is_taken(tmp_path: Path) -> None:
    source = Path(history(tmp_path))
    rows = [msgspec.json.decode(line) for line in source.read_bytes().splitlines()]
    disliking = [
        {**row, "event": "dislike", "item_id": f"i{(int(row['item_id'][1:]) + 2) % len(TITLES)}"} if not at % 5 else row
        for at, row in enumerate(rows)
    ]
    assert evaluate_source(SETTINGS, str(source), models=["popularity"]).models["popularity"].clicks == {}
    source.write_bytes(b"\n".join(map(msgspec.json.encode, disliking)))
    report = evaluate_source(SETTINGS, str(source), models=["headstream", "popularity"])
    assert 0 < report.refused < 24
    for model in report.models.values():
        assert list(model.clicks) == ["top-10", "top-1"]
        # All eight items fit into a list of ten, so all of both kinds are said to be taken.
        ten = model.clicks["top-10"]
        assert (ten.recall, ten.precision) == (1, ten.accuracy)
        assert 0.75 < ten.accuracy < 0.9  # a fifth of the events are dislikes
        assert 0 < model.clicks["top-1"].accuracy < 1


def test_in_the_stress_order_the_scenarios_come_in_blocks_and_what_is_held_out_is_reported(tmp_path: Path) -> None:
    report = evaluate_source(
        SETTINGS, history(tmp_path), models=["headstream", "naive-mixed", "popularity"], order="stress"
    )
    assert set(report.blocks) == {"shop", "video"}
    assert report.held_out > 0
    assert report.events + report.held_out == 120
    assert set(report.forgetting) == {"headstream", "naive-mixed", "popularity"}
    for kept in report.forgetting.values():
        assert [len(row) for row in kept.matrix] == [2, 2]
        first, last = (row[0] for row in kept.matrix)
        assert first is not None
        assert last is not None
        assert kept.forgetting == pytest.approx(first - last)
        assert kept.backward_transfer == pytest.approx(last - first)
        assert kept.final_average == pytest.approx((last + (kept.matrix[1][1] or 0)) / 2)
    again = msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert again.forgetting == report.forgetting


def test_in_the_order_of_time_nothing_is_held_out(tmp_path: Path) -> None:
    report = evaluate_source(SETTINGS, history(tmp_path), models=["popularity"])
    assert (report.events, report.held_out, report.blocks, report.forgetting) == (120, 0, [], {})


def test_an_order_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", history(tmp_path), "--order", "size"])
    assert done.exit_code == 2
    assert all(word in done.output for word in ("--order", "size", "time", "stress"))


def test_examples_hold_the_history_as_serving_would_have_seen_it(tmp_path: Path) -> None:
    read = read_examples(SETTINGS, open_history(history(tmp_path), items=None, event=None), None, None)
    of_one = [example for _, example in read.examples if example.user_id == "u3"]
    assert [unpack(each.history) for each in of_one[:3]] == [
        [],
        [of_one[0].item_id],
        [of_one[0].item_id, of_one[1].item_id],
    ]


def test_a_history_may_bring_its_own_scenarios(tmp_path: Path) -> None:
    source = history(tmp_path, scenarios=("books", "films"))
    read = read_examples(SETTINGS, open_history(source, items=None, event=None), None, None)
    assert set(read.settings.scenarios) == {"books", "films"}
    assert {name for name, _ in read.examples} == {"books", "films"}


def test_everything_may_go_into_one_scenario_and_a_limit_holds(tmp_path: Path) -> None:
    read = read_examples(SETTINGS, open_history(history(tmp_path), items=None, event=None), "video", 30)
    assert [name for name, _ in read.examples] == ["video"] * 30


def test_rows_that_cannot_be_taken_are_counted(tmp_path: Path) -> None:
    source = history(tmp_path)
    with Path(source).open("a") as file:
        file.write('\n{"user_id": "", "item_id": "i1", "event": "view", "scenario": "shop"}\n')
    read = read_examples(SETTINGS, open_history(source, items=None, event=None), None, None)
    assert read.refused == {"bad-id": 1}
    assert len(read.examples) == 120


def test_a_model_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(UnknownModels, match=r"oracle; allowed are headstream, popularity"):
        evaluate_source(SETTINGS, history(tmp_path), models=["oracle"])


def test_a_history_without_a_test_says_so(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"user_id": "", "item_id": "i", "event": "view", "scenario": "shop"}\n' * 2)
    with pytest.raises(NothingToTest, match="2 bad-id"):
        evaluate_source(SETTINGS, str(tmp_path / "events.jsonl"), models=["popularity"])


def test_a_folder_that_cannot_be_made_is_named_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    done = CliRunner().invoke(app, ["evaluate", history(tmp_path), "--output", str(tmp_path / "taken")])
    assert done.exit_code == 1
    assert "--output" in done.output
    assert "File exists" in done.output


def test_the_help_names_every_model() -> None:
    shown = CliRunner().invoke(app, ["evaluate", "--help"]).output
    assert [name for name in MODELS if name not in shown] == []
