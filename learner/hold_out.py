"""The hold-out: which examples of a stream become questions of a probe set, from which nothing learns."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from torch import Tensor

from schemas.packed import holds
from schemas.records import Example

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
