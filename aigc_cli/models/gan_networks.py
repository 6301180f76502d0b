"""The generators and discriminators of the GAN: ``mlp`` and ``dcgan``.

Every generator maps (n, latent) to images in [-1, 1], every discriminator maps images to scores (n,).
"""

from __future__ import annotations

import itertools
import math
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
        hidden = 8 * config.width
        super().__init__(
            nn.Linear(config.latent, hidden),
            FLAT_NORMS[config.generator_norm](hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(hidden, hidden),
            FLAT_NORMS[config.generator_norm](hidden),
            nn.LeakyReLU(LEAK),
            nn.Linear(hidden, math.prod(shape)),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )
        init_variance(self)


class MLPDiscriminator(nn.Sequential):
    """Two hidden layers with dropout (Goodfellow et al. 2014, with leaky ReLUs for its maxout)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        hidden = 8 * config.width
        super().__init__(
            nn.Flatten(),
            nn.Linear(math.prod(shape), hidden),
            FLAT_NORMS[config.discriminator_norm](hidden),
            nn.LeakyReLU(LEAK),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, hidden),
            FLAT_NORMS[config.discriminator_norm](hidden),
            nn.LeakyReLU(LEAK),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, 1),
            nn.Flatten(0),
        )
        init_variance(self)


class DCGANGenerator(nn.Sequential):
    """Transposed convolutions from 4x4 up to the image (Radford et al. 2016)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        widths = _widths(config, shape)[::-1]  # the widest is the smallest
        super().__init__(
            nn.Linear(config.latent, widths[0] * BASE * BASE),
            ToMap(BASE),
            NORMS[config.generator_norm](widths[0]),
            nn.LeakyReLU(LEAK),
            *(up(*pair, config.generator_norm) for pair in itertools.pairwise(widths)),
            nn.ConvTranspose2d(widths[-1], shape[0], 4, stride=2, padding=1),
            nn.Tanh(),
        )
        init_variance(self)


class DCGANDiscriminator(nn.Sequential):
    """Strided convolutions from the image down to 4x4 (Radford et al. 2016)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...]) -> None:
        widths = _widths(config, shape)
        stddev = config.minibatch_stddev
        # No normalisation next to the image, as in the paper.
        first = down(shape[0], widths[0], "none", config.dropout)
        super().__init__(
            first,
            *(
                down(*pair, config.discriminator_norm, config.dropout)
                for pair in itertools.pairwise(widths)
            ),
            MinibatchStddev() if stddev else nn.Identity(),
            FromMap(),
            nn.Linear((widths[-1] + stddev) * BASE * BASE, 1),
            nn.Flatten(0),
        )
        init_variance(self)


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
