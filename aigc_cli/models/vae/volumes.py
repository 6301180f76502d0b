"""The networks of autoencoders of clips (c, t, h, w): convolutions over frames and pixels."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from aigc_cli.models.vae.config import VQVAEConfig
from aigc_cli.nn.blocks import LEAK, Residual, init_variance

Stride = tuple[int, int, int]


def strides(across: int, along: int) -> list[Stride]:
    """How layers halve pixels and frames until so many of each are one, powers of two: pixels first, frames last."""
    sides, times = across.bit_length() - 1, along.bit_length() - 1
    layers = max(sides, times)
    wide = [2 if layer < sides else 1 for layer in range(layers)]
    return [(2 if layer >= layers - times else 1, side, side) for layer, side in enumerate(wide)]


def narrower(inputs: int, outputs: int, stride: Stride) -> nn.Conv3d:
    """A convolution that halves what has a stride of 2."""
    return nn.Conv3d(inputs, outputs, [2 + each for each in stride], stride, padding=1)  # type: ignore[arg-type]


def wider(inputs: int, outputs: int, stride: Stride) -> nn.ConvTranspose3d:
    """A convolution that doubles what has a stride of 2."""
    return nn.ConvTranspose3d(inputs, outputs, [2 + each for each in stride], stride, padding=1)  # type: ignore[arg-type]


def _residual(width: int, side: int = 3) -> Residual:
    """As in the VQ-VAE of images, with a kernel over frames too; of side 1, of each place by itself. Leaky, as all
    activations here: most of a clip may be black, and what learns that first leaves plain rectifiers dead."""
    hidden = width // 2 if side > 1 else width
    first = nn.Conv3d(width, hidden, side, padding=side // 2)
    return Residual(nn.LeakyReLU(LEAK), first, nn.LeakyReLU(LEAK), nn.Conv3d(hidden, width, 1))


def _patch(config: VQVAEConfig) -> tuple[int, int, int]:
    """The frames, rows and columns that a code stands for."""
    return config.time_downsampling, config.downsampling, config.downsampling


def vq_encoder(config: VQVAEConfig, channels: int) -> nn.Sequential:
    """Clips (n, c, t, h, w) to what is quantised, (n, dimensions, times, rows, columns)."""
    width = config.width
    layers: list[nn.Module] = []
    if config.stem == "patches":  # each by itself, so that what is alike has one code, wherever in a clip it is
        layers.append(nn.Conv3d(channels, width, _patch(config), _patch(config)))
        layers += [_residual(width, 1) for _ in range(config.blocks)]
    else:
        halved = strides(config.downsampling, config.time_downsampling)
        widths = [channels, *[width // 2] * (len(halved) - 1), width]
        for (inputs, outputs), stride in zip(pairwise(widths), halved, strict=True):
            layers += [narrower(inputs, outputs, stride), nn.LeakyReLU(LEAK)]
        layers += [nn.Conv3d(width, width, 3, padding=1), *(_residual(width) for _ in range(config.blocks))]
    encoder = nn.Sequential(*layers, nn.LeakyReLU(LEAK), nn.Conv3d(width, config.dimensions, 1))
    init_variance(encoder)
    return encoder


def vq_decoder(config: VQVAEConfig, outputs: int) -> nn.Sequential:
    """Codes (n, dimensions, times, rows, columns) to (n, outputs, t, h, w)."""
    width = config.width
    layers: list[nn.Module] = [nn.Conv3d(config.dimensions, width, 3, padding=1)]
    layers += [_residual(width) for _ in range(config.blocks)]
    if config.stem == "patches":
        layers += [nn.LeakyReLU(LEAK), nn.ConvTranspose3d(width, outputs, _patch(config), _patch(config))]
    else:
        doubled = strides(config.downsampling, config.time_downsampling)[::-1]
        widths = [width, *[width // 2] * (len(doubled) - 1), outputs]
        for (inputs, after), stride in zip(pairwise(widths), doubled, strict=True):
            layers += [nn.LeakyReLU(LEAK), wider(inputs, after, stride)]
    decoder = nn.Sequential(*layers)
    init_variance(decoder)
    return decoder
