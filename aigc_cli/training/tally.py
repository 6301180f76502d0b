"""The losses of a run, added up on the device and read when a row is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass as typed
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import NonFiniteError


@typed(config=STRICT)
class Sums:
    """Values that were added up together, as ``state.json`` keeps them."""

    names: list[str]
    sums: list[float]
    count: Annotated[int, Field(ge=1)]


class Tally:
    """Adds up scalars on the device and remembers the first step at which one was not finite.

    Nothing is read from the device before :meth:`read` or :meth:`check`, so a step costs no synchronisation. The terms
    of a phase may differ from step to step: a lazy penalty is there on its turn alone.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._counts: dict[tuple[str, ...], int] = {}
        self._first_bad: dict[tuple[str, ...], Tensor] = {}

    def add(self, phase: str, step: int, terms: Mapping[str, Tensor]) -> None:
        """Adds the scalars of one phase."""
        names = tuple(f"{phase}/{term}" for term in terms)
        values = torch.stack([term.detach().float() for term in terms.values()])
        if names not in self._sums:
            self._sums[names] = torch.zeros_like(values)
            self._first_bad[names] = torch.full_like(values, math.inf)
            self._counts[names] = 0
        self._sums[names] += values
        self._counts[names] += 1
        bad = torch.where(torch.isfinite(values), math.inf, float(step))
        self._first_bad[names] = torch.minimum(self._first_bad[names], bad)

    def check(self) -> None:
        """Reads whether all was finite so far.

        Raises:
            NonFiniteError: naming the first step and the terms that were not.
        """
        bad: dict[float, list[str]] = {}
        for names, first in self._first_bad.items():
            for name, step in zip(names, first.tolist(), strict=True):
                bad.setdefault(step, []).append(name)
        bad.pop(math.inf, None)
        if bad:
            step = min(bad)
            raise NonFiniteError(
                f"step {int(step)}: {', '.join(bad[step])} is not finite; nothing was saved after the last checkpoint",
                "lower optimizer.lr, or set trainer.clip_grad_norm=1 or trainer.precision=fp32",
            )

    def read(self) -> dict[str, float]:
        """The means since the last reading, as ``<phase>/<term>``."""
        self.check()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for names, total in self._sums.items():
            for name, value in zip(names, total.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[names]
        self._sums.clear()
        self._counts.clear()
        self._first_bad.clear()
        return {name: value / counts[name] for name, value in sums.items()}

    def state(self) -> list[Sums]:
        """What has been added since the last reading: a resumed run begins its next row with it."""
        return [
            Sums(names=list(names), sums=total.tolist(), count=self._counts[names])
            for names, total in self._sums.items()
        ]

    def load(self, state: list[Sums], device: torch.device) -> None:
        """Takes what :meth:`state` gave.

        Raises:
            ValueError: names and sums differ in number.
        """
        for part in state:
            names, sums = tuple(part.names), torch.tensor(part.sums, dtype=torch.float32, device=device)
            if sums.shape != (len(names),):
                raise ValueError("the state's tally has other sums than names")
            self._sums[names], self._counts[names] = sums, part.count
            self._first_bad[names] = torch.full_like(sums, math.inf)
