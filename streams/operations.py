"""Operations: what LEARN does to versions of a scenario, because the gate says so or because a person does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from learner.checkpoint import CheckpointMismatch, DamagedCheckpoint, read_checkpoint
from learner.consolidation import Consolidation
from learner.online import OnlineLearner
from learner.promotion import UnknownScenario
from learner.publication import Publication
from schemas.control import Control
from schemas.records import OtherVersion
from schemas.reports import DriftReport, Severity
from schemas.settings import Settings
from schemas.signals import LEADING, SIGNALS
from schemas.tables import Version
from schemas.times import say_time
from streams.history import History
from streams.reporting import Reporter
from streams.store import Effect, Store

log = logging.getLogger(__name__)

ACTIONS_REMEMBERED = 1000
"""Newest orders whose ids are known, so that one that comes again is not carried out again."""

STEPS_AT_ONCE = 2
"""Of a consolidation, between which examples are learnt."""

PAST_TENSE = {
    "pause": "paused",
    "resume": "resumed",
    "promote": "promoted",
    "rollback": "rolled_back",
    "consolidate": "consolidated",
}


UNUSABLE = (DamagedCheckpoint, CheckpointMismatch, UnknownScenario, OtherVersion)
"""What a checkpoint is found to be that cannot be gone back to."""


class Refusal(Exception):
    """An order that cannot be carried out, and why: nothing has changed."""


class Operations:
    """Carries out what the gate and people want of the scenarios' versions. Called on the worker thread only.

    Whatever it does is published at once, and durable with a checkpoint of its own: after a crash either both the act
    and its record are there, or the order is carried out anew.
    """

    def __init__(
        self,
        settings: Settings,
        learner: OnlineLearner,
        store: Store,
        history: History,
        reporter: Reporter,
        publish: Callable[[Publication], None],
        checkpoint: Callable[[Mapping[str, int], Effect], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Put together; nothing is done yet.

        Args:
            checkpoint: writes one now, keeps it for the versions that are named by scenario, and adds an effect to the
                transaction that points at it.
            clock: epoch seconds.
        """
        self._settings = settings
        self._learner = learner
        self._store = store
        self._history = history
        self._reporter = reporter
        self._publish = publish
        self._checkpoint = checkpoint
        self._clock = clock
        self._performed: dict[str, None] = {}
        self._consolidating: tuple[Control, Consolidation] | None = None

    # After a restart

    def remembered(self) -> list[str]:
        """Ids of the newest orders, for the checkpoint."""
        return list(self._performed)

    def resume(self, performed: Sequence[str], under_way: Control | None) -> None:
        """Go on as a restored checkpoint stood: it says which version is good, and that one lies in another."""
        self._performed = dict.fromkeys(performed)
        if under_way is not None:
            self._begin(under_way)
        for name, standing in self._learner.promotion.standings.items():
            if standing.good is None:
                continue
            try:
                folder = self._folder(self._version(name, standing.good))
                self._learner.versions.adopt_good(name, read_checkpoint(folder))
            except (Refusal, *UNUSABLE) as error:
                log.error("%s: good version %d is gone, what is learnt is served: %s", name, standing.good, error)
                standing.good = standing.restores = None
        self.say_stances()

    # What the gate wants

    def publish_news(self) -> bool:
        """Publish what is news, but not weights that are out of all proportion; returns whether all was in order."""
        unfit = self._learner.versions.unfit()
        for name, reason in unfit.items():
            self._take_back(name, "weights", f"What it had learnt must not be published: {reason}.")
        if unfit and self._learner.versions.unfit():
            return False  # nothing to go back to: what was published last is served on
        publication = self._learner.versions.publish()
        if publication is not None:
            self._publish(publication)
        return True

    def heed(self) -> None:
        """Roll back what is worse than its good version, or is not to be trusted."""
        for name, verdict in self._learner.versions.verdicts().items():
            if verdict == "worse":
                standing = self._learner.promotion.standings[name]
                self._take_back(
                    name,
                    "recall@10",
                    f"On {standing.test.pairs:,} examples that both ranked before learning from them, recall@10 of "
                    f"what was learnt was lower by {_points(standing.test.difference)} than that of good version "
                    f"{standing.good}.",
                )
        self._doubt()

    def _doubt(self) -> None:
        """Take back what newcomers have taught, while an alarm says that quality has fallen.

        Whoever sends events from accounts that nobody knows is not asked whether the lists have become better. Where
        the known users' own tastes shift, learning is the way out, and the gate watches it.
        """
        for name, standing in self._learner.promotion.standings.items():
            if not self._learner.versions.is_doubtful(name):
                continue
            verdicts = self._learner.monitor.verdicts(name)
            fallen = [
                signal
                for signal in sorted(verdicts, key=lambda each: each not in LEADING)
                if verdicts[signal].state == "alarm" and SIGNALS[signal].kind == "quality"
            ]
            if fallen:
                self._take_back(
                    name,
                    fallen[0],
                    f"{SIGNALS[fallen[0]].title} fell while {standing.newcomers * 100:.0f} % of the newest events came "
                    f"from users who have been here for less than {self._settings.gate.settled_seconds:.0f} s.",
                )

    def judge(self) -> None:
        """Make good what has passed; called every `gate.seconds`."""
        passed = [name for name, verdict in self._learner.versions.verdicts().items() if verdict == "passed"]
        if not passed:
            return
        if not self.publish_news():  # what becomes good is a version that was served, or could have been
            return
        reports = []
        kept = {}
        for name in passed:
            before = self._learner.promotion.standings[name]
            kept[name] = version = self._promote(name, f"It ranked no worse on {before.test.pairs:,} examples.")
            if before.restores is not None:
                reason = (
                    f"What was learnt since has passed the gate: on {before.test.pairs:,} examples that both ranked "
                    f"its recall@10 was {'lower' if before.test.difference < 0 else 'higher'} by "
                    f"{_points(before.test.difference)}. Version {version} is good, and served in place of version "
                    f"{before.restores}."
                )
                reports.append(self._report(name, "recall@10", "promoted", "news", reason, f"serve {version}"))
        self._checkpoint(kept, _nothing)
        self._reporter.say(reports)
        self.say_stances()

    def _take_back(self, name: str, signal: str, reason: str) -> None:
        standing = self._learner.promotion.standings[name]
        test, learning = standing.test, self._settings.gate.after_rollback == "restart"
        # Who was told that it is served again need not be called because what is learnt does not come up to it yet.
        severity: Severity = "page" if standing.restores is None else "news"
        for version in self._choices(name, standing.good):
            try:
                self._roll_back(name, version, learning=learning, reason=reason)
            except (Refusal, *UNUSABLE) as error:
                log.error("%s cannot go back to version %d: %s", name, version.version, error)
                continue
            then = "learning goes on from there" if learning else "learning is paused until a person resumes it"
            self._checkpoint({}, _nothing)
            self._reporter.say(
                [
                    self._report(
                        name, signal, "rolled_back", severity,
                        f"{reason} Version {version.version} is served again, and {then}.",
                        f"roll back to {version.version}",
                        value=test.difference, reference=0.0, threshold=-self._settings.gate.margin, window=test.pairs,
                    )
                ]
            )  # fmt: skip
            self.say_stances()
            return
        # Nothing to go back to: what is served stays as it is, and nothing is learnt that nobody may see.
        if standing.learning:
            self._learner.versions.pause(name)
            standing.since, standing.reason = self._clock(), reason
            reason = f"{reason} No version is kept to go back to; learning is paused until a person resumes it."
            self._reporter.say([self._report(name, signal, "paused", "page", reason, "pause")])
            self.say_stances()

    # What people want

    def perform(self, order: Control) -> None:
        """Carry out an order, once; what came of it is on record and on the drift topic."""
        if order.action_id in self._performed:
            return
        if order.action == "consolidate" and self._consolidating is None:
            log.info("a consolidation begins: %s: %s", order.author, order.reason)
            self._begin(order)
            return
        try:
            detail = self._carry_out(order)
            outcome, status = "done", PAST_TENSE[order.action]
        except Refusal as refusal:
            detail, outcome, status = str(refusal), "refused", "refused"
        except UNUSABLE as error:
            detail, outcome, status = f"the version cannot be used: {error}", "refused", "refused"
        self._finish(order, detail, outcome, status)

    def _finish(self, order: Control, detail: str, outcome: str, status: str) -> None:
        self._performed[order.action_id] = None
        while len(self._performed) > ACTIONS_REMEMBERED:
            del self._performed[next(iter(self._performed))]
        known = msgspec.structs.asdict(order)
        row = {**known, "performed_at": self._clock(), "outcome": outcome, "detail": detail}
        kept = {}
        if order.action == "promote" and outcome == "done" and order.scenario is not None:
            kept[order.scenario] = self._good(order.scenario)
        self._checkpoint(kept, lambda connection: self._history.record_action(row, connection))
        reason = f"{order.author}: {order.reason} – {detail}"
        self._reporter.say(
            [
                msgspec.structs.replace(
                    self._report(order.scenario or "", "", status, "news", reason, order.action),
                    report_id=f"action:{order.action_id}",
                )
            ]
        )
        self.say_stances()

    def _carry_out(self, order: Control) -> str:
        """Do it; returns what was done, in a sentence.

        Raises:
            Refusal: it cannot be done.
        """
        if order.action == "consolidate":
            raise Refusal("a consolidation is under way already")
        name = order.scenario or ""
        standing = self._learner.promotion.standings.get(name)
        if standing is None:
            raise Refusal(f'scenario "{name}" is not one of {", ".join(self._learner.promotion.standings)}')
        if order.action in ("pause", "resume"):
            wanted = order.action == "resume"
            if standing.learning == wanted:
                return f"Learning was {'on' if wanted else 'paused'} already."
            (self._learner.versions.resume if wanted else self._learner.versions.pause)(name)
            if standing.restores is None:  # else they say since when, and why, that version is served again
                standing.since, standing.reason = self._clock(), order.reason
            served = "" if standing.restores is None else f" Version {standing.restores} is served until it has passed."
            return f"Learning goes on.{served}" if wanted else "Learning is paused; what is served stays as it is."
        if order.action == "promote":
            self.publish_news()
            version = self._promote(name, order.reason)
            return f"Version {version} is good, and served."
        number = order.version if order.version is not None else standing.good
        if number is None:
            raise Refusal("no version of this scenario has been good yet")
        self._roll_back(name, self._version(name, number), learning=False, reason=order.reason)
        return f"Version {number} is served again; learning is paused until it is resumed."

    # Consolidation

    def _begin(self, order: Control) -> None:
        self._consolidating = order, self._learner.consolidate()

    def consolidate(self) -> bool:
        """Take a few steps of the consolidation that is under way; returns whether one is.

        Examples are learnt between, and whatever becomes worse is found and taken back by the gate as ever.
        """
        if self._consolidating is None:
            return False
        order, consolidation = self._consolidating
        if self._learner.advance_consolidation(consolidation, STEPS_AT_ONCE):
            self._consolidating = None
            detail = (
                f"Trunk and item vectors learnt {consolidation.steps} steps from replay alone; item vectors are of "
                f"generation {self._learner.generation}."
            )
            self.publish_news()
            self._finish(order, detail, "done", PAST_TENSE["consolidate"])
        return True

    def under_way(self) -> Control | None:
        """The order of a consolidation that is not done, for the checkpoint: after a restart it begins anew."""
        return self._consolidating[0] if self._consolidating else None

    # Both

    def _promote(self, name: str, reason: str) -> int:
        held = self._learner.promotion.standings[name].restores is not None
        version = self._learner.versions.promote(name)
        standing = self._learner.promotion.standings[name]
        standing.since, standing.reason = self._clock(), reason
        if held:
            self.publish_news()
        return version

    def _roll_back(self, name: str, version: Version, *, learning: bool, reason: str) -> None:
        checkpoint = read_checkpoint(self._folder(version))
        self._publish(self._learner.versions.roll_back(name, checkpoint, version.version, learning=learning))
        standing = self._learner.promotion.standings[name]
        standing.since, standing.reason = self._clock(), reason

    def _choices(self, name: str, good: int | None) -> list[Version]:
        """The good version, and behind it older ones, newest first."""
        return [each for each in self._of_this_lineage(name) if good is not None and each.version <= good]

    def _version(self, name: str, number: int) -> Version:
        kept = self._of_this_lineage(name)
        for version in kept:
            if version.version == number:
                return version
        choices = ", ".join(str(each.version) for each in kept) or "none"
        raise Refusal(f"version {number} of {name} is not kept; kept are {choices}")

    def _of_this_lineage(self, name: str) -> list[Version]:
        return [each for each in self._history.versions(name) if each.lineage == self._learner.run.lineage]

    def _folder(self, version: Version) -> Path:
        for checkpoint in self._store.checkpoints():
            if checkpoint.number == version.checkpoint:
                return Path(checkpoint.folder)
        raise Refusal(f"checkpoint {version.checkpoint}, which holds version {version.version}, is gone")

    def _good(self, name: str) -> int:
        good = self._learner.promotion.standings[name].good
        if good is None:
            raise Refusal(f"{name} has no good version")
        return good

    def _report(
        self,
        name: str,
        signal: str,
        status: str,
        severity: Severity,
        reason: str,
        action: str,
        **numbers: Any,
    ) -> DriftReport:
        now = self._clock()
        facts = {"value": None, "reference": None, "threshold": None, "window": 0, **numbers}
        return DriftReport(
            report_id=f"{self._learner.run.lineage}:{name}:{status}:{round(now * 1000)}",
            scenario=name,
            signal=signal,
            status=status,
            severity=severity,
            detected_at=say_time(now),
            action=action,
            reason=reason,
            **facts,
        )

    def say_stances(self) -> None:
        """Say how all scenarios stand, for status and dashboards."""
        rows = [
            {
                "scenario": name,
                "learning": "on" if each.learning else "paused",
                "restores": each.restores,
                "good": each.good,
                "since": each.since,
                "reason": each.reason,
                "pairs": each.test.pairs,
                "difference": each.test.difference,
            }
            for name, each in self._learner.promotion.standings.items()
        ]
        try:
            self._history.save_stances(rows)
        except DBAPIError as error:
            log.warning("cannot say how the scenarios stand: %s", str(error.orig).splitlines()[0])


def _points(difference: float) -> str:
    return SIGNALS["recall@10"].say_change(abs(difference))


def _nothing(_connection: Connection) -> None:
    """No effect beside the checkpoint."""
