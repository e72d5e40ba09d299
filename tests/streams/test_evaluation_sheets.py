"""Figures that a report derives from others."""

from __future__ import annotations

import pytest

from streams.evaluation_sheets import mean_forgetting


def test_forgetting_is_the_mean_loss_since_each_block_but_the_last() -> None:
    assert mean_forgetting([[0.5, 0.0, 0.0], [0.4, 0.6, 0.0], [0.2, 0.7, 0.9]]) == pytest.approx(0.1)
    assert mean_forgetting([[0.5]]) is None
