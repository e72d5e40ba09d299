"""Checkpoints: what LEARN has learnt is written together with the offsets it covers, and gone on from after a start."""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from learner.checkpoint import CheckpointMismatch, DamagedCheckpoint
from learner.facts import Facts
from learner.online import OnlineLearner
from learner.saved import StateMismatch
from schemas.failpoints import failpoint
from schemas.records import OtherVersion
from schemas.settings import Settings
from streams import metrics
from streams.history import History
from streams.store import Effect, Partition, Progress, Store
from streams.versions import to_drop
from streams.worker import EXIT_CONFIGURATION, stop_process

log = logging.getLogger(__name__)


@dataclass
class Positions:
    """How far one LEARN has come, in memory.

    Attributes:
        examples: for each partition of examples the end of what was learnt.
        items: for each partition of items the end of what was taken in.
        control: for each partition of orders the end of what was carried out, and `erasures` of erasures.
    """

    examples: dict[Partition, int] = field(default_factory=dict)
    items: dict[Partition, int] = field(default_factory=dict)
    control: dict[Partition, int] = field(default_factory=dict)
    erasures: dict[Partition, int] = field(default_factory=dict)


class Checkpoints:
    """Those of one LEARN, on disk and in the database that points at them. Called on the worker thread only.

    Attributes:
        durable: for each partition of examples the offset that the database holds.
        folder: that they lie in.
    """

    def __init__(
        self, settings: Settings, store: Store, history: History, learner: OnlineLearner, positions: Positions
    ) -> None:
        self._scenarios = tuple(settings.scenarios)
        self.folder = Path(settings.data).resolve() / "checkpoints"
        self._kept = settings.learn.checkpoints_kept
        self._versions_kept = settings.gate.versions_kept
        self._store = store
        self._history = history
        self._learner = learner
        self._positions = positions
        self._written: tuple[int, Mapping[Partition, int]] | None = None
        self.durable: Mapping[Partition, int] = {}

    def restore(self, at: Mapping[Partition, int]) -> Facts | None:
        """Load the newest checkpoint that is whole, and set the positions to what it covers.

        Args:
            at: the offsets that the database holds; examples are learnt from there where no checkpoint covers them.

        Returns:
            What it says of itself, with `more` of its `write` in `extra`; None if there is none yet.
        """
        self.durable = dict(at)
        facts = self._load()
        learnt = {} if facts is None else _unlisted(facts.extra["examples"])
        self._positions.examples = {key: learnt.get(key, offset) for key, offset in at.items()}
        if facts is None:
            log.info("no checkpoint yet: learning begins from text and popularity")
            return None
        if new := facts.new(self._scenarios):
            # Which items are theirs only the items' records say, so those are read from the beginning.
            log.info("new scenarios begin: %s", ", ".join(new))
        else:
            self._positions.items = _unlisted(facts.extra["items"])
        self._positions.control = _unlisted(facts.extra.get("control", []))
        self._positions.erasures = _unlisted(facts.extra.get("erasures", []))
        return facts

    @property
    def up_to_date(self) -> bool:
        """Whether the newest one holds all that was learnt."""
        return self._written == self._present()

    def write(
        self, claims: Mapping[Partition, int], more: Mapping[str, object], kept: Mapping[str, int], effect_too: Effect
    ) -> Mapping[Partition, int]:
        """Write all that was learnt, then point the database at it together with the offsets it covers.

        Args:
            claims: under which the offsets are committed; without any, nothing is written.
            more: that JSON can say; `restore` gives it back.
            kept: versions by scenario that this checkpoint is kept for.
            effect_too: that belongs to the same transaction.

        Returns:
            The offsets that are durable now.
        """
        if not claims:
            return self.durable  # the next owner begins from the newest checkpoint, and is told all of it again
        began, present = time.perf_counter(), self._present()
        newest = self._store.checkpoints()
        number = newest[0].number + 1 if newest else 1
        folder = new_folder(self.folder, number)
        done = {key: self._positions.examples[key] for key in claims}
        covered = {
            "examples": _listed(done),
            "items": _listed(self._positions.items),
            "control": _listed(self._positions.control),
            "erasures": _listed(self._positions.erasures),
        }
        sha256 = self._learner.save(folder, {**covered, **more})
        failpoint("checkpoint.written")
        progress = [Progress(*key, self.durable[key], done[key], claim) for key, claim in claims.items()]

        def effect(connection: Connection) -> None:
            self._store.add_checkpoint(connection, number, folder, sha256, self._learner.run.step)
            for name, version in kept.items():
                self._history.save_version(self._described(name, version, number), connection)
            effect_too(connection)

        self._store.commit(progress, effect)
        failpoint("checkpoint.committed")
        self.durable, self._written = done, present
        metrics.checkpoint_seconds.observe(time.perf_counter() - began)
        self.tidy(claims)
        return done

    def _present(self) -> tuple[int, Mapping[Partition, int]]:
        """What tells one state of learning from another."""
        return self._learner.run.step, {**self._positions.examples, **self._positions.items, **self._positions.erasures}

    def _described(self, name: str, version: int, checkpoint: int) -> dict[str, Any]:
        standing = self._learner.promotion.standings[name]
        return {
            "scenario": name,
            "version": version,
            "lineage": self._learner.run.lineage,
            "step": self._learner.run.step,
            "made_at": standing.since,
            "checkpoint": checkpoint,
            "metrics": self._learner.versions.figures(name),
            "note": standing.reason,
        }

    def tidy(self, claims: Mapping[Partition, int]) -> None:
        """Drop versions that there are too many of, and checkpoints that nothing needs any more.

        So are folders of no later number that the database does not name: of a process that ended as it wrote.

        Raises:
            Fenced: another process makes the checkpoints now.
        """
        kept = self._history.versions()
        standings, dropped = self._learner.promotion.standings, []
        for name in {each.scenario for each in kept}:
            of_it = [each for each in kept if each.scenario == name]
            needed = [each for each in (standings[name].good,) if each is not None] if name in standings else []
            dropped += to_drop(of_it, time.time(), self._versions_kept, needed)
        gone = [(each.scenario, each.version) for each in dropped]
        needed_for_versions = {each.checkpoint for each in kept if (each.scenario, each.version) not in set(gone)}
        named: set[str] = set()
        with self._store.holding(claims) as connection:
            if gone:
                self._history.forget_versions(gone, connection)
            for place, checkpoint in enumerate(self._store.checkpoints()):
                if place < self._kept or checkpoint.number in needed_for_versions:
                    named.add(Path(checkpoint.folder).name)
                else:
                    self._store.forget_checkpoint(connection, checkpoint.number)
            left = unnamed(self.folder, named)
        newest = max(number for number in map(number_of, map(Path, named)) if number is not None)
        for number, each in left:
            if number <= newest:
                shutil.rmtree(each, ignore_errors=True)

    def _load(self) -> Facts | None:
        checkpoints = self._store.checkpoints()
        for checkpoint in checkpoints:
            try:
                facts = self._learner.restore(Path(checkpoint.folder))
            except DamagedCheckpoint as damaged:
                log.error("%s; the one before it is tried", damaged)
                continue
            except (CheckpointMismatch, StateMismatch, OtherVersion) as mismatch:
                stop_process(EXIT_CONFIGURATION, str(mismatch))
            log.info("restored checkpoint %d, step %d", checkpoint.number, self._learner.run.step)
            return facts
        if checkpoints:
            names = ", ".join(checkpoint.folder for checkpoint in checkpoints)
            stop_process(EXIT_CONFIGURATION, f"no checkpoint can be read ({names}); restore one, or use a fresh --data")
        return None


def new_folder(folder: Path, number: int) -> Path:
    """For a checkpoint of this number; nobody else writes there, not even a LEARN that was overtaken unawares."""
    return folder / f"{number:08d}-{secrets.token_hex(4)}"


def number_of(folder: Path) -> int | None:
    """Of the checkpoint that a folder holds, or part of one; None if it is called otherwise."""
    number = folder.name[:8]
    return int(number) if len(number) == 8 and number.isdecimal() else None


def unnamed(folder: Path, named: Collection[str]) -> list[tuple[int, Path]]:
    """What holds a checkpoint, or part of one, and is not among these names; with the checkpoints' numbers.

    To be asked while nobody can take over (`Store.holding`): nobody else is writing any of it then.
    """
    found = [(number_of(each), each) for each in (folder.iterdir() if folder.exists() else ())]
    return [(number, each) for number, each in found if number is not None and each.name not in named]


def _listed(positions: Mapping[Partition, int]) -> list[list[Any]]:
    return [[topic, partition, offset] for (topic, partition), offset in positions.items()]


def _unlisted(positions: Any) -> dict[Partition, int]:
    return {(topic, partition): offset for topic, partition, offset in positions}
