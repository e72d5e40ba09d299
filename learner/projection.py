"""The projection: from a text encoder's vectors to item vectors of the model's own length."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

FEWEST_TEXTS = 64
"""So many texts must be known before their principal directions mean anything."""

ITEM_NORM = 2.0
"""Usual length of an item vector at the start: queries are about 1 long, so scores spread over a few units."""


class Projection:
    """text → turn · scale · basis (text - mean). Random and orthonormal until it is fitted, once.

    From then on only a consolidation moves it, by turning what it projects: each is a new generation.

    Attributes:
        fitted: whether the directions are those of real texts.
        turn: (dimension, dimension); the identity at first.
        generation: how often it was turned.
    """

    def __init__(
        self, encoder_dimension: int, dimension: int, generator: torch.Generator, device: torch.device
    ) -> None:
        self._directions = min(dimension, encoder_dimension)
        self._dimension = dimension
        random = torch.randn(encoder_dimension, self._directions, generator=generator)
        self.basis = torch.linalg.qr(random).Q.T.contiguous().to(device)  # (directions, encoder_dimension)
        self.mean = torch.zeros(encoder_dimension, device=device)
        self.scale = torch.tensor(ITEM_NORM * (encoder_dimension / self._directions) ** 0.5, device=device)
        self.fitted = False
        self.turn = torch.eye(dimension, device=device)
        self.generation = 0

    def turn_by(self, turn: Tensor) -> None:
        """Turn what is projected from now on, in addition; (dimension, dimension)."""
        self.turn = turn @ self.turn
        self.generation += 1

    def apply(self, texts: Tensor) -> Tensor:
        """Project; a zero vector (no text) stays zero. (n, encoder_dimension) → (n, dimension)."""
        told = (texts != 0).any(dim=1, keepdim=True)
        projected = (texts - self.mean) @ self.basis.T * self.scale * told
        projected = torch.nn.functional.pad(projected, (0, self._dimension - self._directions))
        return projected if self.generation == 0 else projected @ self.turn.T

    def fit(self, texts: Tensor) -> bool:
        """Take the principal directions of these texts as the basis.

        Args:
            texts: (n, encoder_dimension); zero vectors are passed over.

        Returns:
            Whether it did: not with fewer than `FEWEST_TEXTS`.
        """
        told = texts[(texts != 0).any(dim=1)]
        if len(told) < FEWEST_TEXTS:
            return False
        mean = told.mean(0)
        # In float64 on the CPU: the same texts give the same basis everywhere.
        spread = (told - mean).double().cpu()
        vectors = torch.linalg.eigh(spread.T @ spread).eigenvectors  # ascending
        # Directions in which the texts do not differ are eigenvectors too: the basis is complete and orthonormal.
        basis = vectors.flip(1)[:, : self._directions].T
        basis = basis * basis.gather(1, basis.abs().argmax(1, keepdim=True)).sign()
        self.basis = basis.float().contiguous().to(texts.device)
        self.mean = mean
        norm = (spread @ basis.T).norm(dim=1).mean().clamp_min(1e-6)
        self.scale = (ITEM_NORM / norm).float().to(texts.device)
        self.fitted = True
        return True

    def state(self) -> dict[str, Tensor]:
        return {
            "basis": self.basis,
            "mean": self.mean,
            "scale": self.scale,
            "fitted": torch.tensor(self.fitted),
            "turn": self.turn,
            "generation": torch.tensor(self.generation),
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        device = self.basis.device
        self.basis, self.mean = state["basis"].to(device), state["mean"].to(device)
        self.scale, self.fitted = state["scale"].to(device), bool(state["fitted"])
        self.turn, self.generation = state["turn"].to(device), int(state["generation"])
