"""Erased users: what is remembered so that nothing of their past is learnt any more, and checkpoints without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec
from safetensors import SafetensorError, safe_open
from torch import Tensor

from learner.checkpoint import TENSORS, Checkpoint, DamagedCheckpoint
from learner.probes import Probes
from learner.replay import Replay, user_hash
from schemas.records import Example

REPLAY, PROBES, SHARES = "replay/", "probes/", "fair_share/"
USER = "user"


class Forgotten(NamedTuple):
    """How many rows of a user were dropped."""

    replay: int
    probes: int


class Gone(msgspec.Struct):
    """One erasure: examples that were made of anything up to `until` (epoch seconds) are not learnt.

    Attributes:
        name: of the erasure.
        refused: examples that were passed over for it.
    """

    until: float
    name: str
    refused: int = 0


class ErasedUsers:
    """Who was erased of late, by a hash of the user and the run of learning, so that it means nothing elsewhere."""

    def __init__(self, gone: Mapping[str, Gone] | None = None) -> None:
        self.gone: dict[str, Gone] = dict(gone or {})

    def add(self, user_id: str, lineage: str, until: float, name: str) -> None:
        key = _key(user_id, lineage)
        known = self.gone.get(key)
        if known is None or known.name != name:
            self.gone[key] = Gone(max(until, known.until if known else until), name)

    def refuses(self, example: Example, lineage: str) -> bool:
        """Whether an example must not be learnt; it is counted then.

        Its history holds what the user did since `user_since`, and it is itself no older: if that lies after the
        erasure, so does all of it.
        """
        if not self.gone:
            return False
        gone = self.gone.get(_key(example.user_id, lineage))
        if gone is None or example.user_since > gone.until:
            return False
        gone.refused += 1
        return True

    def prune(self, before: float) -> None:
        """Forget those whose examples cannot be in any topic any more."""
        self.gone = {key: each for key, each in self.gone.items() if each.until >= before}


def _key(user_id: str, lineage: str) -> str:
    return blake2b(user_id.encode(), digest_size=16, key=lineage.encode()[:64]).hexdigest()


def holds_user(folder: Path, user_id: str) -> bool:
    """Whether a checkpoint holds rows of a user; reads no more of it than it must.

    Raises:
        DamagedCheckpoint: its tensors cannot be read.
    """
    user = user_hash(user_id)
    try:
        with safe_open(folder / TENSORS, framework="pt") as tensors:
            return any(bool((tensors.get_tensor(name) == user).any()) for name in _of_users(tensors.keys()))
    except (OSError, SafetensorError) as error:
        raise DamagedCheckpoint(folder / TENSORS, f"cannot be read ({error})") from None


def without_user(checkpoint: Checkpoint, user_id: str) -> Checkpoint:
    """The same checkpoint less all rows of a user."""
    user, tensors = user_hash(user_id), checkpoint.tensors
    state = _part(tensors, REPLAY)
    scenarios, rows, length = state["history"].shape
    replay = Replay(scenarios, rows, length)
    replay.load(state)
    replay.forget_user(user)
    progress = checkpoint.facts["progress"]
    probes = Probes(list(progress) if isinstance(progress, dict) else [])
    probes.load(_part(tensors, PROBES))
    probes.forget_user(user)
    kept = {name: each for name, each in tensors.items() if not name.startswith((REPLAY, PROBES))}
    kept |= {REPLAY + name: each for name, each in replay.state().items()}
    kept[SHARES + USER] = kept[SHARES + USER].masked_fill(kept[SHARES + USER] == user, 0)
    return Checkpoint(kept | {PROBES + name: each for name, each in probes.state().items()}, checkpoint.facts)


def _of_users(names: Iterable[str]) -> list[str]:
    whole = (REPLAY + USER, SHARES + USER)
    return [name for name in names if name in whole or (name.startswith(PROBES) and name.endswith(f".{USER}"))]


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): each for name, each in tensors.items() if name.startswith(prefix)}
