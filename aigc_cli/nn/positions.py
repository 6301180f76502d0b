"""Learned positions of tokens that lie in a grid, such as the codes of a picture or of a clip."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError


class GridPositions(nn.Module):
    """A vector for each place of each axis of a `grid`, added up (Yan et al., VideoGPT, 2021, section 3.2): so that
    what is learnt of a row serves all columns. Of `length` tokens the last lie in the grid, and those before it have
    vectors of their own."""

    def __init__(self, length: int, width: int, grid: tuple[int, ...], deviation: float) -> None:
        super().__init__()
        if not grid:
            hint = "set model.style.positions=rotary, or learned"
            raise ConfigError("model.style.positions=grid is for the codes of pictures, sound or clips", hint)
        before = length - math.prod(grid)
        self.axes = nn.ParameterList(deviation * torch.randn(size, width) for size in grid)
        self.before = nn.Parameter(deviation * torch.randn(before, width)) if before else None

    def forward(self) -> Tensor:
        """(length, width)."""
        found: Tensor = self.axes[0]
        for axis in list(self.axes)[1:]:
            found = found[..., None, :] + axis
        found = found.flatten(0, -2)
        return found if self.before is None else torch.cat([self.before, found])
