"""A learner that stops and goes on in another process, and one that never stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.learner.builders import small_learner
from tests.learner.going_on import SETTINGS, STEPS, first_half, second_half


def test_fifty_steps_and_fifty_in_another_process_are_a_hundred(tmp_path: Path) -> None:
    straight = small_learner(SETTINGS)
    first_half(straight)
    assert straight.step == STEPS
    assert 0 < straight.probes.size((0, 0)) < SETTINGS.learn.probe_rows
    straight.save(tmp_path / "half", {})
    second_half(straight)
    assert straight.step == 2 * STEPS
    assert straight.probes.size((0, 0)) == SETTINGS.learn.probe_rows
    command = [sys.executable, "-m", "tests.learner.going_on", str(tmp_path / "half"), str(tmp_path / "whole")]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=200)
    straight.save(tmp_path / "straight", {})
    # The sum of the manifest stands for every byte of tensors and facts.
    assert small_learner(SETTINGS).restore(tmp_path / "whole").step == 2 * STEPS
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in ("whole", "straight")]
    assert manifests[0] == manifests[1]
