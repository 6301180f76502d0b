"""The generators and discriminators ``mlp`` and ``dcgan``.

Every generator maps (n, latent) and, if conditional, labels (n,) to images in [-1, 1]; every discriminator maps images
and labels to scores (n,). All are built as ``build(config, shape, classes)``, with no classes if not conditional.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.parts import BASE, LatentAndClass, ProjectionHead, halvings, pyramid
from aigc_cli.nn.blocks import FLAT_NORMS, LEAK, NORMS, FromMap, MinibatchStddev, ToMap, down, init_weights, up


class _Generator(nn.Module):
    """A body of layers on the latent, with the class beside it."""

    latent: LatentAndClass
    body: nn.Module

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent) to (n, c, h, w)."""
        images: Tensor = self.body(self.latent(latent, labels))
        return images


class _Discriminator(nn.Module):
    """A body of layers, and a head on its features."""

    body: nn.Module
    head: ProjectionHead

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, h, w) to (n,)."""
        scores: Tensor = self.head(self.body(images), labels)
        return scores


class MLPGenerator(_Generator):
    """Two hidden layers (Goodfellow et al. 2014, with leaky ReLUs)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.latent = LatentAndClass(config.latent, classes, config.embedding)
        self.body = nn.Sequential(
            *_hidden(self.latent.width, config.hidden, config.generator_norm),
            *_hidden(config.hidden, config.hidden, config.generator_norm),
            nn.Linear(config.hidden, math.prod(shape)),
            nn.Tanh(),
            nn.Unflatten(1, shape),
        )
        init_weights(self, config.init)


class MLPDiscriminator(_Discriminator):
    """Two hidden layers with dropout (Goodfellow et al. 2014, with leaky ReLUs for its maxout)."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(),
            *_hidden(math.prod(shape), config.hidden, config.discriminator_norm, config.dropout),
            *_hidden(config.hidden, config.hidden, config.discriminator_norm, config.dropout),
        )
        self.head = ProjectionHead(config.hidden, classes)
        init_weights(self, config.init)


class DCGANGenerator(_Generator):
    """Transposed convolutions from 4x4 up to the image (Radford et al. 2016).

    With `hidden`, a fully connected layer before them: cheap, and it decides the image as a whole.
    """

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = pyramid(config.generator_widths, halvings(shape, "dcgan"))[::-1]  # the widest is the smallest
        norm = config.generator_norm
        self.latent = LatentAndClass(config.latent, classes, config.embedding)
        self.body = nn.Sequential(
            *(_hidden(self.latent.width, config.hidden, norm) if config.hidden else ()),
            nn.Linear(config.hidden or self.latent.width, BASE * BASE * widths[0]),
            ToMap(BASE),
            NORMS[norm](widths[0]),
            nn.LeakyReLU(LEAK),
            *(up(inputs, outputs, norm) for inputs, outputs in pairwise(widths)),
            nn.ConvTranspose2d(widths[-1], shape[0], 4, stride=2, padding=1),
            nn.Tanh(),
        )
        init_weights(self, config.init)


class DCGANDiscriminator(_Discriminator):
    """Strided convolutions from the image down to 4x4 (Radford et al. 2016).

    With `hidden`, a fully connected layer after them, so that the score is more than a sum over places.
    """

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = pyramid(config.discriminator_widths, halvings(shape, "dcgan"))
        norm, dropout = config.discriminator_norm, config.dropout
        features = BASE * BASE * (widths[-1] + config.minibatch_stddev)
        self.body = nn.Sequential(
            down(shape[0], widths[0], "none", dropout),  # the paper has no normalisation next to the image
            *(down(inputs, outputs, norm, dropout) for inputs, outputs in pairwise(widths)),
            MinibatchStddev() if config.minibatch_stddev else nn.Identity(),
            FromMap(),
            *(_hidden(features, config.hidden, norm) if config.hidden else ()),
        )
        self.head = ProjectionHead(config.hidden or features, classes)
        init_weights(self, config.init)


def _hidden(inputs: int, outputs: int, norm: str, dropout: float = 0.0) -> tuple[nn.Module, ...]:
    """A fully connected layer, its normalisation, activation and dropout."""
    return nn.Linear(inputs, outputs), FLAT_NORMS[norm](outputs), nn.LeakyReLU(LEAK), nn.Dropout(dropout)
