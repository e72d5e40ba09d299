"""What the texts of items contribute to their vectors, and how that changes when a text or the projection does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from learner.items import ItemTable
from learner.projection import Projection

NO_SHIFT = 1e-4
"""Smaller ones are rounding."""

ENOUGH_TEXTS = 20_000
"""Their principal directions are those of any number of texts; what is kept until then is bounded by it."""


class ItemTexts:
    """An item's vector is its projected text plus what was learnt of it; this owns the first part.

    The texts themselves are kept only until the projection is settled.
    """

    def __init__(
        self,
        projection: Projection,
        table: ItemTable,
        on_shift: Callable[[Tensor, Tensor], None] = lambda _rows, _shifts: None,
    ) -> None:
        """Know no text yet.

        Args:
            on_shift: told of the rows (n,) whose vectors are about to change with their texts, and by what
                (n, dimension).
        """
        self._projection = projection
        self._table = table
        self._projected = torch.zeros_like(table.vectors)
        self._texts: dict[int, Tensor] = {}
        self._settled = False
        self._on_shift = on_shift

    def put(self, rows: Sequence[int], texts: Tensor) -> bool:
        """Take these texts for these items, new or changed; what was learnt of them stays.

        Args:
            rows: each once.
            texts: a zero vector is no text, and so is one that is not finite; (n, encoder_dimension).

        Returns:
            Whether the vectors of other items changed too: the projection settles once there are `ENOUGH_TEXTS`.
        """
        texts = texts.where(texts.isfinite().all(dim=1, keepdim=True), 0.0)
        if not self._settled:
            self._texts.update(zip(rows, texts.clone(), strict=True))
        self._replace(rows, texts)
        return len(self._texts) >= ENOUGH_TEXTS and self.settle()

    def settle(self) -> bool:
        """Fit the projection to the texts known by now, once and for all.

        Returns:
            Whether vectors changed by that.
        """
        if self._settled:
            return False
        rows, texts = list(self._texts), list(self._texts.values())
        self._settled, self._texts = True, {}
        if not texts or not self._projection.fit(torch.stack(texts)):
            return False
        self._replace(rows, torch.stack(texts))
        return True

    def forget(self, row: int) -> None:
        """The item is gone."""
        self._texts.pop(row, None)
        if row < len(self._projected):
            self._projected[row] = 0.0

    def projected(self, rows: Tensor) -> Tensor:
        """What the texts of items contribute to their vectors; (n,) → (n, dimension)."""
        found = self._projected.new_zeros(len(rows), self._projected.shape[1])
        known = rows < len(self._projected)
        found[known] = self._projected[rows[known]]
        return found

    def turn(self, rows: Tensor, turn: Tensor, stay: Tensor) -> Tensor:
        """The projection has turned: the texts of items lie elsewhere, and so do the items, but for some that stay.

        Args:
            rows: each once; (n,), int64.
            turn: (dimension, dimension).
            stay: rows of items that are where they are for other reasons; (m,), int64.

        Returns:
            The rows of the items that have moved; (k,), int64.
        """
        shifts = self._projected[rows] @ turn.T - self._projected[rows]
        self._projected[rows] += shifts
        moving = ~torch.isin(rows, stay)
        moved: Tensor = rows[moving]
        self._table.vectors[moved] += shifts[moving]
        return moved

    def shifts(self, rows: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """By how much items lie elsewhere than a checkpoint's tensors say because they have other texts now.

        That the projection has turned since is no such reason.

        Args:
            rows: (n,), int64.

        Returns:
            (n, dimension).
        """
        device = self._projected.device
        then, turned = tensors["texts/projected"].to(device)[rows], tensors["projection/turn"].to(device)
        since = torch.linalg.solve(turned.T, self._projection.turn.T)  # what then @ since is now
        shifts: Tensor = self.projected(rows) - then @ since
        return shifts.masked_fill_(shifts.abs() < NO_SHIFT, 0.0)

    def state(self) -> dict[str, Tensor]:
        known = {"rows": torch.tensor(list(self._texts), dtype=torch.long)}
        if self._texts:
            known["texts"] = torch.stack(list(self._texts.values()))
        return {"projected": self._projected, "settled": torch.tensor(self._settled), **known}

    def load(self, state: Mapping[str, Tensor]) -> None:
        device = self._projected.device
        self._projected = state["projected"].to(device, copy=True)
        self._settled = bool(state["settled"])
        rows = state["rows"].tolist()
        self._texts = dict(zip(rows, state["texts"].to(device), strict=True)) if rows else {}

    def _replace(self, rows: Sequence[int], texts: Tensor) -> None:
        missing = self._table.allocated - len(self._projected)
        if missing > 0:
            more = self._projected.new_zeros(missing, self._projected.shape[1])
            self._projected = torch.cat([self._projected, more])
        at = torch.tensor(rows, device=self._projected.device)
        projected = self._projection.apply(texts)
        shifts = projected - self._projected[at]
        self._on_shift(at, shifts)
        self._table.vectors[at] += shifts
        self._projected[at] = projected
