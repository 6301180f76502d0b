"""The generators and discriminators of the GAN: ``mlp`` and ``dcgan``.

Every generator maps (n, latent) to images in [-1, 1], every discriminator maps images to scores (n,).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from aigc_cli.errors import ConfigError
from aigc_cli.nn.blocks import FLAT_NORMS, LEAK, NORMS, FromMap, MinibatchStddev, ToMap, down, init_variance, up

if TYPE_CHECKING:
    from aigc_cli.models.gan import GANConfig

BASE = 4  # height and width of the smallest feature map
SIZES = (8, 16, 32, 64, 128, 256)


class MLPGenerator(nn.Sequential):
    """Two hidden layers (Goodfellow et al. 2014, with leaky ReLUs)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        super().__init__(
            *_hidden(config.latent, config.hidden, config.generator_norm),
            *_hidden(config.hidden, config.hidden, config.generator_norm),
            nn.Linear(config.hidden, math.prod(shape)),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )
        init_variance(self)


class MLPDiscriminator(nn.Sequential):
    """Two hidden layers with dropout (Goodfellow et al. 2014, with leaky ReLUs for its maxout)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        super().__init__(
            nn.Flatten(),
            *_hidden(math.prod(shape), config.hidden, config.discriminator_norm, config.dropout),
            *_hidden(config.hidden, config.hidden, config.discriminator_norm, config.dropout),
            nn.Linear(config.hidden, 1),
            nn.Flatten(0),
        )
        init_variance(self)


class DCGANGenerator(nn.Sequential):
    """Transposed convolutions from 4x4 up to the image (Radford et al. 2016).

    With `hidden`, a fully connected layer before them: cheap, and it decides the image as a whole.
    """

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        widths = _widths(config, shape)[::-1]  # the widest is the smallest
        norm = config.generator_norm
        super().__init__(
            *(_hidden(config.latent, config.hidden, norm) if config.hidden else ()),
            nn.Linear(config.hidden or config.latent, BASE * BASE * widths[0]),
            ToMap(BASE),
            NORMS[norm](widths[0]),
            nn.LeakyReLU(LEAK),
            *(up(inputs, outputs, norm) for inputs, outputs in pairwise(widths)),
            nn.ConvTranspose2d(widths[-1], shape[0], 4, stride=2, padding=1),
            nn.Tanh(),
        )
        init_variance(self)


class DCGANDiscriminator(nn.Sequential):
    """Strided convolutions from the image down to 4x4 (Radford et al. 2016).

    With `hidden`, a fully connected layer after them, so that the score is more than a sum over places.
    """

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        widths = _widths(config, shape)
        norm, dropout = config.discriminator_norm, config.dropout
        features = BASE * BASE * (widths[-1] + config.minibatch_stddev)
        super().__init__(
            down(shape[0], widths[0], "none", dropout),  # the paper has no normalisation next to the image
            *(down(inputs, outputs, norm, dropout) for inputs, outputs in pairwise(widths)),
            MinibatchStddev() if config.minibatch_stddev else nn.Identity(),
            FromMap(),
            *(_hidden(features, config.hidden, norm) if config.hidden else ()),
            nn.Linear(config.hidden or features, 1),
            nn.Flatten(0),
        )
        init_variance(self)


def _hidden(inputs: int, outputs: int, norm: str, dropout: float = 0.0) -> tuple[nn.Module, ...]:
    """A fully connected layer, its normalisation, activation and dropout."""
    return nn.Linear(inputs, outputs), FLAT_NORMS[norm](outputs), nn.LeakyReLU(LEAK), nn.Dropout(dropout)


def _widths(config: GANConfig, shape: tuple[int, ...]) -> list[int]:
    """Channels at half the image's size, at a quarter, ... down to 4x4: each twice the one before, up to a limit.

    Raises:
        ConfigError: the image is not a square of a size in :data:`SIZES`.
    """
    _, height, width = shape
    if height != width or height not in SIZES:
        raise ConfigError(
            f"model.network=dcgan makes squares of {', '.join(map(str, SIZES))}, not {height}x{width} images",
            "set data.size= to one of them, or model.network=mlp",
        )
    return [min(config.width << i, config.max_width) for i in range(int(math.log2(height // BASE)))]


class Networks(NamedTuple):
    """A generator and the discriminator that goes with it; both are built as ``build(config, shape)``."""

    generator: type[nn.Module]
    discriminator: type[nn.Module]


NETWORKS: dict[str, Networks] = {
    "mlp": Networks(MLPGenerator, MLPDiscriminator),
    "dcgan": Networks(DCGANGenerator, DCGANDiscriminator),
}
