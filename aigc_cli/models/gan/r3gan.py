"""The generator and discriminator ``r3gan`` (Huang et al., The GAN is dead; long live the GAN!, 2024, section 4).

A ResNet as ConvNeXt would have it: no normalisation, bottlenecks whose middle 3x3 convolution is grouped, leaky ReLUs,
bilinear resampling, and residual branches that begin as 0, so that depth does no harm at the start. The two networks
are mirror images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu

from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.networks import BASE, LatentAndClass, ProjectionHead, halvings, pyramid
from aigc_cli.nn.blocks import LEAK, WEIGHTED, init_weights

EXPANSION = 2  # channels within a block, for each of its own
GROUP = 16  # channels that a grouped convolution sees together


class ResidualBlock(nn.Module):
    """1x1 to twice the channels, grouped 3x3, 1x1 back, with leaky ReLUs between, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        self.expand = nn.Conv2d(width, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=math.gcd(inner, max(1, inner // GROUP)))
        self.reduce = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) to the same shape."""
        h = leaky_relu(self.expand(x), LEAK)
        h = leaky_relu(self.mix(h), LEAK)
        out: Tensor = x + self.reduce(h)
        return out


def _init(network: nn.Module) -> None:
    """He's variance within residual branches; beside them, where no activation follows, that of linear layers.

    Branches as Fixup has it (Zhang et al. 2019): the last layer 0, and those before it scaled by the depth: L blocks
    with m layers each take L^(-1 / (2m - 2)), here with m = 3.
    """
    init_weights(network, "variance")
    blocks = [block for block in network.modules() if isinstance(block, ResidualBlock)]
    for block in blocks:
        nn.init.zeros_(block.reduce.weight)
        for layer in (block.expand, block.mix):
            layer.weight.data.mul_(len(blocks) ** (-1 / 4))
    within = {part for block in blocks for part in block.modules()}
    for part in network.modules():
        if isinstance(part, WEIGHTED) and part not in within:
            part.weight.data.div_(nn.init.calculate_gain("leaky_relu", LEAK))


def _stages(widths: Sequence[int], blocks: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(*(ResidualBlock(width) for _ in range(blocks))) for width in widths)


def _changes(widths: Sequence[int]) -> nn.ModuleList:
    """What takes each stage's channels to those of the next."""
    changes = (nn.Conv2d(i, o, 1, bias=False) if i != o else nn.Identity() for i, o in pairwise(widths))
    return nn.ModuleList(changes)


class R3GANGenerator(nn.Module):
    """A learned 4x4 basis weighted by the latent, then at each size some blocks, doubling between sizes."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = pyramid(config.generator_widths, halvings(shape, "r3gan") + 1)[::-1]
        self.latent = LatentAndClass(config.latent, classes, config.embedding)
        self.weights = nn.Linear(self.latent.width, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], BASE, BASE))
        self.stages, self.changes = _stages(widths, config.blocks), _changes(widths)
        self.image = nn.Conv2d(widths[-1], shape[0], 1, bias=False)
        _init(self)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent) to (n, c, h, w)."""
        x = self.basis * self.weights(self.latent(latent, labels))[:, :, None, None]
        x = self.stages[0](x)
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            x = stage(interpolate(change(x), scale_factor=2.0, mode="bilinear"))
        images: Tensor = self.image(x)
        return images


class R3GANDiscriminator(nn.Module):
    """At each size some blocks, halving between sizes, and a learned 4x4 basis that weighs what is left."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = pyramid(config.discriminator_widths, halvings(shape, "r3gan") + 1)
        self.image = nn.Conv2d(shape[0], widths[0], 1, bias=False)
        self.stages, self.changes = _stages(widths, config.blocks), _changes(widths)
        self.basis = nn.Conv2d(widths[-1], widths[-1], BASE, groups=widths[-1], bias=False)
        self.head = ProjectionHead(widths[-1], classes)
        _init(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, h, w) to (n,)."""
        x = self.stages[0](self.image(images))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            x = stage(change(avg_pool2d(x, 2)))
        scores: Tensor = self.head(self.basis(x).flatten(1), labels)
        return scores
