"""The commands as a person or a script uses them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.system.installation import until

HEADSTREAM = [sys.executable, "-m", "streams.cli"]


def run(*arguments: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200"}
    done = subprocess.run(
        [*HEADSTREAM, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == code, done.stderr
    return done


class Up:
    """A running `headstream up`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        self.output = (folder / "up.log").open("w")
        command = [*HEADSTREAM, "up", "--data", "data"]
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment, stderr=self.output, start_new_session=True
        )

    def endpoints(self) -> Any:
        path = self.folder / "data" / "endpoints.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def ready(self) -> bool:
        processes = self.endpoints().get("processes", {})
        return bool(processes) and all(each["state"] == "ready" for each in processes.values())

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(15)
        self.output.close()
        return code


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    try:
        until(running.ready, "up is ready")
        yield running
    finally:
        if running.process.poll() is None:
            running.interrupt()


def test_up_says_where_everything_is(up: Up) -> None:
    endpoints = up.endpoints()
    assert endpoints["broker"].startswith("127.0.0.1:")
    assert set(endpoints["processes"]) == {"broker", "serve", "learn"}
    for each in endpoints["processes"].values():
        assert psutil.pid_exists(each["pid"])


def test_replay_status_and_watch_work_on_a_running_system(up: Up) -> None:
    lines = [
        {
            "user_id": f"u{number % 7}",
            "item_id": f"i{number % 11}",
            "event": "click",
            "timestamp": 1_700_000_000 + number,
        }
        for number in range(200)
    ]
    (up.folder / "history.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    items = [{"item_id": f"i{number}", "title": f"Thing number {number}"} for number in range(11)]
    (up.folder / "items.jsonl").write_text("\n".join(json.dumps(item) for item in items))
    more = ("--data", "data")
    run("replay", "history.jsonl", "--items", "items.jsonl", "--scenario", "shop", *more, cwd=up.folder)

    def learnt() -> Any:
        status = json.loads(run("status", "--json", *more, cwd=up.folder).stdout)
        return status if status["scenarios"]["shop"]["examples"] == 200 else None

    status = until(learnt, "all is learnt")
    assert status["scenarios"]["shop"]["events"] == 200
    assert status["scenarios"]["shop"]["lag"] == 0
    assert status["scenarios"]["shop"]["model"]["version"] > 0
    watched = run(
        "watch", "shop", "--json", "--from-beginning", "--count", "3", *more, cwd=up.folder
    ).stdout.splitlines()
    assert [json.loads(line)["scenario"] for line in watched] == ["shop"] * 3
    assert "headstream.events.shop" in run("status", *more, cwd=up.folder).stdout


def test_a_dead_process_is_replaced_and_the_replacement_is_told(up: Up) -> None:
    before = up.endpoints()["processes"]["serve"]["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: up.ready() and up.endpoints()["processes"]["serve"]["pid"] != before, "SERVE is replaced")


def test_a_second_up_on_the_same_folder_is_refused_by_name(up: Up) -> None:
    message = run("up", "--data", "data", cwd=up.folder, code=1).stderr
    assert "data" in message
    assert up.ready()


def test_ctrl_c_stops_everything_and_leaves_no_process(up: Up) -> None:
    family = up.family()
    assert len(family) >= 3
    assert up.interrupt() == 0
    assert not [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    assert not (up.folder / "data" / "endpoints.json").exists()


def test_init_writes_a_configuration_that_loads(tmp_path: Path) -> None:
    run("init", cwd=tmp_path)
    assert "[scenarios.shop]" in (tmp_path / "headstream.toml").read_text()
    assert "exists" in run("init", cwd=tmp_path, code=1).stderr
    assert json.loads(run("doctor", "--json", cwd=tmp_path).stdout)


def test_a_command_without_a_system_says_what_to_start(tmp_path: Path) -> None:
    assert "headstream up" in run("status", cwd=tmp_path, code=1).stderr


@pytest.mark.parametrize(
    "command", ["demo", "init", "up", "broker", "serve", "learn", "replay", "watch", "status", "doctor"]
)
def test_every_command_explains_itself_with_an_example(command: str, tmp_path: Path) -> None:
    assert f"headstream {command}" in run(command, "--help", cwd=tmp_path).stdout


def test_the_demo_ends_by_itself_and_prints_one_line_for_scripts(tmp_path: Path) -> None:
    done = run("demo", "--seconds", "15", "--json", "--data", "demo", cwd=tmp_path)
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(summary["scenarios"]) == {"shop", "video", "news", "travel", "social"}
    for figures in summary["scenarios"].values():
        assert set(figures) >= {"events", "recommendations", "click_rate", "recall@10", "latency_ms", "dead_letters"}
        assert figures["events"] > 0
        assert figures["recommendations"] > 0
    assert summary["seconds_to_ready"] > 0
