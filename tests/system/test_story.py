"""The story of drift, played whole and judged from the topics alone, in the order in which an operator sees it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.system.installation import HEADSTREAM, here

LONGEST_SECONDS = 540

pytestmark = [pytest.mark.long, pytest.mark.timeout(LONGEST_SECONDS + 60)]


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `demo --story drift --json` ends with."""
    folder = tmp_path_factory.mktemp("story")
    done = subprocess.run(
        [*HEADSTREAM, "demo", "--story", "drift", "--json", "--data", str(folder / "data")],
        cwd=folder,
        env=here(HEADSTREAM_GATEWAY_PORT="0"),
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_chapter_comes_to_pass_and_in_its_order(summary: dict[str, Any]) -> None:
    story = {each["expected"]: each for each in summary["story"]}
    assert [name for name, each in story.items() if not each["seen"]] == []
    after = {name: each["after_seconds"] for name, each in story.items() if each["after_seconds"] is not None}
    assert all(seconds >= 0 for seconds in after.values())
    back, served, again = (after[name] for name in story if name.startswith("shop: "))
    assert back <= served + 1.0  # a list with the good version may be read a moment before the report
    assert served < again


def test_the_summary_is_that_of_any_demo_beside_it(summary: dict[str, Any]) -> None:
    assert summary.keys() == {"seconds_to_ready", "scenarios", "story"}
    assert all(each["events"] > 0 for each in summary["scenarios"].values())
