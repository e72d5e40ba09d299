"""An erasure in LEARN, on real checkpoints and a real database: whole, counted once, and only by whoever owns them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from learner.erased import holds_user
from learner.online import OnlineLearner
from schemas.migrations import upgrade
from schemas.reports import Erasure
from schemas.settings import Settings
from streams.checkpoints import Checkpoints, Positions
from streams.erasures import Erasures
from streams.history import History
from streams.learn_erasing import LearnErasing
from streams.store import Fenced, Partition, Store, open_engine
from tests.learner.builders import NAMES, put, small_learner, small_settings, stream

EXAMPLES = ("examples.shop", 0)
GONE = "user-3"
WISH = Erasure(user_id=GONE, requested_at=2e9, reason="a test")


class Learning:
    """One LEARN's checkpoints, under the claim that it takes."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.store = Store(open_engine(f"sqlite:///{settings.data}/store.db"), "learn", name)
        upgrade(self.store.engine)
        taken = self.store.claim([EXAMPLES])
        self.claims: Mapping[Partition, int] = {key: each.claim for key, each in taken.items()}
        self.learner: OnlineLearner = small_learner(settings)
        history = History(self.store.engine)
        self.checkpoints = Checkpoints(settings, self.store, history, self.learner, Positions())
        restored = self.checkpoints.restore({key: each.next or 0 for key, each in taken.items()})
        if restored is None:
            put(self.learner, NAMES)
        folder = self.checkpoints.folder
        self.erasing = LearnErasing(
            self.store,
            self.learner,
            folder,
            lambda: self.claims,
            lambda kept, effect: self.checkpoints.write(self.claims, {}, kept, effect),
        )

    def learn(self, first: int, count: int) -> None:
        self.learner.learn("shop", stream(NAMES, count, first=first))
        self.checkpoints.write(self.claims, {}, {}, lambda _: None)

    def folders(self) -> list[Path]:
        return [Path(each.folder) for each in self.store.checkpoints()]

    def erase(self) -> None:
        self.erasing.forget("e", WISH)
        while self.erasing.rewrite_one("e", WISH):
            pass
        assert self.erasing.finish("e")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    small = small_settings(checkpoints_kept=4)
    return msgspec.structs.replace(small, data=str(tmp_path))


@pytest.fixture
def learning(settings: Settings) -> Iterator[Learning]:
    made = Learning(settings, "first")
    for first in (0, 40):
        made.learn(first, 40)
    yield made
    made.store.close()


def counts(learning: Learning) -> dict[str, int]:
    return Erasures(learning.store.engine).counts("e")


def test_a_learn_that_was_overtaken_changes_no_checkpoint_of_its_successor(
    learning: Learning, settings: Settings
) -> None:
    """DESIGN §5, invariant 2."""
    learning.erasing.forget("e", WISH)
    found, before = counts(learning), learning.folders()
    second = Learning(settings, "second")
    with pytest.raises(Fenced):
        learning.erasing.rewrite_one("e", WISH)
    shutil.rmtree(before[2])  # as if its successor let it go: it is not for the first to say that it is damaged
    with pytest.raises(Fenced):
        learning.erasing.rewrite_one("e", WISH)
    with pytest.raises(Fenced):
        learning.erasing.finish("e")
    with pytest.raises(Fenced):
        learning.erasing.forget("e", WISH)
    with pytest.raises(Fenced):
        learning.checkpoints.tidy(learning.claims)
    assert (second.folders(), counts(second)) == (before, found)

    second.erase()
    assert not any(holds_user(each, GONE) for each in second.folders())
    assert {each.name for each in second.checkpoints.folder.iterdir()} == {each.name for each in second.folders()}
    assert counts(second) == {**found, "checkpoints": 1, "damaged checkpoints": 1}
    second.store.close()


def test_what_the_user_does_meanwhile_stays_and_holds_no_erasure_up(learning: Learning) -> None:
    learning.erasing.forget("e", Erasure(user_id=GONE, requested_at=-1.0))
    found = counts(learning)
    learning.learn(80, 40)
    assert holds_user(learning.folders()[0], GONE)
    while learning.erasing.rewrite_one("e", WISH):
        pass
    assert learning.erasing.finish("e")
    assert [holds_user(each, GONE) for each in learning.folders()] == [True, False, False, False]
    assert counts(learning) == {**found, "checkpoints": 2}


def test_a_rollback_meanwhile_begins_the_erasure_again(learning: Learning) -> None:
    learning.erasing.forget("e", WISH)
    learning.learner.promotion.rollbacks += 1
    while learning.erasing.rewrite_one("e", WISH):
        pass
    assert not learning.erasing.finish("e")
    learning.erase()
