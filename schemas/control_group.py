"""The control group of a scenario: who is shown what is popular, so that the model can be compared with it."""

from __future__ import annotations

import hashlib

HASH_BYTES = 8


def in_control_group(user_id: str, scenario: str, share: float) -> bool:
    """Whether a user is in the control group of a scenario; who is stays in it however the share grows.

    Anyone can work it out: the first eight bytes of BLAKE2b (digest of eight bytes) over the scenario's name, U+0000
    and the user's id in UTF-8 are a number, most significant byte first; over 2**64 it is below `share`.

    Args:
        share: of the users that the group is made of; `scenarios.NAME.control`.
    """
    if share <= 0:
        return False
    digest = hashlib.blake2b(f"{scenario}\0{user_id}".encode(), digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest) < share * float(1 << 8 * HASH_BYTES)
