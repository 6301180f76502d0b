"""The coupling layers: an exact way back, an exact density, and what they learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aigc_cli.nn.couplings import CouplingFlow


def stirred(dimensions: int, classes: int = 0) -> CouplingFlow:
    torch.manual_seed(0)
    flow = CouplingFlow(dimensions, layers=4, hidden=16, classes=classes)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return flow


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_noise_leads_back_to_the_vectors(dimensions: int) -> None:
    flow, vectors = stirred(dimensions), torch.randn(6, dimensions)
    noise, _ = flow.to_noise(vectors)
    assert torch.allclose(flow.from_noise(noise), vectors, atol=1e-5)
    assert not torch.allclose(noise, vectors, atol=0.1)


def test_the_change_of_volume_is_that_of_the_jacobian() -> None:
    flow, vector = stirred(5).double(), torch.randn(1, 5, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.to_noise(x)[0], vector)
    assert isinstance(jacobian, Tensor)
    assert flow.to_noise(vector)[1].item() == pytest.approx(torch.linalg.slogdet(jacobian[0, :, 0])[1].item())


def test_it_begins_as_the_density_of_a_standard_normal() -> None:
    vectors = torch.randn(4, 3)
    expected = (-0.5 * vectors.square() - 0.5 * math.log(2 * math.pi)).sum(1)
    assert torch.allclose(CouplingFlow(3, layers=2, hidden=8).log_prob(vectors), expected)


def test_it_learns_a_density_of_each_class() -> None:
    torch.manual_seed(0)
    flow = CouplingFlow(2, layers=4, hidden=32, classes=2)
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    labels = torch.arange(256) % 2
    for _ in range(150):
        vectors = torch.where(labels[:, None] == 0, 3.0, -3.0) + 0.5 * torch.randn(256, 2)
        optimizer.zero_grad()
        (-flow.log_prob(vectors, labels).mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        drawn = flow.from_noise(torch.randn(400, 2), torch.arange(400) % 2)
    for label, centre in ((0, 3.0), (1, -3.0)):
        assert torch.allclose(drawn[label::2].mean(0), torch.full((2,), centre), atol=0.2)
        assert torch.allclose(drawn[label::2].std(0), torch.full((2,), 0.5), atol=0.15)
