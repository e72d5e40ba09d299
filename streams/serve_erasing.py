"""What SERVE does for an erasure: the user's state goes with the record's offset, then from the database's files."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy.engine import Connection

from schemas.decoding import Invalid
from schemas.failpoints import failpoint
from schemas.packed import TIME_BYTES
from schemas.reports import Erasure, decode_erasure
from schemas.topics import Topics
from streams import metrics
from streams.erasures import Erasures
from streams.outbox import Outbox
from streams.receipts import is_erased, named_in
from streams.store import Store
from streams.transport import Part
from streams.users import read_user
from streams.worker import Commit

log = logging.getLogger(__name__)


def name_of(wish: Erasure, record: Any) -> str:
    """The id of an erasure: as its record says, or that record's place."""
    return wish.erasure_id or f"{record.topic}:{record.partition}:{record.offset}"


def read_wish(record: Any) -> Erasure | Invalid:
    """A record of the erasures topic."""
    if record.value is None:
        return Invalid("null", "an erasure needs a value")
    return decode_erasure(record.value, record.timestamp / 1000, Counter())


class ServeErasing:
    """Carries erasures out where SERVE holds anything of users."""

    def __init__(self, store: Store, outbox: Outbox, topics: Topics) -> None:
        self._store = store
        self._erasures = Erasures(store.engine)
        self._outbox = outbox
        self._topics = topics
        # Whose bytes are to be looked for in the database's files; None is anybody's, after a restart.
        self._unscrubbed: dict[str, str | None] = {}

    def resume(self) -> None:
        """Erasures are ours to carry out now, and those to be finished that others have begun."""
        for erasure_id in self._erasures.unfinished("serve"):
            self._unscrubbed.setdefault(erasure_id, None)

    def work(self, parts: Sequence[Part], commit: Commit) -> None:
        """1. decode, 2. put aside what is no erasure, 3. delete and commit with the offsets; `finish` does the rest."""
        wishes: list[tuple[str, Erasure]] = []
        tallies: Counter[tuple[int, str]] = Counter()
        for part in parts:
            for record in part.records:
                wish = read_wish(record)
                if isinstance(wish, Erasure):
                    wishes.append((name_of(wish, record), wish))
                    tallies[part.partition, "erasures"] += 1
                    continue
                if self.are_past([record])[0]:
                    tallies[part.partition, "erased"] += 1
                    continue
                self._outbox.put_aside(self._topics.dead_letters, record, part.topic, wish)
                tallies[part.partition, f"dead:{wish.code}"] += 1
        self._outbox.flush()
        removed: Counter[str] = Counter()

        def effect(connection: Connection) -> None:
            removed.clear()
            for erasure_id, wish in wishes:
                removed.update(self._erase(connection, erasure_id, wish))
            self._store.add_tallies(connection, self._topics.erasures, tallies)
            failpoint("erasure.commit")

        commit(effect)
        failpoint("erasure.committed")
        metrics.count_batch({}, {self._topics.erasures: tallies})
        metrics.count_erased(removed)
        metrics.erasures.inc(len(wishes))
        for erasure_id, wish in wishes:
            self._unscrubbed[erasure_id] = wish.user_id
            log.info("erasure %s is carried out where users are kept", erasure_id)

    def _erase(self, connection: Connection, erasure_id: str, wish: Erasure) -> dict[str, int]:
        now = time.time()
        state = self._erasures.erase(connection, wish, now)
        user = None if state is None else read_user(state)
        counts = {
            "user states": int(user is not None),
            "history": len(user.times) // TIME_BYTES if user else 0,
            "lists": len(user.shown) if user else 0,
        }
        if self._erasures.begin(connection, erasure_id, "serve", wish, now):
            self._erasures.set_counts(connection, erasure_id, counts)
        return counts

    def are_past(self, records: Sequence[Any]) -> list[bool]:
        """Of each record whether it names somebody who was erased after it was written, as far as its bytes can say."""
        if not records or not self._erasures.sequence():
            return [False] * len(records)
        named = [named_in(record.key, record.value) for record in records]
        erased = self._erasures.of(set().union(*named))
        times = [record.timestamp / 1000 for record in records]
        return [is_erased(users, at, erased) for users, at in zip(named, times, strict=True)]

    def finish(self) -> None:
        """Have the database's files hold nothing of those who were erased; what cannot be done yet is tried again."""
        waiting = dict(self._unscrubbed)
        if not waiting:
            return
        named = [user_id for user_id in waiting.values() if user_id is not None]
        if not self._erasures.scrub(named if len(named) == len(waiting) else None):
            return
        self._erasures.finish(waiting, "serve")
        for erasure_id in waiting:
            self._unscrubbed.pop(erasure_id, None)
