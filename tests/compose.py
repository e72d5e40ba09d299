"""The compose file as its readers see it: services with their commands and environments."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

OURS = ("serve", "learn", "learn-cuda", "gateway")
"""The services that run Headstream."""

_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def compose() -> dict[str, Any]:
    """`docker-compose.yml`, with every `${NAME:-default}` at its default."""
    text = (ROOT / "docker-compose.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(_DEFAULT.sub(r"\1", text))
    return found


def services() -> dict[str, Any]:
    found: dict[str, Any] = compose()["services"]
    return found


def health_check(service: str) -> list[str]:
    """The command that says whether a service is well, with the tests' own Python in place of the container's."""
    kind, *command = services()[service]["healthcheck"]["test"]
    if kind == "CMD-SHELL":
        command = ["sh", "-c", *command]
    return [sys.executable if word == "python" else word for word in command]
