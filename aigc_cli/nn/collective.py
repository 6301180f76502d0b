"""What networks must know of the other processes that train the same weights, each on its share of a batch.

Draws are made for the whole batch, of which every process keeps its own rows, and what is counted over a batch is
counted over all of it. So the weights of several processes are those of one that sees the whole batch, up to rounding.
In one process all of this is torch's own: nothing is drawn, sent or multiplied that would not be anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, distributed

#: What draws a tensor of the size given to it, such as :func:`torch.randn`.
Sampler = Callable[..., Tensor]
Device = torch.device | str | None

_common: dict[torch.device, torch.Generator] = {}  # in the same state in every process
_seed = 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return distributed.get_rank() if world_size() > 1 else 0


def seed_common(seed: int) -> None:
    """Seeds the draws that processes share; those of one process alone are the default generator's."""
    global _seed
    _seed = seed
    for generator in _common.values():
        generator.manual_seed(seed)


def _generator(device: Device) -> torch.Generator:
    where = torch.device(device or "cpu")
    if where not in _common:
        _common[where] = torch.Generator(where).manual_seed(_seed)
    return _common[where]


def draw(sampler: Sampler, *size: int, dim: int = 0, device: Device = None, **options: object) -> Tensor:
    """Random numbers of `size`, whose dimension `dim` goes over the rows of this process's share of the batch. The
    sampler is :func:`torch.randn`, :func:`torch.rand` or :func:`integers`, and `options` its own, as ``dtype``."""
    if world_size() == 1:
        return sampler(*size, device=device, **options)
    rows = size[dim]
    whole = [*size[:dim], rows * world_size(), *size[dim + 1 :]]
    return sampler(*whole, device=device, generator=_generator(device), **options).narrow(dim, rank() * rows, rows)


def normal_like(rows: Tensor) -> Tensor:
    """Standard normal draws, one for each value of `rows`, which are this process's share of the batch."""
    return draw(torch.randn, *rows.shape, device=rows.device, dtype=rows.dtype)


def draw_common(sampler: Sampler, *size: int, device: Device = None) -> Tensor:
    """Random numbers of `size` that are the same in every process."""
    if world_size() == 1:
        return sampler(*size, device=device)
    return sampler(*size, device=device, generator=_generator(device))


def integers(high: int) -> Sampler:
    """A sampler of uniform integers in [0, high)."""

    def sample(*size: int, **options: object) -> Tensor:
        drawn: Tensor = torch.randint(high, size, **options)  # type: ignore[call-overload]
        return drawn

    return sample


def summed(tensor: Tensor) -> Tensor:
    """The sum over all processes of a tensor without a graph, which it may be written to."""
    if world_size() > 1:
        distributed.all_reduce(tensor)
    return tensor


def averaged(tensor: Tensor) -> Tensor:
    """The mean over all processes of a floating-point tensor without a graph, which it may be written to."""
    return tensor if world_size() == 1 else summed(tensor).div_(world_size())


def gathered(rows: Tensor) -> Tensor:
    """The rows (n, ...) of all processes, (processes * n, ...), without a graph; each has as many."""
    if world_size() == 1:
        return rows
    whole = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
    distributed.all_gather(list(whole.chunk(world_size())), rows.detach().contiguous())
    return whole


def weighted(mean: Tensor, count: Tensor) -> Tensor:
    """A mean over `count` things of this process, weighted so that the processes' average is the mean over all things.
    What is counted, such as the tokens of a batch that are no padding, may be more in one process than in another."""
    if world_size() == 1:
        return mean
    share = count.detach().to(torch.float32, copy=True)
    return mean * (share / averaged(share.clone()))
