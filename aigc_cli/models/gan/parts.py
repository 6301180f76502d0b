"""What the networks of a GAN share: their sizes, and how they are told the class."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError

BASE = 4  # height and width of the smallest feature map
SIZES = (8, 16, 32, 64, 128, 256)


def halvings(shape: tuple[int, ...], network: str) -> int:
    """How often an image (c, h, w) is halved until it is 4x4.

    Raises:
        ConfigError: it is not an image, or not a square of a size in :data:`SIZES`.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"model.network={network} makes images, and these items have the shape {'x'.join(map(str, shape))}",
            "set model.network=mlp, which makes items of any shape",
        )
    _, height, width = shape
    if height != width or height not in SIZES:
        raise ConfigError(
            f"model.network={network} makes squares of {', '.join(map(str, SIZES))}, not {height}x{width} images",
            "set data.size= to one of them, or model.network=mlp",
        )
    return int(math.log2(height // BASE))


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
    """Scores of features, with a projection on the class (Miyato and Koyama 2018, equation 4).

    The projection is a linear layer with an output for each class, of which each item keeps its own class's: so it
    takes its initial weights and its spectral norm like any other.
    """

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, 1)
        self.projection = nn.Linear(features, classes, bias=False) if classes else None

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """(n, features) and (n,) to (n,)."""
        score: Tensor = self.score(features)
        if self.projection is not None and labels is not None:
            score = score + self.projection(features).gather(1, labels[:, None])
        return score.squeeze(1)
