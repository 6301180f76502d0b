import pytest
import torch
from torch import nn

from aigc_cli.nn.blocks import (
    NORMS,
    ConditionalNorm,
    DownConv2d,
    FromMap,
    MinibatchStddev,
    PixelNorm,
    SelfAttention,
    ToMap,
    UpConv2d,
    add_spectral_norm,
    down,
    init_variance,
    init_weights,
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
    flat = torch.randn(2, 4 * 3 * 6)
    image = ToMap(4, 3)(flat)
    assert image.shape == (2, 6, 4, 3)
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


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fused_resampling_is_resampling_and_convolution(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 5, 6, 4).to(memory_format=memory_format)
    up_conv, down_conv = UpConv2d(5, 3), DownConv2d(5, 3)
    repeated = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    expected = nn.functional.conv2d(repeated, up_conv.weight, up_conv.bias, padding=1)
    torch.testing.assert_close(up_conv(x), expected, atol=1e-5, rtol=1e-5)
    expected = nn.functional.avg_pool2d(nn.functional.conv2d(x, down_conv.weight, down_conv.bias, padding=1), 2)
    torch.testing.assert_close(down_conv(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layer", [nn.Linear(20, 30), nn.Conv2d(4, 6, 3), nn.ConvTranspose2d(6, 4, 4), UpConv2d(4, 6)])
def test_spectral_norm_is_of_the_matrix_from_inputs_to_outputs(layer: nn.Module) -> None:
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    weight = layer.weight.detach().clone()
    dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    add_spectral_norm(layer)
    for _ in range(500):
        normed = layer.weight.detach()
    largest = torch.linalg.matrix_norm(weight.movedim(dim, 0).flatten(1), 2)
    torch.testing.assert_close(normed, weight / largest, rtol=1e-3, atol=1e-4)


def test_spectral_norm_stands_still_in_evaluation_and_leaves_zeros() -> None:
    layer = nn.Linear(8, 8, bias=False)
    add_spectral_norm(layer)
    layer.eval()
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    assert torch.equal(layer.weight, layer.weight)
    assert all(torch.equal(value, state[name]) for name, value in layer.state_dict().items())
    nn.init.zeros_(layer.parametrizations.weight.original)
    assert torch.equal(layer.weight, torch.zeros(8, 8))


@pytest.mark.parametrize("norm", sorted(NORMS))
def test_conditional_norm_begins_as_the_norm_itself_and_moves_with_its_condition(norm: str) -> None:
    torch.manual_seed(0)
    layer, x = ConditionalNorm(norm, 6, 3), torch.randn(4, 6, 5, 5)
    init_weights(layer, "xavier")
    condition = torch.eye(3)[[0, 1, 2, 0]]
    torch.testing.assert_close(layer(x, condition), NORMS[norm](6)(x))
    nn.init.normal_(layer.modulation.weight)
    gain, bias = (condition @ layer.modulation.weight.T)[:, :, None, None].chunk(2, dim=1)
    torch.testing.assert_close(layer(x, condition), NORMS[norm](6)(x) * (1 + gain) + bias)
    torch.testing.assert_close(ConditionalNorm(norm, 6, 0)(x, None), NORMS[norm](6)(x))


def test_attention_begins_as_nothing_and_mixes_places() -> None:
    torch.manual_seed(0)
    layer, x = SelfAttention(16), torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    layer.gain.data.fill_(1.0)
    moved = x.clone()
    moved[0, :, 0, 0] += 1
    change = (layer(moved) - layer(x)).abs().amax(dim=1)
    assert (change[0] > 1e-6).all()
    assert change[1].max() == 0


@pytest.mark.parametrize(("how", "deviation"), [("normal", 0.02), ("xavier", (2 * 2 / (9 * (32 + 64))) ** 0.5)])
def test_init_by_name(how: str, deviation: float) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 64, 3)
    init_weights(layer, how)
    assert layer.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert layer.bias.abs().max() == 0
