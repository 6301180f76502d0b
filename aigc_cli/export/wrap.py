"""A part of a model as a function that can be traced, with the sizes that it must hold for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class Part:
    """A module whose arguments and results are named tensors.

    `inputs` makes arguments of given sizes; of `sizes`, the first is what the part is traced with, and the others are
    what it is tried with afterwards.
    """

    name: str  # of its file, without the ending
    module: nn.Module
    inputs: Callable[..., dict[str, Tensor]]
    sizes: Sequence[tuple[int, ...]]
    outputs: Sequence[str]
    #: By the name of an argument, what its axes are called where they vary; "batch" where nothing is said.
    axes: dict[str, dict[int, str]] | None = None

    def varying(self) -> dict[str, dict[int, str]]:
        """The axes of each argument that may vary, with their names."""
        if self.axes is not None:
            return self.axes
        return {name: {0: "batch"} for name in self.inputs(*self.sizes[0])}

    def run(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """What the model itself makes of arguments."""
        found = self.module(*self.packed(given))
        return found if isinstance(found, tuple) else (found,)

    def packed(self, given: Mapping[str, Any]) -> tuple[Any, ...]:
        """Arguments in their order, as the module takes them: those after the third in a list."""
        values = list(given.values())
        return tuple(values) if len(values) <= 3 else (*values[:3], values[3:])
