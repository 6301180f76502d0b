"""What stands around the place that is written next, as a masked convolution reads it (van den Oord et al., Pixel
Recurrent Neural Networks, 2016; joined to attention in Chen et al., PixelSNAIL, 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_FEATURES = 16  # of a token
_OWN = 0.3  # how much of a token's random features stays


class Neighbours(nn.Module):
    """Features of each place of a `grid`, from the tokens of places that were written before it and are at most `reach`
    away on every axis.

    Weights are those of distances and not of places: attention has to learn for each pair of places by itself that what
    moves is copied from one to the other.

    Args:
        tokens: Kinds of tokens.
        width: Of the features.
    """

    near: Tensor

    def __init__(self, tokens: int, grid: tuple[int, ...], reach: Sequence[int], width: int) -> None:
        super().__init__()
        here = (0,) * len(grid)
        steps = [step for step in product(*(range(-far, far + 1) for far in reach)) if step < here]
        places = torch.cartesian_prod(*map(torch.arange, grid)).view(-1, 1, len(grid)) + torch.tensor(steps)
        inside = ((places >= 0) & (places < torch.tensor(grid))).all(2)
        order = torch.zeros(inside.shape, dtype=torch.int64)
        for axis, size in enumerate(grid):
            order = order * size + places[..., axis]
        #: Where each place's neighbours stand in a row (places, steps): a row begins with a token that is of no place,
        #: which is also what is seen outside of the grid.
        self.register_buffer("near", torch.where(inside, order + 1, 0), persistent=False)
        self.embedding = nn.Embedding(tokens, _FEATURES)
        self.up = nn.Linear(len(steps) * _FEATURES, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def begin(self, vectors: Tensor) -> None:
        """Begins from vectors (k, features) of the first k tokens, each of which stays a little its own."""
        self.embedding.weight[: len(vectors)] *= _OWN
        self.embedding.weight[: len(vectors)] += vectors

    def forward(self, row: Tensor, first: int, count: int) -> Tensor:
        """Features (n, count, width) of `count` places from the `first` on, of rows (n, t) with all tokens before."""
        return self.around(self.embedding(row), self.near[first : first + count])

    def around(self, row: Tensor, near: Tensor) -> Tensor:
        """The same of embedded rows (n, t, features), of places whose neighbours are `near` (count, steps)."""
        seen = row.index_select(1, near.flatten()).view(row.shape[0], near.shape[0], -1)
        features: Tensor = self.down(gelu(self.up(seen)))
        return features
