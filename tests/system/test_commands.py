"""The commands as a person or a script uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from streams.cli import app
from tests.system.installation import headstream


def test_init_writes_a_configuration_that_loads(tmp_path: Path) -> None:
    headstream("init", cwd=tmp_path)
    assert "[scenarios.shop]" in (tmp_path / "headstream.toml").read_text()
    assert "exists" in headstream("init", cwd=tmp_path, code=1).stderr
    assert json.loads(headstream("doctor", "--json", cwd=tmp_path).stdout)


def test_a_command_without_a_system_says_what_to_start(tmp_path: Path) -> None:
    assert "headstream up" in headstream("status", cwd=tmp_path, code=1).stderr


@pytest.mark.parametrize(
    "command",
    [
        *("demo", "init", "up", "broker", "serve", "learn", "gateway", "replay", "watch", "status", "doctor"),
        *("evaluate", "warm", "pause", "resume", "promote", "rollback", "consolidate"),
    ],
)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    assert f"headstream {command}" in CliRunner().invoke(app, [command, "--help"]).stdout


def test_the_demo_ends_by_itself_and_prints_one_line_for_scripts(tmp_path: Path) -> None:
    done = headstream("demo", "--seconds", "15", "--json", "--data", "demo", cwd=tmp_path)
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(summary["scenarios"]) == {"shop", "video", "news", "travel", "social"}
    for figures in summary["scenarios"].values():
        assert set(figures) >= {"events", "recommendations", "click_rate", "recall@10", "latency_ms", "dead_letters"}
        assert figures["events"] > 0
        assert figures["recommendations"] > 0
    assert summary["seconds_to_ready"] > 0
