"""Versions: which good versions of a scenario are kept to roll back to, and the checkpoints that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from schemas.tables import Version


def to_drop(versions: Sequence[Version], now: float, most: int, needed: Iterable[int] = ()) -> list[Version]:
    """Of one scenario's versions those to be dropped, so that at most so many stay.

    The younger they are the closer those that stay lie together: what was good a minute ago, some minutes, an hour and
    a day ago can all be gone back to. Again and again the one goes whose neighbours are closest, by the ratio of their
    ages; the newest and the oldest stay longest.

    Args:
        versions: of one scenario, in any order.
        now: epoch seconds.
        needed: versions that must stay.
    """
    kept, dropped = sorted(versions, key=lambda each: each.made_at), []
    fixed = set(needed)

    def crowding(at: int) -> float:
        younger, older = (max(1.0, now - kept[neighbour].made_at) for neighbour in (at + 1, at - 1))
        return older / younger

    while len(kept) > most:
        inner = [at for at in range(1, len(kept) - 1) if kept[at].version not in fixed]
        if inner:
            at = min(inner, key=crowding)
        else:
            outer = [at for at, each in enumerate(kept[:-1]) if each.version not in fixed]
            if not outer:
                break
            at = outer[0]
        dropped.append(kept.pop(at))
    return dropped
