"""What a learner says of itself in a checkpoint, beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from learner.checkpoint import CheckpointMismatch
from learner.erased import Gone
from learner.gate import Standing
from learner.mixer import FEATURES
from learner.monitor import MonitorState
from learner.progress import Progress
from schemas.records import OtherVersion
from schemas.settings import Settings

SIZES = ("encoder", "dimension", "history", "heads", "feedforward", "adapter_rank", "neighbours", "mixer_units")
"""Of the model: those that shape its tensors."""


def made_for(settings: Settings, encoder_dimension: int) -> dict[str, object]:
    """What a checkpoint must have been made with, to be gone on from."""
    return {
        "encoder_dimension": encoder_dimension,
        "mixer.features": list(FEATURES),
        "learn.replay_rows": settings.learn.replay_rows,
        **{f"model.{name}": getattr(settings.model, name) for name in SIZES},
    }


class Facts(msgspec.Struct, kw_only=True):
    """All that JSON can say of a learner.

    Attributes:
        made_for: settings that the tensors fit and no others.
        names: the item of each row.
        standings: how each scenario stands to its good version.
        extra: whatever was given to be kept.
        drift: what the monitor knows.
        erased: by a hash of the user, whose past must not be learnt.
        unlisted: items that have a row because events name them, and no record yet.
    """

    made_for: dict[str, object]
    names: list[str | None]
    clock: float
    progress: dict[str, Progress]
    lineage: str
    step: int
    skipped_steps: int
    left_out: int
    standings: dict[str, Standing]
    extra: dict[str, object]
    drift: MonitorState = msgspec.field(default_factory=MonitorState)
    erased: dict[str, Gone] = {}
    unlisted: list[str] = []

    @classmethod
    def read(cls, facts: Mapping[str, object], present: Mapping[str, object]) -> Facts:
        """Those of a checkpoint.

        Args:
            present: what `made_for` would be now.

        Raises:
            CheckpointMismatch: naming the first setting that has changed.
            OtherVersion: another version wrote them.
        """
        try:
            read = msgspec.convert(facts, cls, str_keys=True)
        except msgspec.ValidationError as error:
            raise OtherVersion("the checkpoint", str(error)) from None
        for field, value in present.items():
            if read.made_for.get(field) != value:
                raise CheckpointMismatch(field, read.made_for.get(field), value)
        return read

    @property
    def scenarios(self) -> list[str]:
        """In the order in which the tensors have them."""
        return list(self.progress)

    def new(self, scenarios: Sequence[str]) -> list[str]:
        """Those of these scenarios that the checkpoint knows nothing of."""
        return [name for name in scenarios if name not in self.progress]
