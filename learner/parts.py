"""Parts of a learner: all their tensors by name, to be saved, given back, and carried over to other scenarios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from learner.items import ItemTable
from learner.scenarios import carry_over

TABLE = "table"


class Part(Protocol):
    """What a checkpoint takes tensors from and gives them back to."""

    def state(self) -> dict[str, Tensor]: ...

    def load(self, state: Mapping[str, Tensor]) -> None: ...


class Divided(Part, Protocol):
    """A part that has tensors with a part for each scenario."""

    def by_scenario(self) -> dict[str, int]: ...


class Parts:
    """All that has tensors. A tensor's name is that of its part, a slash, and the one that the part gives it.

    Args:
        table: of the present scenarios.
        shared: parts whose tensors are of all scenarios together, or name the scenarios themselves.
        divided: parts some of whose tensors have a dimension that counts the scenarios.
    """

    def __init__(self, table: ItemTable, shared: Mapping[str, Part], divided: Mapping[str, Divided]) -> None:
        self._table = table
        self._divided = divided
        self._parts: dict[str, Part] = {**shared, **divided}

    def tensors(self) -> dict[str, Tensor]:
        """As they stand, not copied."""
        states = {TABLE: self._table.state(), **{name: part.state() for name, part in self._parts.items()}}
        return {f"{part}/{name}": tensor for part, state in states.items() for name, tensor in state.items()}

    def by_scenario(self) -> dict[str, int]:
        """Those of `tensors` that have a part for each scenario, and the dimension that counts them."""
        divided = {
            TABLE: self._table.by_scenario(),
            **{name: part.by_scenario() for name, part in self._divided.items()},
        }
        return {f"{part}/{name}": dimension for part, named in divided.items() for name, dimension in named.items()}

    def take_scenario(self, tensors: Mapping[str, Tensor], there: int, here: int) -> None:
        """Give one scenario what `tensors` hold of it, in all parts but the table; what they lack of it begins anew.

        Args:
            there, here: the scenario's number in `tensors` and in the parts.
        """
        for part, divided in self._divided.items():
            state = divided.state()
            for name, dimension in divided.by_scenario().items():
                taken, saved = state[name].clone(), tensors.get(f"{part}/{name}")
                place = taken.select(dimension, here)
                if saved is None:
                    place.zero_()
                else:
                    source = saved.select(dimension, there)
                    # A table may have grown by rows since.
                    fits = tuple(slice(0, min(*sizes)) for sizes in zip(place.shape, source.shape, strict=True))
                    place.zero_()[fits] = source[fits].to(place.device)
                state[name] = taken
            divided.load(state)

    def load(self, tensors: Mapping[str, Tensor], items: Sequence[str | None], scenarios: Sequence[str]) -> None:
        """Become what `tensors` were taken from, as far as it is of the present scenarios.

        Args:
            items: the item of each row.
            scenarios: that the tensors are of.

        Raises:
            StateMismatch: the tensors are those of another version of Headstream.
        """
        if list(scenarios) != list(self._table.scenarios):
            self._table.reserve(len(tensors[f"{TABLE}/vectors"]))
            tensors = carry_over(tensors, self.tensors(), self.by_scenario(), scenarios, self._table.scenarios)
        states: dict[str, dict[str, Tensor]] = {name: {} for name in (TABLE, *self._parts)}
        for name, tensor in tensors.items():
            part, _, within = name.partition("/")
            states.setdefault(part, {})[within] = tensor
        self._table.load(states[TABLE], items)
        for name, each in self._parts.items():
            each.load(states[name])
