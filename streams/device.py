"""The device that learning runs on."""

from __future__ import annotations

import torch


def choose_device(name: str) -> torch.device:
    """What `learn.device` names; "auto" is CUDA where there is a GPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
