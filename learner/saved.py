"""Saved tables: what was saved may be taken over if it fits what stands there."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class StateMismatch(ValueError):
    """A saved table that does not fit.

    Attributes:
        table, field: what was to be loaded.
        value: what it is.
        allowed: what it must be.
    """

    def __init__(self, table: str, field: str, value: str, allowed: str) -> None:
        super().__init__(f"saved {table}: {field} is {value}; it must be {allowed}")
        self.table = table
        self.field = field
        self.value = value
        self.allowed = allowed


def taken_over(
    table: str, state: Mapping[str, Tensor], present: Mapping[str, Tensor], rows: Mapping[str, int]
) -> dict[str, Tensor]:
    """Copies of saved tensors, on the device of those that stand there now.

    Args:
        table: its name, for the message.
        present: what stands there now; the saved ones must be of the same type and shape, but for the number of rows.
        rows: for each tensor the dimension that counts rows, if one does.

    Raises:
        StateMismatch: a tensor is missing or has another shape or type, or they disagree on the number of rows.
    """
    taken: dict[str, Tensor] = {}
    count: int | None = None
    for field, old in present.items():
        new = state.get(field)
        if new is None:
            raise StateMismatch(table, field, "missing", f"{old.dtype} of shape {tuple(old.shape)}")
        shape, dimension = list(old.shape), rows.get(field)
        if dimension is not None:
            shape[dimension] = new.shape[dimension] if count is None and new.ndim == old.ndim else count or 0
        if new.dtype != old.dtype or list(new.shape) != shape:
            raise StateMismatch(
                table, field, f"{new.dtype} of shape {tuple(new.shape)}", f"{old.dtype} of shape {tuple(shape)}"
            )
        count = count if dimension is None else shape[dimension]
        taken[field] = new.to(old.device, copy=True)
    return taken
