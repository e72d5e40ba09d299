"""Failpoints: nothing where they are off; one strike for each arming where they are on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from schemas import failpoints
from schemas.failpoints import FOLDER_VARIABLE, Failpoint, UnknownFailpoint, armed_folder, failpoint

PACKAGES = ("learner", "index", "streams")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(failpoints, "_folder", armed_folder(str(tmp_path)))
    return tmp_path


def test_without_the_variable_nothing_is_looked_up() -> None:
    assert armed_folder(None) is None
    assert armed_folder("") is None
    assert failpoint("serve.decoded") is False


def test_an_arming_strikes_once(folder: Path) -> None:
    (folder / "checkpoint.write").write_text("full")
    with pytest.raises(OSError) as full:
        failpoint("checkpoint.write")
    assert full.value.errno == errno.ENOSPC
    assert failpoint("checkpoint.write") is False
    assert [file.name for file in folder.iterdir()] == [f".checkpoint.write.by.{os.getpid()}"]


def test_only_the_failpoint_that_is_named_is_struck(folder: Path) -> None:
    (folder / "learn.loss").write_text("nan")
    assert failpoint("learn.learnt") is False
    assert failpoint("learn.loss") is True


def test_the_clock_jumps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", time.time)  # so that it is put back
    before = time.time()
    (folder / "learn.learnt").write_text("clock 3600")
    failpoint("learn.learnt")
    assert 3600 <= time.time() - before < 3700


def test_a_process_that_is_told_to_is_killed_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "serve.published").write_text("kill")
    script = "from schemas.failpoints import failpoint; failpoint('serve.published'); print('went on')"
    environment = {**os.environ, FOLDER_VARIABLE: str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


def test_a_name_that_is_no_failpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "serve.decode").write_text("kill")
    with pytest.raises(UnknownFailpoint, match=r'"serve.decode" is not one of serve.decoded, serve.published'):
        armed_folder(str(tmp_path))


def test_an_order_that_nobody_can_carry_out_is_an_error(folder: Path) -> None:
    (folder / "serve.decoded").write_text("kil")
    with pytest.raises(UnknownFailpoint, match=r'"kil" in serve.decoded is not one of kill, stop'):
        failpoint("serve.decoded")


def test_each_failpoint_stands_at_exactly_one_place() -> None:
    root = Path(__file__).parents[2]
    text = "\n".join(file.read_text() for package in PACKAGES for file in (root / package).rglob("*.py"))
    assert {name: text.count(f'failpoint("{name}")') for name in get_args(Failpoint)} == dict.fromkeys(
        get_args(Failpoint), 1
    )
