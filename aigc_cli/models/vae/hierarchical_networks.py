"""The networks of the hierarchical VAE: features of an image bottom-up, and latents top-down (Child, Very Deep VAEs
Generalize Autoregressive Models and Can Outperform Them on Images, 2021, figure 3).

Both work on maps that are coarser than the image by the finest level of the layout: the image enters, and its
likelihood's parameters leave, as patches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from aigc_cli.models.vae.config import HVAEConfig, Level
from aigc_cli.nn.blocks import Residual, ToMap


class Normal(NamedTuple):
    """Diagonal Gaussians, each part (n, latent, side, side), float32."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, mean: Tensor, raw: Tensor) -> Normal:
        """From a network's outputs, of which any gives a deviation: softplus, smoothed so that it is 1 at 0."""
        return cls(mean.float(), softplus(raw.float(), beta=math.log(2)))

    def at(self, normal: Tensor) -> Tensor:
        """The values that standard normal draws stand for."""
        return torch.addcmul(self.mean, self.deviation, normal)


class Latent(NamedTuple):
    """A block's latent, given all those above it."""

    prior: Normal
    posterior: Normal
    z: Tensor

    def kl(self) -> Tensor:
        """KL(posterior || prior), nats, (n,)."""
        (mean, deviation), (other_mean, other_deviation) = self.posterior, self.prior
        ratio = deviation / other_deviation
        kl = 0.5 * (ratio.square() + ((mean - other_mean) / other_deviation).square() - 1) - ratio.log()
        return kl.flatten(1).sum(1)

    def log_ratio(self) -> Tensor:
        """log p(z) - log q(z), nats, (n,)."""
        (mean, deviation), (other_mean, other_deviation) = self.posterior, self.prior
        squares = ((self.z - mean) / deviation).square() - ((self.z - other_mean) / other_deviation).square()
        return (0.5 * squares + (deviation / other_deviation).log()).flatten(1).sum(1)

    def standardised(self) -> Tensor:
        """The posterior's mean as the draw of the prior that it is, (n, latent, side, side)."""
        return (self.posterior.mean - self.prior.mean) / self.prior.deviation


