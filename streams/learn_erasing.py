"""What LEARN does for an erasure: rows of replay and probe sets go, out of memory and out of every kept checkpoint."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy.engine import Connection

from learner.checkpoint import DamagedCheckpoint, read_checkpoint, write_checkpoint
from learner.erased import Forgotten, holds_user, without_user
from learner.online import OnlineLearner
from schemas.failpoints import failpoint
from schemas.reports import Erasure
from schemas.tables import Checkpoint
from schemas.topics import RETENTION_MILLISECONDS
from streams import metrics
from streams.checkpoints import new_folder, unnamed
from streams.erasures import Erasures
from streams.store import Effect, Partition, Store

log = logging.getLogger(__name__)

REMEMBERED_SECONDS = 2 * RETENTION_MILLISECONDS / 1000
"""For so long an example may lie in its topic: a segment is closed after a week, and removed a week after that."""


class LearnErasing:
    """Carries erasures out where LEARN holds anything of users. Called on the worker thread only.

    Whatever is done twice finds nothing the second time, and the record's position moves only after all of it: a
    process that ends in the middle begins the record again. One that was overtaken changes nothing: it writes to
    folders of its own, and the database names them only while its claims hold.
    """

    def __init__(
        self,
        store: Store,
        learner: OnlineLearner,
        folder: Path,
        claims: Callable[[], Mapping[Partition, int]],
        checkpoint: Callable[[Mapping[str, int], Effect], object],
    ) -> None:
        """Put together.

        Args:
            folder: that the checkpoints lie in.
            claims: under which checkpoints are this process's to change.
            checkpoint: writes one now, with an effect in the transaction that points at it.
        """
        self._store = store
        self._erasures = Erasures(store.engine)
        self._learner = learner
        self._folder = folder
        self._claims = claims
        self._checkpoint = checkpoint
        self._refused: dict[str, int] = {}
        self._clean_from = 0
        self._rollbacks = 0

    def forget(self, name: str, wish: Erasure) -> Forgotten:
        """Drop the user's rows in memory, and leave a checkpoint that is without them.

        From it on checkpoints hold only what the user did after the erasure, unless a scenario is rolled back.

        Raises:
            Fenced: another process makes the checkpoints now.
        """
        with self._store.holding(self._claims()):
            pass
        self._rollbacks = self._learner.promotion.rollbacks
        self._learner.erased.prune(time.time() - REMEMBERED_SECONDS)
        removed = self._learner.erase(wish.user_id, wish.requested_at, name)
        counts = {"replay rows": removed.replay, "probe rows": removed.probes}

        def effect(connection: Connection) -> None:
            # What is found once more, in an older checkpoint that was begun from, was counted then.
            if self._erasures.begin(connection, name, "learn", wish, time.time()):
                self._erasures.set_counts(connection, name, counts)

        self._checkpoint({}, effect)
        self._clean_from = self._store.checkpoints()[0].number
        failpoint("erasure.forgotten")
        metrics.count_erased(counts)
        return removed

    def rewrite_one(self, name: str, wish: Erasure) -> bool:
        """Rewrite one checkpoint that holds the user still; False if none does.

        1. A new folder without the user is on disk, 2. the database points at it, 3. the old folder goes.
        """
        older = [each for each in self._store.checkpoints() if each.number < self._clean_from]
        for checkpoint in older:
            folder = Path(checkpoint.folder)
            try:
                if not holds_user(folder, wish.user_id):
                    continue
                self._rewrite(checkpoint, name, wish)
            except DamagedCheckpoint as damaged:
                # It may hold the user, and nobody can go back to it.
                log.error("%s; an erasure deletes it", damaged)
                with self._store.holding(self._claims()) as connection:
                    self._store.forget_checkpoint(connection, checkpoint.number)
                    self._erasures.add_count(connection, name, "damaged checkpoints", 1)
                metrics.count_erased({"damaged checkpoints": 1})
            shutil.rmtree(folder, ignore_errors=True)
            return True
        return False

    def finish(self, name: str) -> bool:
        """Close this part of the receipt; False if a rollback may have brought the user back from an old checkpoint."""
        if self._learner.promotion.rollbacks != self._rollbacks:
            return False
        with self._store.holding(self._claims()):
            left = unnamed(self._folder, {Path(each.folder).name for each in self._store.checkpoints()})
        for _, each in left:
            shutil.rmtree(each, ignore_errors=True)
        self._erasures.finish([name], "learn")
        metrics.erasures.inc()
        log.info("erasure %s is carried out where examples are kept", name)
        return True

    def say_refused(self, connection: Connection) -> None:
        """Put down how many examples were not learnt, with the checkpoint that says so."""
        for each in self._learner.erased.gone.values():
            if each.refused:
                self._erasures.set_counts(connection, each.name, {"examples": each.refused})

    def count_refused(self) -> None:
        """Tell Prometheus of examples that were not learnt."""
        for each in self._learner.erased.gone.values():
            metrics.count_erased({"examples": each.refused - self._refused.get(each.name, 0)})
            self._refused[each.name] = each.refused

    def _rewrite(self, checkpoint: Checkpoint, name: str, wish: Erasure) -> None:
        old = Path(checkpoint.folder)
        new = new_folder(old.parent, checkpoint.number)
        made = without_user(read_checkpoint(old), wish.user_id)
        sha256 = write_checkpoint(new, made.tensors, made.facts)
        failpoint("erasure.written")
        with self._store.holding(self._claims()) as connection:
            self._store.move_checkpoint(connection, checkpoint.number, new, sha256)
            self._erasures.add_count(connection, name, "checkpoints", 1)
        failpoint("erasure.moved")
        metrics.count_erased({"checkpoints": 1})
