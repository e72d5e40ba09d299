"""LEARN before it has anything to do."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from learner.encoder import TextEncoder
from schemas.migrations import upgrade
from streams.learn import Learn
from streams.store import Store, open_engine
from tests.learner.builders import small_learner, small_settings


def test_one_that_stands_by_has_nothing_to_keep_when_it_is_stopped(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(small_settings(), data=str(tmp_path))
    store = Store(open_engine(f"sqlite:///{tmp_path}/store.db"), "learn", "me")
    upgrade(store.engine)
    encoder = TextEncoder(settings.model.encoder, torch.device("cpu"))
    learn = Learn(settings, "127.0.0.1:9", store, small_learner(settings), encoder)
    assert learn.checkpoint() == {}
    assert store.checkpoints() == []
    store.close()
