"""How LEARN learns, seen from outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.installation import Installation, headstream, until
from tests.system.test_up import DATA, Up

WITH_AVALANCHE = {"HEADSTREAM_LEARN_AVALANCHE": "true"}


def test_avalanche_takes_the_steps_once_it_is_imported(alone: Installation) -> None:
    alone.start("serve")
    alone.start("learn", **WITH_AVALANCHE)
    until(lambda: "learning through Avalanche from step" in alone.log("learn"), "Avalanche is imported")
    for number in range(60):
        alone.event("travel", f"traveller-{number % 7}", f"stay-{number % 11}")
    alone.flush()
    until(lambda: alone.scenarios()["travel"]["examples"] == 60, "all of it is learnt")
    assert alone.scenarios()["travel"]["model"]["step"] > 0
    assert "Traceback" not in alone.log("learn")


def test_learning_goes_on_where_avalanche_cannot_be_imported(alone: Installation) -> None:
    alone.start("serve")
    alone.start("learn", HOME="/proc/nowhere", **WITH_AVALANCHE)  # Avalanche makes a folder there
    until(lambda: "learning goes on with the plain strategy" in alone.log("learn"), "its absence is told")
    for number in range(20):
        alone.event("shop", f"u{number % 3}", f"i{number % 7}")
    alone.flush()
    until(lambda: alone.scenarios()["shop"]["examples"] == 20, "all of it is learnt")
    assert alone.scenarios()["shop"]["model"]["step"] > 0


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose items belong to every scenario, and whose events to those that their file is named after."""
    (tmp_path / "items.jsonl").write_text(
        "\n".join(json.dumps({"item_id": f"i{number}", "title": f"Thing number {number}"}) for number in range(11))
    )
    for scenario in ("shop", "news", "music"):
        events = [
            {"user_id": f"u{number % 7}", "item_id": f"i{number % 11}", "event": "click", "scenario": scenario}
            for number in range(60)
        ]
        (tmp_path / f"{scenario}.jsonl").write_text("\n".join(map(json.dumps, events)))
    yield tmp_path


def test_a_scenario_is_added_and_one_is_taken_out_and_the_others_go_on(folder: Path) -> None:
    """Case P4: a scenario that is renamed is one that goes and one that begins."""
    for scenarios in (("shop", "news"), ("music", "shop")):
        (folder / "headstream.toml").write_text("".join(f"[scenarios.{name}]\n" for name in scenarios))
        up = Up(folder)
        try:
            until(up.ready, "up is ready")
            for name in scenarios:
                headstream("replay", f"{name}.jsonl", "--items", "items.jsonl", "--scenario", name, *DATA, cwd=folder)
            # Records of the past are taken with their times; the shop has both replays behind it at the end.
            wanted = {name: 120 if (name, scenarios[0]) == ("shop", "music") else 60 for name in scenarios}
            until(
                lambda up=up, wanted=wanted: (
                    {name: each["examples"] for name, each in up.scenarios().items() if name in wanted} == wanted
                ),
                f"all is learnt: {wanted}",
            )
        finally:
            code = up.interrupt()
        assert code == 0
    log = (folder / "up.log").read_text()
    assert "Traceback" not in log