def _narrow(hidden: int, outputs: int, side: int) -> nn.Sequential:
    """The narrow part of a bottleneck block, from its first activation to its outputs; 3x3 where there is room."""
    kernel = 3 if side > 2 else 1
    wide = [nn.Conv2d(hidden, hidden, kernel, padding=kernel // 2) for _ in range(2)]
    return nn.Sequential(nn.SiLU(), wide[0], nn.SiLU(), wide[1], nn.SiLU(), nn.Conv2d(hidden, outputs, 1))


def _residual(width: int, hidden: int, side: int, depth: int) -> Residual:
    """A bottleneck block beside the identity, which begins smaller the deeper the network is (section 3.2)."""
    narrow = _narrow(hidden, width, side)
    _scale(narrow[-1], depth**-0.5)
    return Residual(nn.SiLU(), nn.Conv2d(width, hidden, 1), narrow)


def size_at(side: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the map whose shorter side is `side`, of items (c, h, w); of side 1 it is a point."""
    _, height, width = shape
    shorter = min(height, width)
    return (1, 1) if side == 1 else (height * side // shorter, width * side // shorter)


def _shrink(config: HVAEConfig, fine: tuple[int, int], coarse: tuple[int, int]) -> nn.Module:
    """From features of one size to those of a smaller one, (n, width, h, w) each; :func:`_grow` goes back."""
    if coarse == (1, 1) != fine and config.whole_map:
        return nn.Conv2d(config.width, config.width, fine)
    return nn.AdaptiveAvgPool2d(coarse) if coarse != fine else nn.Identity()


def _grow(config: HVAEConfig, coarse: tuple[int, int], fine: tuple[int, int]) -> nn.Module:
    if coarse == (1, 1) != fine and config.whole_map:
        values = config.width * math.prod(fine)
        return nn.Sequential(nn.Flatten(), nn.Linear(config.width, values, bias=False), ToMap(*fine))
    return nn.Upsample(scale_factor=(fine[0] // coarse[0], fine[1] // coarse[1]))


class BottomUp(nn.Module):
    """The features of an image at every level, from the finest, where patches enter, to the coarsest."""

    def __init__(self, config: HVAEConfig, shape: tuple[int, ...], layout: Sequence[Level]) -> None:
        super().__init__()
        width, hidden = config.width, config.hidden
        sides = [level.side for level in reversed(layout)]
        patch = min(shape[1:]) // sides[0]
        self.stem = nn.Sequential(nn.PixelUnshuffle(patch), nn.Conv2d(shape[0] * patch**2, width, 3, padding=1))
        depth = config.encoder_blocks * len(layout)
        self.levels = nn.ModuleList(
            nn.Sequential(
                _shrink(config, size_at(fine, shape), size_at(side, shape)),
                *(_residual(width, hidden, side, depth) for _ in range(config.encoder_blocks)),
            )
            for fine, side in pairwise([sides[0], *sides])
        )
        self.activation = nn.SiLU()
        _start(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(n, c, h, w) to activated features (n, width, side, side) from coarse to fine."""
        x = self.stem(images)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(self.activation(x))
        return features[::-1]


class TopDownBlock(nn.Module):
    """A latent, whose prior and posterior see what is above, and which moves what is below."""

    def __init__(self, config: HVAEConfig, side: int, depth: int) -> None:
        super().__init__()
        width, self.hidden, self.latent = config.width, config.hidden, config.latent
        self.activation = nn.SiLU()
        # The first layers of prior and posterior in one: they see the same, and one wide convolution is faster.
        self.enter = nn.Conv2d(width, 2 * self.hidden, 1)
        self.prior = _narrow(self.hidden, 2 * self.latent + width, side)
        _scale(self.prior[-1], 0.0)  # it begins as N(0, 1) whatever is above
        self.posterior = _narrow(self.hidden, 2 * self.latent, side)
        self.expand = nn.Conv2d(self.latent, width, 1)
        _scale(self.expand, depth**-0.5)
        self.residual = _residual(width, self.hidden, side, depth)

    def forward(self, x: Tensor, seen: Tensor | None) -> tuple[Normal, Normal | None, Tensor]:
        """The prior of x (n, width, side, side), the posterior by what is `seen` of an image, (n, hidden, side, side),
        where there is one, and x with what the prior adds to it."""
        for_prior, for_posterior = self.enter(self.activation(x)).split(self.hidden, dim=1)
        mean, raw, moved = self.prior(for_prior).split([self.latent, self.latent, x.shape[1]], dim=1)
        prior, x = Normal.of(mean, raw), x + moved
        if seen is None:
            return prior, None, x
        return prior, Normal.of(*self.posterior(for_posterior + seen).chunk(2, dim=1)), x

    def take(self, x: Tensor, z: Tensor) -> Tensor:
        """x (n, width, side, side) moved by z (n, latent, side, side)."""
        moved: Tensor = self.residual(x + self.expand(z))
        return moved


class TopDownLevel(nn.Module):
    """The blocks of one side: what they begin with, and what they see of the image's features."""

    def __init__(
        self, config: HVAEConfig, above: tuple[int, int] | None, size: tuple[int, int], level: Level, depth: int,
        classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        width, side = config.width, level.side
        self.grow = None if above is None else _grow(config, above, size)
        self.beginning = nn.Parameter(torch.zeros(1, width, *size))
        self.embedding = nn.Embedding(classes, width) if classes else None
        self.look = nn.Conv2d(width, level.blocks * config.hidden, 1)
        self.blocks = nn.ModuleList(TopDownBlock(config, side, depth) for _ in range(level.blocks))

    def begin(self, above: Tensor | None, n: int, labels: Tensor | None) -> Tensor:
        """What comes from the level above, (n, width, h, w), at this level's place, and of a class."""
        x = self.beginning.expand(n, -1, -1, -1)
        if self.grow is not None:
            x = x + self.grow(above)
        if self.embedding is not None:
            vectors: Tensor = self.embedding(labels)
            x = x + vectors[:, :, None, None]
        return x.contiguous(memory_format=torch.channels_last)

    def looks(self, features: Tensor | None) -> Sequence[Tensor | None]:
        """What each block sees of features (n, width, side, side)."""
        return [None] * len(self.blocks) if features is None else self.look(features).chunk(len(self.blocks), dim=1)


class TopDown(nn.Module):
    """All latents from coarse to fine, and the parameters of the likelihood below them.

    Noise is one standard normal vector (n, :attr:`dimensions`), the top-most latent's first; within a block it lies
    channel by channel of each place.
    """

    def __init__(
        self, config: HVAEConfig, shape: tuple[int, ...], layout: Sequence[Level], outputs: int, classes: int
    ) -> None:
        super().__init__()
        depth = sum(level.blocks for level in layout)
        places = [size_at(level.side, shape) for level in layout]
        self.levels = nn.ModuleList(
            TopDownLevel(config, above, size, level, depth, classes)
            for above, size, level in zip([None, *places[:-1]], places, layout, strict=True)
        )
        self.latent = config.latent
        #: The shorter side of each block, and its height and width.
        self.sides = [level.side for level in layout for _ in range(level.blocks)]
        self.places = [size_at(side, shape) for side in self.sides]
        self.sizes = [config.latent * math.prod(size) for size in self.places]
        self.dimensions = sum(self.sizes)
        #: How many of them are of the coarsest level.
        self.coarsest = sum(self.sizes[: layout[0].blocks])
        patch = min(shape[1:]) // layout[-1].side
        self.outputs = outputs
        self.head = nn.Conv2d(config.width, patch**2 * outputs, 1)
        _start(self)

    def forward(
        self, features: list[Tensor] | None, labels: Tensor | None, noise: Tensor | None
    ) -> tuple[Tensor, list[Latent]]:
        """The likelihood's parameters (n * patch^2, outputs, side, side), as :func:`to_patches` has the image, and the
        latent of each block; without features, no latents, and the parameters of what noise draws from the priors.

        Args:
            features: of :class:`BottomUp`.
            labels: (n,) where the model is told the class.
            noise: (n, dimensions), which decides each z by its posterior or prior; None takes the posterior's mean.
        """
        given = noise if features is None else features[0]
        assert given is not None, "features or noise"
        parts = iter([] if noise is None else self._parts(noise))
        x: Tensor | None = None
        latents: list[Latent] = []
        for place, level in enumerate(self.levels):
            assert isinstance(level, TopDownLevel)
            x = level.begin(x, given.shape[0], labels)
            looks = level.looks(None if features is None else features[place])
            for block, seen in zip(level.blocks, looks, strict=True):
                assert isinstance(block, TopDownBlock)
                prior, posterior, x = block(x, seen)
                chosen = posterior or prior
                z = chosen.mean if noise is None else chosen.at(next(parts))
                if posterior is not None:
                    latents.append(Latent(prior, posterior, z))
                x = block.take(x, z.to(x.dtype))
        # Plane after plane, which the likelihood's elementwise work is faster on.
        parameters: Tensor = self.head(x).contiguous()
        return parameters.view(-1, self.outputs, *parameters.shape[2:]), latents

    def flat(self, maps: Sequence[Tensor]) -> Tensor:
        """A map (n, latent, side, side) for each block as one vector (n, dimensions)."""
        return torch.cat([each.permute(0, 2, 3, 1).flatten(1) for each in maps], dim=1)

    def _parts(self, noise: Tensor) -> list[Tensor]:
        """The inverse of :meth:`flat`."""
        parts = zip(torch.split(noise, self.sizes, dim=1), self.places, strict=True)
        return [part.reshape(noise.shape[0], *size, self.latent).permute(0, 3, 1, 2) for part, size in parts]


def _scale(layer: nn.Module, factor: float) -> None:
    assert isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        layer.weight.mul_(factor)


def _start(module: nn.Module) -> None:
    """Biases of 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
