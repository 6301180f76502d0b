"""What the networks of a GAN share, and the generators and discriminators ``mlp`` and ``dcgan``.

Every generator maps (n, latent) and, if conditional, labels (n,) to images in [-1, 1]; every discriminator maps images
and labels to scores (n,). All are built as ``build(config, shape, classes)``, with no classes if not conditional.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.nn.blocks import FLAT_NORMS, LEAK, NORMS, FromMap, MinibatchStddev, ToMap, down, init_weights, up

BASE = 4  # the shorter side of the smallest feature map
SIZES = (8, 16, 32, 64, 128, 256)


def halvings(shape: tuple[int, ...], network: str) -> int:
    """How often a map (c, h, w), such as an image, is halved until its shorter side is 4; a ConfigError if that side is
    not one of :data:`SIZES`, or the longer one does not halve as often."""
    if len(shape) != 3:
        what = f"model.network={network} makes maps, and these items have the shape {'x'.join(map(str, shape))}"
        hint = "set model.network=mlp, which makes items of any shape; for sound, data.codec.kind=mel makes maps of it"
        raise ConfigError(what, hint)
    _, height, width = shape
    shorter = min(height, width)
    if shorter not in SIZES or max(height, width) % (shorter // BASE):
        sizes = ", ".join(map(str, SIZES))
        what = f"model.network={network} makes maps whose shorter side is {sizes}, not {height}x{width}"
        hint = "set data.size= to one of them, or data.codec.bins= of sound to 64, or model.network=mlp"
        raise ConfigError(what, hint)
    return int(math.log2(shorter // BASE))


def smallest(shape: tuple[int, ...], levels: int) -> tuple[int, int]:
    """Height and width of a map (c, h, w) once it is halved so often."""
    return shape[1] >> levels, shape[2] >> levels


def pyramid(widths: tuple[int, int], levels: int) -> list[int]:
    """Channels of maps from the largest to the smallest: (first, most), each twice the one before, up to `most`."""
    first, most = widths
    return [min(first << level, most) for level in range(levels)]


class LatentAndClass(nn.Module):
    """The latent with an embedding of the class beside it; the latent alone where there are no classes."""

    def __init__(self, latent: int, classes: int, embedding: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(classes, embedding) if classes else None
        self.width = latent + (embedding if classes else 0)

    def forward(self, latent: Tensor, labels: Tensor | None) -> Tensor:
        """(n, latent) and (n,) to (n, width)."""
        return latent if self.embedding is None else torch.cat([latent, self.embedding(labels)], dim=1)


class ProjectionHead(nn.Module):
    """Scores of features, with a projection on the class (Miyato and Koyama 2018, equation 4)."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1)
        # A layer with an output for each class, not an embedding: it takes weights and a spectral norm like any other.
        self.projection = nn.Linear(features, classes, bias=False) if classes else None

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """(n, features) and (n,) to (n,)."""
        score: Tensor = self.score(features)
        if self.projection is not None and labels is not None:
            score = score + self.projection(features).gather(1, labels[:, None])
        return score.squeeze(1)


class Generator(nn.Module):
    """A body of layers on the latent, with the class beside it."""

    def __init__(self, latent: LatentAndClass, body: nn.Module, init: str) -> None:
        super().__init__()
        self.latent, self.body = latent, body
        init_weights(self, init)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent) to (n, c, h, w)."""
        images: Tensor = self.body(self.latent(latent, labels))
        return images


class Discriminator(nn.Module):
    """A body of layers, and a head on its features."""

    def __init__(self, body: nn.Module, head: ProjectionHead, init: str) -> None:
        super().__init__()
        self.body, self.head = body, head
        init_weights(self, init)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, h, w) to (n,)."""
        scores: Tensor = self.head(self.body(images), labels)
        return scores


def mlp_generator(config: GANConfig, shape: tuple[int, ...], classes: int) -> Generator:
    """Two hidden layers (Goodfellow et al. 2014, with leaky ReLUs)."""
    latent = LatentAndClass(config.latent, classes, config.embedding)
    body = nn.Sequential(
        *fully_connected(latent.width, config.hidden, config.generator_norm),
        *fully_connected(config.hidden, config.hidden, config.generator_norm),
        nn.Linear(config.hidden, math.prod(shape)),
        nn.Tanh(),
        nn.Unflatten(1, shape),
    )
    return Generator(latent, body, config.init)


def mlp_discriminator(config: GANConfig, shape: tuple[int, ...], classes: int) -> Discriminator:
    """Two hidden layers with dropout (Goodfellow et al. 2014, with leaky ReLUs for its maxout)."""
    body = nn.Sequential(
        nn.Flatten(),
        *fully_connected(math.prod(shape), config.hidden, config.discriminator_norm, config.dropout),
        *fully_connected(config.hidden, config.hidden, config.discriminator_norm, config.dropout),
    )
    return Discriminator(body, ProjectionHead(config.hidden, classes), config.init)


def dcgan_generator(config: GANConfig, shape: tuple[int, ...], classes: int) -> Generator:
    """Transposed convolutions from 4x4 up to the image (Radford et al. 2016). With `hidden`, a fully connected layer
    before them: cheap, and it decides the image as a whole."""
    widths = pyramid(config.generator_widths, halvings(shape, "dcgan"))[::-1]  # the widest is the smallest
    base = smallest(shape, len(widths))
    norm, latent = config.generator_norm, LatentAndClass(config.latent, classes, config.embedding)
    body = nn.Sequential(
        *(fully_connected(latent.width, config.hidden, norm) if config.hidden else ()),
        nn.Linear(config.hidden or latent.width, math.prod(base) * widths[0]),
        ToMap(*base),
        NORMS[norm](widths[0]),
        nn.LeakyReLU(LEAK),
        *(up(inputs, outputs, norm) for inputs, outputs in pairwise(widths)),
        nn.ConvTranspose2d(widths[-1], shape[0], 4, stride=2, padding=1),
        nn.Tanh(),
    )
    return Generator(latent, body, config.init)


def dcgan_discriminator(config: GANConfig, shape: tuple[int, ...], classes: int) -> Discriminator:
    """Strided convolutions from the image down to 4x4 (Radford et al. 2016). With `hidden`, a fully connected layer
    after them, so that the score is more than a sum over places."""
    widths = pyramid(config.discriminator_widths, halvings(shape, "dcgan"))
    norm, dropout = config.discriminator_norm, config.dropout
    features = math.prod(smallest(shape, len(widths))) * (widths[-1] + config.minibatch_stddev)
    body = nn.Sequential(
        down(shape[0], widths[0], "none", dropout),  # the paper has no normalisation next to the image
        *(down(inputs, outputs, norm, dropout) for inputs, outputs in pairwise(widths)),
        MinibatchStddev() if config.minibatch_stddev else nn.Identity(),
        FromMap(),
        *(fully_connected(features, config.hidden, norm) if config.hidden else ()),
    )
    return Discriminator(body, ProjectionHead(config.hidden or features, classes), config.init)


def fully_connected(inputs: int, outputs: int, norm: str, dropout: float = 0.0) -> tuple[nn.Module, ...]:
    """A fully connected layer, its normalisation, activation and dropout."""
    return nn.Linear(inputs, outputs), FLAT_NORMS[norm](outputs), nn.LeakyReLU(LEAK), nn.Dropout(dropout)
