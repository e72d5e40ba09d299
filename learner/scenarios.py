"""Scenarios come and go: what a checkpoint of other scenarios gives to those of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def carry_over(
    saved: Mapping[str, Tensor],
    blank: Mapping[str, Tensor],
    by_scenario: Mapping[str, int],
    before: Sequence[str],
    now: Sequence[str],
) -> dict[str, Tensor]:
    """Saved tensors, for the scenarios of now.

    A scenario that stays keeps what was saved of it, one that is gone leaves nothing, and a new one begins as a learner
    that has learnt nothing does; all that scenarios share stays.

    Args:
        saved: by name.
        blank: of a learner of the present scenarios that has learnt nothing; where it has no tensor of this name and of
            as many rows, a new scenario begins with zeros.
        by_scenario: the tensors that have a part for each scenario, and the dimension that counts them.
        before: the scenarios that `saved` is of.
        now: those that are wanted.
    """
    carried = dict(saved)
    for name, dimension in by_scenario.items():
        if name not in saved:
            continue
        shape = list(saved[name].shape)
        shape[dimension] = len(now)
        start = blank.get(name)
        fits = start is not None and list(start.shape) == shape
        tensor = start.clone() if start is not None and fits else saved[name].new_zeros(shape)
        for number, scenario in enumerate(now):
            if scenario in before:
                tensor.select(dimension, number).copy_(saved[name].select(dimension, before.index(scenario)))
        carried[name] = tensor
    return carried
