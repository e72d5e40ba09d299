"""The hold-out: examples of a stream that nothing learns from become questions, which are asked again and again."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from learner.examiner import Examiner
from learner.forgetting import Forgetting
from learner.items import ItemTable
from learner.lessons import as_lessons
from learner.probes import Probes
from learner.replay import user_hash
from schemas.packed import holds
from schemas.records import Example
from schemas.settings import Learn

Placed = tuple[Example, int]
"""An example and the row of its item."""


def can_be_test(example: Example) -> bool:
    """Whether the item could have been shown, as far as the example says, and was wanted."""
    return example.weight >= 0 and not holds(example.excluded, example.item_id)


def is_drawn(example: Example, scenario: str, share: float, seed: int) -> bool:
    """Whether the example belongs to a share of its scenario's stream: its source says so, and nothing else."""
    source = f"{seed}:{scenario}:{example.partition}:{example.offset}"
    drawn = blake2b(source.encode(), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < share * 2**64


def divide(
    placed: Sequence[Placed], eligible: Tensor, room: int, scenario: str, share: float, seed: int
) -> tuple[list[Placed], list[Placed]]:
    """Examples of one scenario, in the order of the stream, into those that are held out and those that are learnt.

    Args:
        eligible: whether a row may be recommended in the scenario; (rows,), bool.
        room: so many are held out at most.
        share: of the stream that is drawn; what is drawn and cannot be a test is learnt.
    """
    held: list[Placed] = []
    learnt: list[Placed] = []
    for each in placed:
        example, row = each
        chosen = len(held) < room and is_drawn(example, scenario, share, seed) and can_be_test(example)
        (held if chosen and eligible[row] else learnt).append(each)
    return held, learnt


class HoldOut:
    """Holds a share of each scenario's examples out of learning, and tests on them how much is still known."""

    def __init__(
        self,
        table: ItemTable,
        probes: Probes,
        forgetting: Forgetting,
        examiner: Examiner,
        settings: Learn,
        history: int,
    ) -> None:
        """Put together.

        Args:
            probes: where examples go that are held out.
            forgetting: told what tests on them find.
            history: length of the histories.
        """
        self._table = table
        self._probes = probes
        self._forgetting = forgetting
        self._examiner = examiner
        self._settings = settings
        self._history = history

    def take(self, scenario: int, placed: Sequence[Placed]) -> Sequence[Placed]:
        """Test a share of the examples and keep it for the window's probe set; returns the others.

        No part learns from that share: neither weights nor replay, mixer or counters. Histories of later examples hold
        its items, as serving's do.
        """
        learn, name, learnt, start = self._settings, self._table.scenarios[scenario], [], 0
        course = self._forgetting.courses[name]
        for count in course.stretches(len(placed), learn.probe_window):
            some, start = placed[start : start + count], start + count
            key = (scenario, course.present)
            room = learn.probe_rows - self._probes.size(key)
            held, others = divide(some, self._table.eligible[scenario], room, name, learn.probe_share, learn.seed)
            learnt += others
            if held:
                lessons = as_lessons(self._table, scenario, held, self._history)
                self._examiner.test(scenario, lessons)
                self._probes.hold(key, lessons, [user_hash(example.user_id) for example, _ in held])
                course.hold([example.time for example, _ in held])
                self._merge_windows(scenario)
        return learnt

    def _merge_windows(self, scenario: int) -> None:
        """Let the neighbours that are to be one become one, if there are too many windows."""
        learn, name = self._settings, self._table.scenarios[scenario]
        course = self._forgetting.courses[name]
        while len(course.windows) > learn.probe_windows:
            older, newer = course.neighbours()
            drawn = torch.Generator().manual_seed(user_hash(f"{learn.seed}:{name}:{older}:{newer}") % 2**63)
            self._probes.merge((scenario, older), (scenario, newer), learn.probe_rows, drawn)
            course.merge(older, newer)

    def test(self, now: float) -> str | None:
        """Test one scenario on its probe sets, the one that has waited longest; returns its name, None if none has any.

        One at a time: all of them would keep those who wait for what is learnt waiting.

        Args:
            now: epoch seconds.
        """
        held = {self._table.scenarios[scenario] for scenario, _ in self._probes.keys}
        if not held:
            return None
        name = min(sorted(held), key=lambda each: self._forgetting.courses[each].last_test)
        scenario = self._table.scenarios.index(name)
        found = self._probes.test(lambda number, asked: {"served": self._examiner.rank(number, asked).rows}, scenario)
        recalls = {window: recall for (_, window), recall in found["served"].items()}
        sizes = {window: self._probes.size((scenario, window)) for window in recalls}
        self._forgetting.courses[name].add(now, recalls, sizes)
        return name
