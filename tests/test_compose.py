"""The compose file is what it says: its commands are ours, and its environment is understood."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.configuration import load
from streams.cli import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return dict(parsed["services"])


def test_all_parts_are_there(services: dict[str, Any]) -> None:
    assert set(services) == {"kafka", "postgres", "serve", "learn"}


@pytest.mark.parametrize("name", ["serve", "learn"])
def test_a_service_runs_a_command_that_a_person_would_type(services: dict[str, Any], name: str) -> None:
    program, command = services[name]["command"]
    assert program == "headstream"
    assert command in {each.name or each.callback.__name__ for each in app.registered_commands if each.callback}


@pytest.mark.parametrize("name", ["serve", "learn"])
def test_its_environment_is_a_configuration(services: dict[str, Any], name: str) -> None:
    environment = {
        key: value.replace("${POSTGRES_PASSWORD:-headstream}", "headstream")
        for key, value in services[name]["environment"].items()
    }
    settings = load(None, environment, {})
    assert settings.kafka.broker == "kafka:9092"
    assert settings.database.url.startswith("postgresql+psycopg://headstream:headstream@postgres/")


def test_the_image_holds_every_package_of_ours() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for package in ("schemas", "learner", "index", "streams"):
        assert f"COPY {package} {package}" in dockerfile
