"""A warm start as a person makes one: a history, `headstream warm`, and the first lists that LEARN and SERVE give.

The tests share one installation, in this order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.worker import EXIT_CONFIGURATION
from tests.system.conftest import environment
from tests.system.installation import HEADSTREAM, Installation, headstream, here, until

ROUND = [f"i{number}" for number in range(24)]
"""Items that everybody uses one after the other; their titles say nothing of it."""


def write_history(folder: Path, events: int = 900) -> str:
    """Of users who each go on from an item of their own, a little of the way round."""
    rows = [
        {
            "user_id": f"u{user}",
            "item_id": ROUND[(user * 7 + step) % len(ROUND)],
            "event": "click",
            "timestamp": 1_700_000_000 + user * 10 + step,
            "scenario": "shop",
        }
        for user in range(events // 6)
        for step in range(6)
    ]
    (folder / "events.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    items = [{"item_id": item, "title": f"Thing {number * 5 % 24}"} for number, item in enumerate(ROUND)]
    (folder / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    return str(folder / "events.jsonl")


@pytest.fixture(scope="module")
def warmed(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation that was warmed and of which nothing runs yet."""
    folder = tmp_path_factory.mktemp("warm")
    made = Installation(folder, environment(broker, f"w-{os.urandom(4).hex()}.", folder))
    report = json.loads(made.command("warm", write_history(folder), "--epochs", "4", "--json"))
    assert report["learnt"] == 900
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def running(warmed: Installation) -> Installation:
    """The same with its items published, SERVE and LEARN; no event was ever published."""
    for item in ROUND:
        warmed.item(item, f"Thing {item}", scenarios=["shop"])
    warmed.flush()
    warmed.start("serve")
    warmed.start("learn")
    return warmed


@pytest.fixture(scope="module")
def replaced(running: Installation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `warm --replace` reports of a model, with which LEARN was started again."""
    assert running.stop("learn") == 0
    source = write_history(tmp_path_factory.mktemp("replacement"), events=300)
    report: dict[str, Any] = json.loads(running.command("warm", source, "--replace", "--epochs", "0", "--json"))
    running.start("learn")
    return report


def test_learn_with_another_model_refuses_the_warm_one_and_says_why(warmed: Installation) -> None:
    warmed.start("learn", "other", HEADSTREAM_MODEL_DIMENSION="32")
    code = until(lambda: warmed.processes["other"].poll(), "LEARN ends")
    del warmed.processes["other"]
    assert code == EXIT_CONFIGURATION
    assert "the checkpoint was made with model.dimension = 64, the settings say 32" in warmed.log("other")


def test_the_first_lists_know_the_history_before_any_event(running: Installation) -> None:
    found = until(
        lambda: answer if len((answer := running.answer("shop", "new", history=["i9", "i10"])).items) == 10 else None,
        "all items are known",
    )
    assert (found.model.version > 0, found.model.step > 0, found.trained_through) == (True, True, {})
    assert found.items[0].item_id == "i11"
    assert {"i12", "i13"} <= {item.item_id for item in found.items[:6]}
    assert found.items[0].source == "model"
    popular = running.answer("shop", "nobody")
    assert len(popular.items) == 10
    assert running.scenarios()["shop"]["examples"] == 0


def test_the_first_event_is_learnt(running: Installation) -> None:
    running.event("shop", "new", "i3")
    running.flush()
    until(lambda: running.scenarios()["shop"]["examples"] == 1, "it is learnt")
    assert running.scenarios()["shop"]["events"] == 1


def test_the_model_of_a_running_system_is_left_alone(running: Installation, tmp_path: Path) -> None:
    data = str(Path(running.settings.data))
    done = headstream("warm", write_history(tmp_path), "--replace", "--data", data, cwd=tmp_path, code=1)
    assert f"{data} are in use: LEARN" in done.stderr


def test_a_model_that_takes_the_place_of_another_goes_on_in_its_stream(
    running: Installation, replaced: dict[str, Any]
) -> None:
    step = replaced["step"]
    until(lambda: running.scenarios()["shop"]["model"]["step"] == step, "the new model is published")
    assert running.scenarios()["shop"]["examples"] == 1
    running.event("shop", "new", "i5")
    running.flush()
    until(lambda: running.scenarios()["shop"]["examples"] == 2, "the next event is learnt")
    until(lambda: running.answer("shop", "new").model.step == step + 1, "SERVE ranks with what was learnt of it")


def test_ctrl_c_in_the_middle_keeps_the_best_so_far(tmp_path: Path) -> None:
    endless = ["--epochs", "100000", "--patience", "100000", "--json", "--data", "data"]
    log = tmp_path / "warm.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*HEADSTREAM, "warm", write_history(tmp_path), *endless],
            cwd=tmp_path,
            env=here(COLUMNS="200"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    until(lambda: "after epoch 2:" in log.read_text(), "epochs are under way")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, log.read_text()
    report: Any = json.loads(output)
    assert report["stopped"]
    assert len(report["epochs"]) >= 3
    assert report["recall@10"] == max(epoch["recall@10"] for epoch in report["epochs"])
    assert (Path(report["checkpoint"]) / "manifest.json").is_file()
    assert "already holds a model" in headstream("warm", "events.jsonl", "--data", "data", cwd=tmp_path, code=1).stderr
