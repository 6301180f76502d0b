"""The encoders and decoders of the VQ-VAE: of maps, where a token stands for a square of an image, and of time, where
it stands for all frequencies of some frames of sound."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from aigc_cli.errors import ConfigError
from aigc_cli.models.vae.config import VQVAEConfig
from aigc_cli.models.vae.volumes import vq_decoder, vq_encoder
from aigc_cli.nn.blocks import LEAK, Residual, add_spectral_norm, init_variance


def build_networks(config: VQVAEConfig, shape: tuple[int, ...], outputs: int) -> tuple[nn.Module, nn.Module]:
    """An encoder of items (n, c, h, w) to what is quantised, (n, dimensions, rows, columns), and a decoder of codes of
    that shape to (n, outputs, h, w). Raises ConfigError where the stem is one of clips, and items are none."""
    if len(shape) == 4:
        return vq_encoder(config, shape[0]), _begin(vq_decoder(config, outputs))
    if config.stem == "patches":
        raise ConfigError("model.stem=patches is for clips", "leave model.stem out")
    if config.tokens == "map":
        return _encoder(config, shape[0]), _decoder(config, outputs)
    bins = shape[1]
    encoder = nn.Sequential(nn.Flatten(1, 2), *_time_encoder(config, shape[0] * bins), nn.Unflatten(2, (1, -1)))
    decoder = nn.Sequential(nn.Flatten(2, 3), *_time_decoder(config, outputs * bins), nn.Unflatten(1, (outputs, bins)))
    init_variance(encoder)
    init_variance(decoder)
    return encoder, _begin(decoder)


def build_adversary(channels: int, width: int) -> nn.Sequential:
    """Items (n, channels, h, w) to scores of patches, (n, 1, h / 4, w / 4) or so, 26 pixels a side each (Isola et al.,
    Image-to-Image Translation with Conditional Adversarial Networks, 2017, section 3.2.2)."""
    narrow = max(8, width // 2)
    layers: list[nn.Module] = []
    for inputs, outputs, side, stride in (
        (channels, narrow, 4, 2), (narrow, 2 * narrow, 4, 2), (2 * narrow, 2 * narrow, 3, 1)
    ):  # fmt: skip
        layers += [nn.Conv2d(inputs, outputs, side, stride=stride, padding=1), nn.LeakyReLU(LEAK)]
    adversary = nn.Sequential(*layers, nn.Conv2d(2 * narrow, 1, 3, padding=1))
    init_variance(adversary)
    add_spectral_norm(adversary)
    return adversary


def _residual(width: int) -> Residual:
    """A 3x3 and a 1x1 convolution, each after its activation, beside the identity (section 4.1)."""
    hidden = width // 2
    return Residual(nn.ReLU(), nn.Conv2d(width, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, width, 1))


def _widths(config: VQVAEConfig) -> list[int]:
    """Channels at half the image's size, a quarter, ...: half the width, but for the last."""
    return [config.width // 2] * (config.downsampling.bit_length() - 2) + [config.width]


def _encoder(config: VQVAEConfig, channels: int) -> nn.Sequential:
    """Images (n, c, h, w) to what is quantised, (n, dimensions, rows, columns)."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise([channels, *_widths(config)]):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
    width = config.width
    layers += [nn.Conv2d(width, width, 3, padding=1), *(_residual(width) for _ in range(config.blocks))]
    encoder = nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(width, config.dimensions, 1))
    init_variance(encoder)
    return encoder


def _decoder(config: VQVAEConfig, outputs: int) -> nn.Module:
    """Codes (n, dimensions, rows, columns) to (n, outputs, h, w)."""
    widths = _widths(config)[::-1]
    layers: list[nn.Module] = [nn.Conv2d(config.dimensions, widths[0], 3, padding=1)]
    layers += [_residual(widths[0]) for _ in range(config.blocks)]
    for inputs, narrower in pairwise(widths):
        layers += [nn.ReLU(), nn.ConvTranspose2d(inputs, narrower, 4, stride=2, padding=1)]
    decoder = nn.Sequential(*layers, nn.ReLU(), nn.ConvTranspose2d(widths[-1], outputs, 4, stride=2, padding=1))
    init_variance(decoder)
    return _begin(decoder)


def _time_residual(width: int) -> Residual:
    return Residual(nn.ReLU(), nn.Conv1d(width, width // 2, 3, padding=1), nn.ReLU(), nn.Conv1d(width // 2, width, 1))


def _halvings(config: VQVAEConfig) -> range:
    return range(config.downsampling.bit_length() - 1)


def _time_encoder(config: VQVAEConfig, inputs: int) -> list[nn.Module]:
    """Frames (n, inputs, t) to what is quantised, (n, dimensions, t / downsampling)."""
    width = config.width
    layers: list[nn.Module] = [nn.Conv1d(inputs, width, 3, padding=1), nn.ReLU()]
    for _ in _halvings(config):
        layers += [nn.Conv1d(width, width, 4, stride=2, padding=1), nn.ReLU()]
    layers += [nn.Conv1d(width, width, 3, padding=1), *(_time_residual(width) for _ in range(config.blocks))]
    return [*layers, nn.ReLU(), nn.Conv1d(width, config.dimensions, 1)]


def _time_decoder(config: VQVAEConfig, outputs: int) -> list[nn.Module]:
    """Codes (n, dimensions, t / downsampling) to (n, outputs, t)."""
    width = config.width
    layers: list[nn.Module] = [nn.Conv1d(config.dimensions, width, 3, padding=1)]
    layers += [_time_residual(width) for _ in range(config.blocks)]
    for _ in _halvings(config):
        layers += [nn.ReLU(), nn.ConvTranspose1d(width, width, 4, stride=2, padding=1)]
    return [*layers, nn.ReLU(), nn.Conv1d(width, outputs, 3, padding=1)]


def _begin(decoder: nn.Sequential) -> nn.Sequential:
    """With a last layer so small that it begins with grey."""
    last = [layer for layer in decoder if isinstance(layer, nn.Conv1d | nn.ConvTranspose2d | nn.ConvTranspose3d)][-1]
    with torch.no_grad():
        last.weight.mul_(0.1)
    return decoder
