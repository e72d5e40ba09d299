"""Progress: how far learning has come in one scenario, and how well it went."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from schemas.records import Example


class Progress(msgspec.Struct, kw_only=True):
    """What is counted of a scenario.

    Attributes:
        clock: uses counted; the scenario's popularity fades with it.
        through: for each partition of the events topic the last offset that was learnt.
        examples: learnt from.
        tested: of these, how many were a test.
        hits: of these, how many had their item among the first ten.
        recent: the newest tests, oldest first: 1 for a hit.
        version: of the newest publication.
        oldest, newest: times of the oldest and the newest example, epoch seconds; 0 before the first.
    """

    clock: float = 0.0
    through: dict[int, int] = {}
    examples: int = 0
    tested: int = 0
    hits: int = 0
    recent: list[int] = []
    version: int = 0
    oldest: float = 0.0
    newest: float = 0.0

    @property
    def recall(self) -> float | None:
        """Prequential recall@10 of the newest tests; None before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else None

    def unlearnt(self, examples: Sequence[Example]) -> list[Example]:
        """Those that were not learnt before, by their source partition and offset."""
        through = dict(self.through)
        new = []
        for example in examples:
            if example.offset > through.get(example.partition, -1):
                through[example.partition] = example.offset
                new.append(example)
        return new

    def mark(self, examples: Sequence[Example]) -> None:
        """These are learnt."""
        for example in examples:
            self.through[example.partition] = example.offset
            self.oldest = min(self.oldest or example.time, example.time)
            self.newest = max(self.newest, example.time)
        self.examples += len(examples)

    def note(self, hits: Sequence[bool], window: int) -> None:
        """So these tests went; the newest `window` stay in `recent`."""
        self.tested += len(hits)
        self.hits += sum(hits)
        self.recent = [*self.recent, *map(int, hits)][-window:]

    def begin_stream(self) -> None:
        """Call what was learnt so far the past: no offset, count or recall of it is part of the stream that begins."""
        self.through, self.examples, self.tested, self.hits, self.recent = {}, 0, 0, 0, []

    def succeed(self, earlier: Progress) -> None:
        """Take another's place in its stream: what it has learnt from is past here too, and its counts go on."""
        self.through, self.examples, self.version = dict(earlier.through), earlier.examples, earlier.version
