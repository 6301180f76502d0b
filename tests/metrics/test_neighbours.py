"""Nearest neighbours, against all distances at once."""

import numpy as np
import pytest
import torch

from aigc_cli.metrics.neighbours import nearest


@pytest.mark.parametrize("memory_mb", [1, 64])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_neighbours_are_those_of_brute_force(memory_mb: int, offset: float) -> None:
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.normal(offset, 1, (n, 5))).float() for n in (1500, 700))
    distance, index = nearest(x, y, memory_mb)
    every = torch.cdist(x.double(), y.double())
    assert torch.equal(index, every.argmin(dim=1))
    assert torch.allclose(distance, every.min(dim=1).values, atol=1e-9)
    among, _ = nearest(y[100:], y, memory_mb, own=torch.arange(100, 700))
    every = torch.cdist(y[100:].double(), y.double())
    every[torch.arange(600), torch.arange(100, 700)] = torch.inf
    assert torch.allclose(among, every.min(dim=1).values, atol=1e-9)
