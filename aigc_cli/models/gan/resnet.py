"""Residual networks: ``resnet`` (Miyato et al., Spectral Normalization for GANs, 2018), the generator ``biggan`` (Brock
et al., Large Scale GAN Training for High Fidelity Natural Image Synthesis, 2019) and ``r3gan`` (Huang et al., The GAN
is dead; long live the GAN!, 2024, section 4).

The first, without spectral norm, is WGAN-GP's on CIFAR-10 (Gulrajani et al. 2017). The paper's widths for 32 pixels are
``width: 256``, ``max_width: 256`` and ``discriminator_width: 128``; for larger images they double at each halving, for
64 pixels from 64 to 1024. BigGAN's on 32 pixels have 4 times the channel count that the paper names, and half that in
the discriminator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, one_hot, relu

from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.networks import LatentAndClass, ProjectionHead, halvings, pyramid, smallest
from aigc_cli.nn.blocks import (
    LEAK,
    NORMS,
    WEIGHTED,
    ConditionalNorm,
    DownConv2d,
    SelfAttention,
    ToMap,
    UpConv2d,
    init_weights,
)

GROUP = 16  # channels that a grouped convolution of r3gan sees together


class GeneratorBlock(nn.Module):
    """Doubles height and width: normalisation, ReLU, upsampling, convolution, twice over, beside a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, condition: int, norm: str) -> None:
        super().__init__()
        self.norm1 = ConditionalNorm(norm, inputs, condition)
        self.norm2 = ConditionalNorm(norm, outputs, condition)
        self.conv1 = UpConv2d(inputs, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(n, inputs, h, w) and (n, condition) to (n, outputs, 2h, 2w)."""
        h = self.conv1(relu(self.norm1(x, condition)))
        h = self.conv2(relu(self.norm2(h, condition)))
        # A 1x1 convolution before the repeating of pixels is the same as after it, and cheaper.
        return torch.add(h, interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest"))


class DiscriminatorBlock(nn.Module):
    """ReLU and convolution, twice over, then halving where `halves`, beside a 1x1 convolution or the input itself. The
    `first` block sees the image and has no ReLU before its convolution."""

    def __init__(self, inputs: int, outputs: int, norm: str, *, halves: bool, first: bool = False) -> None:
        super().__init__()
        self.halves, self.first = halves, first
        self.norm1 = nn.Identity() if first else NORMS[norm](inputs)
        self.norm2 = NORMS[norm](outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = DownConv2d(outputs, outputs) if halves else nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if halves or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) to (n, outputs, h, w), or half of each side."""
        h = self.conv1(x if self.first else relu(self.norm1(x)))
        h = self.conv2(relu(self.norm2(h)))
        # A 1x1 convolution after the mean over pixels is the same as before it, and cheaper.
        return torch.add(h, self.shortcut(avg_pool2d(x, 2) if self.halves else x))


class ResNetGenerator(nn.Module):
    """A linear layer to 4x4, residual blocks that double, and a convolution to the image. Where conditional, each class
    has gains and biases of its own in every normalisation of the blocks."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = pyramid(config.generator_widths, halvings(shape, config.network) + 1)[::-1]
        stem, conditions = self._prepare(config, classes, len(widths) - 1)
        base = smallest(shape, len(widths) - 1)
        self.stem = nn.Sequential(nn.Linear(stem, math.prod(base) * widths[0]), ToMap(*base))
        self.blocks = nn.ModuleList(
            GeneratorBlock(inputs, outputs, condition, config.generator_norm)
            for (inputs, outputs), condition in zip(pairwise(widths), conditions, strict=True)
        )
        self.attention = _attention(config, [(base[0] << i + 1, width) for i, width in enumerate(widths[1:])])
        self.head = nn.Sequential(
            NORMS[config.generator_norm](widths[-1]),
            nn.ReLU(),
            nn.Conv2d(widths[-1], shape[0], 3, padding=1),
            nn.Tanh(),
        )
        init_weights(self, config.init)

    def _prepare(self, config: GANConfig, classes: int, blocks: int) -> tuple[int, Sequence[int]]:
        """The width of what the stem sees, and of the condition of each block."""
        self.classes = classes
        return config.latent, [classes] * blocks

    def _inputs(self, latent: Tensor, labels: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None]]:
        """What the stem sees, and the condition of each block."""
        condition = one_hot(labels, self.classes).to(latent.dtype) if self.classes and labels is not None else None
        return latent, [condition] * len(self.blocks)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent) to (n, c, h, w)."""
        start, conditions = self._inputs(latent, labels)
        x = self.stem(start)
        for block, attention, condition in zip(self.blocks, self.attention, conditions, strict=True):
            x = attention(block(x, condition))
        images: Tensor = self.head(x)
        return images


class BigGANGenerator(ResNetGenerator):
    """SNGAN's blocks, each conditioned on the class embedding and on its own piece of the latent (appendix B.1). Its
    discriminator is ``resnet``'s, whose head projects on the class."""

    def _prepare(self, config: GANConfig, classes: int, blocks: int) -> tuple[int, Sequence[int]]:
        whole, more = divmod(config.latent, blocks + 1)  # pieces that differ by one at most, the larger first
        self.pieces = [whole + (place < more) for place in range(blocks + 1)]
        self.shared = nn.Embedding(classes, config.embedding) if classes else None
        width = config.embedding if classes else 0
        return self.pieces[0], [piece + width for piece in self.pieces[1:]]

    def _inputs(self, latent: Tensor, labels: Tensor | None) -> tuple[Tensor, Sequence[Tensor | None]]:
        start, *pieces = torch.split(latent, self.pieces, dim=1)
        if self.shared is None or labels is None:
            return start, pieces
        embedded = self.shared(labels)
        return start, [torch.cat([embedded, piece], dim=1) for piece in pieces]


class ResNetDiscriminator(nn.Module):
    """Residual blocks that halve the image, some that keep its size, and a sum over places.

    As in the papers, two halve and two keep up to 32 pixels, but no further than 4x4; from 64 pixels on all halve but
    the last. WGAN-GP, which has no spectral norm to bound the scores, takes the mean over places instead.
    """

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        levels = halvings(shape, config.network)
        down, kept = (min(levels, 2), 2) if levels <= 3 else (levels, 1)
        sides = [shape[1] >> i + 1 for i in range(down)] + [shape[1] >> down] * kept
        widths = pyramid(config.discriminator_widths, down + kept)
        norm = config.discriminator_norm
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(inputs, outputs, norm, halves=i < down, first=i == 0)
            for i, (inputs, outputs) in enumerate(pairwise([shape[0], *widths]))
        )
        self.attention = _attention(config, list(zip(sides, widths, strict=True)))
        self.sums = config.spectral_norm
        self.head = ProjectionHead(widths[-1], classes)
        init_weights(self, config.init)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, h, w) to (n,)."""
        x = images
        for block, attention in zip(self.blocks, self.attention, strict=True):
            x = attention(block(x))
        x = relu(x)
        scores: Tensor = self.head(x.sum((2, 3)) if self.sums else x.mean((2, 3)), labels)
        return scores


def _attention(config: GANConfig, maps: Sequence[tuple[int, int]]) -> nn.ModuleList:
    """After each block, attention where its map, of (side, width), is the first of the side that is asked for."""
    sides = [side for side, _ in maps]
    place = sides.index(config.attention) if config.attention in sides else None
    return nn.ModuleList(SelfAttention(width) if i == place else nn.Identity() for i, (_, width) in enumerate(maps))


class R3GANBlock(nn.Module):
    """1x1 to twice the channels, grouped 3x3, 1x1 back, with leaky ReLUs between, added to the input. As ConvNeXt would
    have a residual block: no normalisation, and a branch that begins as 0, so that depth does no harm at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = 2 * width
        self.expand = nn.Conv2d(width, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=math.gcd(inner, max(1, inner // GROUP)))
        self.reduce = nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) to the same shape."""
        h = leaky_relu(self.mix(leaky_relu(self.expand(x), LEAK)), LEAK)
        return torch.add(x, self.reduce(h))


def _init_r3gan(network: nn.Module) -> None:
    """He's variance within residual branches; beside them, where no activation follows, that of linear layers.

    Branches as Fixup has it (Zhang et al. 2019): the last layer 0, and those before it scaled by the depth: L blocks
    with m layers each take L^(-1 / (2m - 2)), here with m = 3.
    """
    init_weights(network, "variance")
    blocks = [block for block in network.modules() if isinstance(block, R3GANBlock)]
    for block in blocks:
        nn.init.zeros_(block.reduce.weight)
        for layer in (block.expand, block.mix):
            layer.weight.data.mul_(len(blocks) ** (-1 / 4))
    within = {part for block in blocks for part in block.modules()}
    for part in network.modules():
        if isinstance(part, WEIGHTED) and part not in within:
            part.weight.data.div_(nn.init.calculate_gain("leaky_relu", LEAK))


def _stages(widths: Sequence[int], blocks: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Sequential(*(R3GANBlock(width) for _ in range(blocks))) for width in widths)


def _changes(widths: Sequence[int]) -> nn.ModuleList:
    """What takes each stage's channels to those of the next."""
    return nn.ModuleList(nn.Conv2d(i, o, 1, bias=False) if i != o else nn.Identity() for i, o in pairwise(widths))


class R3GANGenerator(nn.Module):
    """A learned 4x4 basis weighted by the latent, then at each size some blocks, doubling between sizes."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        widths = pyramid(config.generator_widths, halvings(shape, "r3gan") + 1)[::-1]
        self.latent = LatentAndClass(config.latent, classes, config.embedding)
        self.weights = nn.Linear(self.latent.width, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], *smallest(shape, len(widths) - 1)))
        self.stages, self.changes = _stages(widths, config.blocks), _changes(widths)
        self.image = nn.Conv2d(widths[-1], shape[0], 1, bias=False)
        _init_r3gan(self)

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
        base = smallest(shape, len(widths) - 1)
        self.basis = nn.Conv2d(widths[-1], widths[-1], base, groups=widths[-1], bias=False)
        self.head = ProjectionHead(widths[-1], classes)
        _init_r3gan(self)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, h, w) to (n,)."""
        x = self.stages[0](self.image(images))
        for change, stage in zip(self.changes, self.stages[1:], strict=True):
            x = stage(change(avg_pool2d(x, 2)))
        scores: Tensor = self.head(self.basis(x).flatten(1), labels)
        return scores
