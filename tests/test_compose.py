"""The compose file is what it says: its commands are ours, and its environment is understood.

That they run together is seen in `system/test_counting.py`.
"""

from __future__ import annotations

import pytest

from schemas.configuration import load
from streams.cli import app
from tests.compose import ROOT, services


def test_all_parts_are_there() -> None:
    assert set(services()) == {"kafka", "postgres", "serve", "learn"}


@pytest.mark.parametrize("name", ["serve", "learn"])
def test_a_service_runs_a_command_that_a_person_would_type(name: str) -> None:
    program, command = services()[name]["command"]
    assert program == "headstream"
    assert command in {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}


@pytest.mark.parametrize("name", ["serve", "learn"])
def test_its_environment_is_a_configuration(name: str) -> None:
    settings = load(None, services()[name]["environment"], {})
    assert settings.kafka.broker == "kafka:9092"
    assert settings.database.url.startswith("postgresql+psycopg://headstream:headstream@postgres/")


def test_the_image_holds_every_package_of_ours() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for package in ("schemas", "learner", "index", "streams"):
        assert f"COPY {package} {package}" in dockerfile
