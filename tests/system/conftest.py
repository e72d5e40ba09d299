"""Fixtures of the system tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.installation import Installation


@pytest.fixture
def make_installation(broker: str, prefix: str, tmp_path: Path) -> Iterator[Callable[..., Installation]]:
    """Builds an installation; keyword arguments are environment variables."""
    made: list[Installation] = []

    def make(**environment: str) -> Installation:
        installation = Installation(broker, prefix, tmp_path, environment)
        made.append(installation)
        return installation

    yield make
    for installation in made:
        installation.close()


@pytest.fixture(scope="module")
def installation(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One SERVE and one LEARN for all tests of a module, which use users and items of their own."""
    data = tmp_path_factory.mktemp("installation")
    made = Installation(broker, f"m-{os.urandom(4).hex()}.", data, {"HEADSTREAM_LEARN_CHECKPOINT_SECONDS": "5"})
    made.start("serve")
    made.start("learn")
    try:
        yield made
    finally:
        made.close()
