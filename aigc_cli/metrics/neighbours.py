"""Nearest neighbours by brute force, a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

_ROWS = 1024


def nearest(x: Tensor, y: Tensor, memory_mb: int, *, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each row of x (n, d) the Euclidean distance to the nearest row of y (m, d), float64 (n,), and its index (n,).

    Rows may be of any type; they are compared in float32 about y's mean, and the distance to the one found is then
    taken in float64, so that a copy is at 0.

    Args:
        x: Rows that look for a neighbour.
        y: Rows among which they look.
        memory_mb: For a block of distances.
        own: (n,) the index in y of each row of x itself, which is passed over.
    """
    centre = (
        y.double().mean(dim=0) if len(y) * y.shape[1] < 2**24 else y[:: max(1, len(y) // 4096)].double().mean(dim=0)
    )
    columns = max(1, memory_mb * 2**20 // (4 * _ROWS))
    least = torch.full((len(x),), float("inf"), device=x.device)
    found = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for start in range(0, len(y), columns):
        part = _centred(y[start : start + columns], centre)
        lengths = part.square().sum(dim=1)
        for first in range(0, len(x), _ROWS):
            rows = slice(first, min(first + _ROWS, len(x)))
            # Without the row's own length, which changes nothing about which is nearest to it.
            block = torch.addmm(lengths, _centred(x[rows], centre), part.T, alpha=-2)
            if own is not None:
                _pass_over(block, own[rows] - start)
            values, index = block.min(dim=1)
            closer = values < least[rows]
            least[rows] = torch.where(closer, values, least[rows])
            found[rows] = torch.where(closer, index + start, found[rows])
    return distances_to(x, y, found), found


def distances_to(x: Tensor, y: Tensor, index: Tensor) -> Tensor:
    """The distance of each row of x (n, d) to the row of y (m, d) at `index` (n,), float64 (n,)."""
    parts = [
        (x[start : start + _ROWS].double() - y[index[start : start + _ROWS]].double()).norm(dim=1)
        for start in range(0, len(x), _ROWS)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def _centred(rows: Tensor, centre: Tensor) -> Tensor:
    return (rows.double() - centre).float()


def _pass_over(block: Tensor, own: Tensor) -> None:
    inside = (own >= 0) & (own < block.shape[1])
    rows = torch.arange(len(own), device=own.device)[inside]
    block[rows, own[inside]] = float("inf")
