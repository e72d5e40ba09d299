"""The compose file as its readers see it: services with their commands and environments."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

_DEFAULT = re.compile(r"\$\{\w+:-([^}]*)\}")


def services() -> dict[str, Any]:
    """The services of `docker-compose.yml`, with every `${NAME:-default}` at its default."""
    text = (ROOT / "docker-compose.yml").read_text()
    found: dict[str, Any] = yaml.safe_load(_DEFAULT.sub(r"\1", text))["services"]
    return found
