"""Users: what is remembered of each, and how an event changes it."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import msgspec
from sqlalchemy.engine import Connection

from schemas.decoding import UNREADABLE
from schemas.events import Event
from schemas.packed import END, TIME_BYTES, holds, pack, pack_time, without, without_oldest
from schemas.records import Example, OtherVersion
from schemas.settings import Serve
from streams.erasures import Erased, Erasures
from streams.store import Conflict, Store, StoredUser

HASH_BYTES = 8

SHOWN_KEPT = 20
"""Items of the newest list that are remembered, from its top."""
CLICKS_KEPT = 50
"""Newest clicks of a user that are remembered, so that none of them counts twice."""


class Shown(msgspec.Struct, array_like=True):
    """The newest list of a scenario that a user was sent.

    Attributes:
        at: epoch seconds, by the clock of whatever caused it.
        items: of its top, best first, packed.
        passed: characters of `items` up to the last one that was chosen: what stands there is passed over no more.
    """

    recommendation_id: str
    at: float
    items: str
    passed: int = 0


class User(msgspec.Struct, array_like=True):
    """One user's state; lists are as `schemas.packed` packs them.

    Attributes:
        items: what the user acted on, oldest first; `times` (epoch seconds) runs beside it.
        used: for each scenario the items acted on, oldest first, but those that the user dislikes.
        disliked: for each scenario the items that the user dislikes, oldest first.
        event_ids: hashes of the newest event ids, oldest first, 8 bytes each.
        shown: for each scenario the newest list.
        clicked: hashes of the newest clicks, of list and item, oldest first, 8 bytes each.
        since: time of the first event, epoch seconds; infinite before it.
    """

    items: str = ""
    times: bytes = b""
    used: dict[str, str] = msgspec.field(default_factory=dict)
    disliked: dict[str, str] = msgspec.field(default_factory=dict)
    event_ids: bytes = b""
    shown: dict[str, Shown] = msgspec.field(default_factory=dict)
    clicked: bytes = b""
    since: float = math.inf

    def excluded(self, scenario: str, repeat: bool) -> str:
        """What must not be recommended in a scenario: all that was acted on, or only the disliked where repeats are."""
        disliked = self.disliked.get(scenario, "")
        return disliked if repeat else self.used.get(scenario, "") + disliked

    def may_return(self, scenario: str, repeat: bool) -> str:
        """What the user acted on in a scenario and may be shown again there: nothing unless repeats are."""
        return self.used.get(scenario, "") if repeat else ""

    def has_event_id(self, event_id: str) -> bool:
        return _has(self.event_ids, _hash(event_id))

    def apply(self, event: Event, scenario: str, limits: Serve, length: int) -> None:
        """Take an event in; a dislike is remembered, but is no taste to recommend from.

        Args:
            length: of the history that is kept.
        """
        self.since = min(self.since, event.time)
        used, disliked = self.used.get(scenario, ""), self.disliked.get(scenario, "")
        if event.weight < 0:
            self.disliked[scenario] = _with(disliked, event.item_id, limits.seen)
            self.used[scenario] = without(used, event.item_id)
        else:
            if shown := self.shown.get(scenario):
                shown.passed = max(shown.passed, _end(shown.items, event.item_id))
            if not (disliked and holds(disliked, event.item_id)):
                self.used[scenario] = _with(used, event.item_id, limits.seen)
            self.items += event.item_id + END
            self.times += pack_time(event.time)
            while len(self.times) > length * TIME_BYTES:
                self.items = without_oldest(self.items)
                self.times = self.times[TIME_BYTES:]
        if event.event_id is not None:
            self.event_ids = (self.event_ids + _hash(event.event_id))[-limits.event_ids * HASH_BYTES :]

    def passed_over(self, event: Event, scenario: str) -> str:
        """What stood above the item in the list that it was chosen from: the user saw it, and went on.

        Whether anything of a list was seen that nothing was chosen from, nobody knows (Joachims et al. 2005,
        Accurately interpreting clickthrough data as implicit feedback, https://doi.org/10.1145/1076034.1076063).
        """
        shown = self.shown.get(scenario)
        if event.weight <= 0 or shown is None:
            return ""
        end = _end(shown.items, event.item_id)
        return shown.items[shown.passed : max(shown.passed, end - len(event.item_id) - len(END))]

    def show(self, scenario: str, recommendation_id: str, at: float, items: Iterable[str]) -> None:
        """Remember the list that the user is sent, in place of the one before; `items` are best first."""
        self.shown[scenario] = Shown(recommendation_id, at, pack(islice(items, SHOWN_KEPT)))

    def listed(self, event: Event, scenario: str, window: float) -> str | None:
        """The newest list that the user was sent in the scenario, if it held the item and is not older than `window`.

        That list was sent before the event was worked, whatever the clocks of those who date lists and events say.
        """
        shown = self.shown.get(scenario)
        if shown is None or abs(event.time - shown.at) > window or not holds(shown.items, event.item_id):
            return None
        return shown.recommendation_id

    def click(self, event: Event, scenario: str, named: str | None, window: float) -> bool:
        """Whether an event is a click on a list, and the first on this item of it; it is remembered as one.

        Args:
            named: the recommendation that the event says it is for, if it says so; else it is that of `listed`.
            window: seconds, as of `listed`.
        """
        named = named or self.listed(event, scenario, window)
        if event.weight <= 0 or named is None:
            return False
        click = _hash(named + END + event.item_id)
        if _has(self.clicked, click):
            return False
        self.clicked = (self.clicked + click)[-CLICKS_KEPT * HASH_BYTES :]
        return True

    def example(
        self, event: Event, scenario: str, partition: int, offset: int, *, repeat: bool, impressions: bool = False
    ) -> Example:
        """The event as a question: the history as it stands now, before the event is applied.

        Args:
            repeat: whether what was acted on may return in the scenario.
            impressions: whether the scenario learns from what was passed over.
        """
        return Example(
            partition=partition,
            offset=offset,
            user_id=event.user_id,
            time=event.time,
            event=event.event,
            item_id=event.item_id,
            weight=event.weight,
            history=self.items,
            history_times=self.times,
            excluded=self.excluded(scenario, repeat),
            recommendation_id=event.recommendation_id,
            passed_over=self.passed_over(event, scenario) if impressions else "",
            used=self.may_return(scenario, repeat),
            user_since=min(self.since, event.time),
        )


def _with(packed: str, name: str, limit: int) -> str:
    """The list with an id at its end, if it does not hold it yet; the oldest gives way where it is full."""
    if holds(packed, name):
        return packed
    packed += name + END
    while packed.count(END) > limit:
        packed = without_oldest(packed)
    return packed


def _end(packed: str, name: str) -> int:
    """Where an id of the list ends in it, in characters; 0 where it does not hold it."""
    at = (END + packed).find(END + name + END)
    return 0 if at < 0 else at + len(name) + len(END)


def _has(hashes: bytes, wanted: bytes) -> bool:
    at = hashes.find(wanted)
    while at >= 0 and at % HASH_BYTES:
        at = hashes.find(wanted, at + 1)
    return at >= 0


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(User).decode


def read_user(state: bytes) -> User:
    """A state as it is stored.

    Raises:
        OtherVersion: another version of Headstream wrote it.
    """
    try:
        return _decode(state)
    except UNREADABLE as error:
        raise OtherVersion("the state of a user", str(error)) from None


class UserCache:
    """A bounded cache of user states before the store.

    A batch changes the cached objects in place; one that fails must `clear` the cache, so that the next attempt begins
    from what the store holds.
    """

    def __init__(self, store: Store, capacity: int) -> None:
        self._store = store
        self._erasures = Erasures(store.engine)
        self._capacity = capacity
        self._users: OrderedDict[str, User] = OrderedDict()
        self._versions: dict[str, int] = {}
        self._erased: dict[str, Erased] = {}
        self._sequence = 0

    def __len__(self) -> int:
        return len(self._users)

    def load(self, user_ids: Iterable[str]) -> dict[str, User]:
        """The states of these users; one never seen, or erased since, has an empty one.

        Raises:
            OtherVersion: a stored state cannot be read.
        """
        self.heed()
        wanted = dict.fromkeys(user_ids)
        self._drop_stale([name for name in wanted if name in self._users])
        missing = [name for name in wanted if name not in self._users]
        if missing:
            found = self._store.load_users(missing)
            erased = self._erasures.of(missing) if self._sequence else {}
            for name in missing:
                stored = found.get(name)
                self._users[name] = read_user(stored.state) if stored else User()
                self._versions[name] = stored.version if stored else 0
            self._erased |= erased
        return {name: self._users[name] for name in wanted}

    def _drop_stale(self, names: Sequence[str]) -> None:
        """Forget who was changed elsewhere: the commit would refuse it, but what is published goes out before that."""
        versions = self._store.user_versions(names)
        for name in names:
            if versions.get(name, 0) != self._versions[name]:
                del self._users[name], self._versions[name]
                self._erased.pop(name, None)

    def heed(self) -> None:
        """Forget everyone if somebody was erased since they were read."""
        sequence = self._erasures.sequence()
        if sequence != self._sequence:
            self.clear()
            self._sequence = sequence

    def is_past(self, user_id: str, at: float) -> bool:
        """Whether what happened at this time (epoch seconds) to a user, who was loaded, is erased."""
        return user_id in self._erased and at <= self._erased[user_id].until

    def has_row(self, user_id: str) -> bool:
        """Whether the store holds a state of this user, who was loaded."""
        return self._versions[user_id] > 0

    def rows(self, users: Mapping[str, User]) -> dict[str, StoredUser]:
        """These states as rows to write, each one version above the row that it was read from."""
        return {name: StoredUser(_encode(user), self._version(name) + 1) for name, user in users.items()}

    def check(self, connection: Connection) -> None:
        """After the rows were written: nobody was erased since they were read.

        Raises:
            Conflict: somebody was; the caller's transaction must be rolled back.
        """
        if self._erasures.sequence(connection) != self._sequence:
            raise Conflict("a user was erased since the users of this batch were read")

    def keep(self, rows: Mapping[str, StoredUser]) -> None:
        """These rows were committed; what has not been used for longest makes room."""
        for name, row in rows.items():
            self._versions[name] = row.version
            self._users.move_to_end(name)
        while len(self._users) > self._capacity:
            name, _ = self._users.popitem(last=False)
            del self._versions[name]
            self._erased.pop(name, None)

    def clear(self) -> None:
        """Read everyone anew: a batch failed, or another process has changed some of them."""
        self._users.clear()
        self._versions.clear()
        self._erased.clear()

    def _version(self, name: str) -> int:
        """That the next one is counted from."""
        if self._versions[name] == 0 and name in self._erased:
            return self._erased[name].version
        return self._versions[name]
