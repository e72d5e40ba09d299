"""The same history, the same seed, one thread: the same weights to the bit, in whichever process (DESIGN §5.8)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.streams.test_evaluate import history
from tests.system.installation import here


def evaluated(source: str, *arguments: str) -> Any:
    """What `headstream evaluate` prints for scripts."""
    command = [sys.executable, "-m", "streams.cli", "evaluate", source, "--models", "headstream", "--json", *arguments]
    done = subprocess.run(command, env=here(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_two_processes_that_learn_the_same_history_come_to_the_same_weights(tmp_path: Path) -> None:
    source = history(tmp_path)
    first, second = (evaluated(source, "--seeds", "2") for _ in range(2))
    weights = first["weights"]["headstream"]
    assert [len(each) for each in weights] == [64, 64]
    assert weights[0] != weights[1]  # seeds count
    assert second["weights"] == first["weights"]
    assert evaluated(source, "--limit", "119")["weights"]["headstream"][0] != weights[0]  # and so does every event
