import pytest
import torch
from torch import nn

from aigc_cli.nn.blocks import (
    NORMS,
    FromMap,
    MinibatchStddev,
    PixelNorm,
    ToMap,
    add_spectral_norm,
    down,
    init_variance,
    up,
)


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_down_halves_and_up_doubles(norm: str) -> None:
    x = torch.randn(4, 6, 8, 8)
    assert down(6, 10, norm)(x).shape == (4, 10, 4, 4)
    assert up(6, 10, norm)(x).shape == (4, 10, 16, 16)


def test_pixel_norm_gives_unit_mean_square() -> None:
    normed = PixelNorm()(torch.randn(3, 5, 4, 4) * 7)
    torch.testing.assert_close(normed.square().mean(dim=1), torch.ones(3, 4, 4))


def test_maps_are_channels_last_and_come_back() -> None:
    flat = torch.randn(2, 4 * 4 * 6)
    image = ToMap(4)(flat)
    assert image.shape == (2, 6, 4, 4)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert image.data_ptr() == flat.data_ptr()
    assert torch.equal(FromMap()(image), flat)


def test_minibatch_stddev_is_the_deviation_within_each_group() -> None:
    x = torch.cat([torch.ones(4, 2, 4, 4), torch.randn(4, 2, 4, 4)])
    out = MinibatchStddev()(x)
    assert out.shape == (8, 3, 4, 4)
    torch.testing.assert_close(out[:4, 2], torch.full((4, 4, 4), 1e-4), atol=1e-4, rtol=0)
    expected = x[4:].std(dim=0, unbiased=False).mean()
    torch.testing.assert_close(out[4:, 2], expected.expand(4, 4, 4))


def test_minibatch_stddev_takes_any_batch() -> None:
    assert MinibatchStddev()(torch.randn(5, 2, 4, 4)).shape == (5, 3, 4, 4)


@pytest.mark.parametrize(
    "layer", [nn.Linear(256, 512), nn.Conv2d(32, 64, 4, 2, 1), nn.ConvTranspose2d(64, 32, 4, 2, 1)]
)
def test_init_keeps_the_variance(layer: nn.Module) -> None:
    torch.manual_seed(0)
    init_variance(layer)
    shape = (64, layer.weight.shape[1]) if isinstance(layer, nn.Linear) else (8, layer.in_channels, 16, 16)
    x = nn.functional.leaky_relu(torch.randn(*shape), 0.2)
    x = x / x.square().mean().sqrt()
    out = layer(x)[..., 2:-2, 2:-2] if x.ndim == 4 else layer(x)
    gain = nn.init.calculate_gain("leaky_relu", 0.2)
    assert out.square().mean().item() == pytest.approx(gain**2, rel=0.15)
    assert layer.bias.abs().max() == 0


def test_spectral_norm_bounds_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 30), nn.LeakyReLU(0.2), nn.Linear(30, 1))
    net[0].weight.data.mul_(9)
    add_spectral_norm(net)
    for _ in range(30):
        net(torch.randn(2, 20))
    assert torch.linalg.matrix_norm(net[0].weight, 2).item() == pytest.approx(1, abs=0.02)
