"""The condition of what GATEWAY stands on: database, Kafka, SERVE and LEARN, looked at every two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
from sqlalchemy.exc import DBAPIError

from schemas.times import say_length, say_time
from streams import metrics
from streams.patience import reason_of
from streams.status import SILENT_SECONDS, ProcessStatus

Part = Literal["database", "kafka", "serve", "learn"]

LOOK_SECONDS = 2.0

WHAT_TO_DO: Mapping[Part, str] = {
    "database": (
        "Look whether the database runs and whether its disk is full. SERVE and LEARN wait for it; events wait in "
        "Kafka, and are worked once it is back."
    ),
    "kafka": "Look whether the broker runs. SERVE and LEARN go on by themselves once it is back.",
    "serve": "Look whether SERVE runs, and read its log. Events and requests wait in Kafka, and none is lost.",
    "learn": "Look whether LEARN runs, and read its log. Lists are made with the last good weights meanwhile.",
}


class Trouble(msgspec.Struct, frozen=True):
    """A part that does not do its work.

    Attributes:
        since: epoch seconds.
        says: what is the matter, in a sentence; `what_to_do`: what helps.
    """

    part: Part
    since: float
    says: str
    what_to_do: str

    @property
    def sentence(self) -> str:
        return f"{self.says} since {say_time(self.since)}. {self.what_to_do}"


class Condition:
    """Looks at each part on a thread of its own, and remembers since when something is wrong."""

    def __init__(
        self,
        ask_database: Callable[[], Mapping[str, ProcessStatus]],
        ask_broker: Callable[[], str | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Put together; nothing is looked at before `start` or `look`.

        Args:
            ask_database: how SERVE and LEARN were heard last; a DBAPIError is the database's trouble.
            ask_broker: None, or why Kafka does not answer.
        """
        self._ask_database = ask_database
        self._ask_broker = ask_broker
        self._clock = clock
        self._troubles: dict[Part, Trouble] = {}
        self._judged_from = clock() + SILENT_SECONDS
        self._looking = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gateway-condition", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()

    def of(self, part: Part) -> Trouble | None:
        return self._troubles.get(part)

    @property
    def troubles(self) -> list[Trouble]:
        """As of the last look."""
        return list(self._troubles.values())

    def _run(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> list[Trouble]:
        """Ask every part now; waits for those that do not answer."""
        with self._looking:
            heard: Mapping[str, ProcessStatus] = {}
            try:
                heard = self._ask_database()
                self._set("database", None)
            except DBAPIError as error:
                self._set("database", f"The database does not answer ({reason_of(error)})")
            reason = self._ask_broker()
            self._set("kafka", None if reason is None else f"Kafka does not answer ({reason})")
            now = self._clock()
            if "database" in self._troubles or "kafka" in self._troubles:
                self._judged_from = now + SILENT_SECONDS  # nobody can say how they are without these two
            elif now >= self._judged_from:
                for part in ("serve", "learn"):
                    self._judge(part, heard[part])
            return self.troubles

    def _judge(self, part: Literal["serve", "learn"], process: ProcessStatus) -> None:
        if not process["silent"]:
            self._set(part, None)
            return
        age = process["model_age_seconds"]
        last = "" if part == "serve" or age is None else f"; lists are made with weights that are {say_length(age)} old"
        self._set(part, f"{part.upper()} says nothing{last}", process["heard_at"])

    def _set(self, part: Part, says: str | None, since: float | None = None) -> None:
        metrics.part_up.labels(part).set(says is None)
        before = self._troubles
        others = {name: each for name, each in before.items() if name != part}
        if says is not None:
            began = before[part].since if part in before else since or self._clock()
            others[part] = Trouble(part, began, says, WHAT_TO_DO[part])
        self._troubles = others
