"""Convolutional blocks, normalisation by name, and how weights begin."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

LEAK = 0.2  # slope of every leaky ReLU, as in DCGAN (Radford et al. 2016)


class PixelNorm(nn.Module):
    """Scales each position's features to unit mean square (Karras et al. 2018, section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same shape."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(channels, 8), channels)


#: name -> a normalisation for so many channels of (n, channels, height, width).
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": _group_norm,
    "pixel": lambda channels: PixelNorm(),
}
#: The same for (n, features).
FLAT_NORMS: dict[str, Callable[[int], nn.Module]] = {**NORMS, "batch": nn.BatchNorm1d}


def down(inputs: int, outputs: int, norm: str = "none", dropout: float = 0.0) -> nn.Sequential:
    """Halves height and width: strided 4x4 convolution, normalisation, leaky ReLU, dropout of whole channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=norm != "batch"),
        NORMS[norm](outputs),
        nn.LeakyReLU(LEAK),
        nn.Dropout2d(dropout) if dropout else nn.Identity(),
    )


def up(inputs: int, outputs: int, norm: str = "batch", dropout: float = 0.0) -> nn.Sequential:
    """Doubles height and width: transposed 4x4 convolution, normalisation, leaky ReLU, dropout of whole channels."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=norm != "batch"),
        NORMS[norm](outputs),
        nn.LeakyReLU(LEAK),
        nn.Dropout2d(dropout) if dropout else nn.Identity(),
    )


class ToMap(nn.Module):
    """Features (n, side * side * channels) as a map (n, channels, side, side) in channels_last, without a copy."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """(n, side * side * c) to (n, c, side, side)."""
        return x.view(len(x), self.side, self.side, -1).permute(0, 3, 1, 2)


class FromMap(nn.Module):
    """The inverse of :class:`ToMap`; no copy either, from channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, h * w * c)."""
        return x.permute(0, 2, 3, 1).flatten(1)


class MinibatchStddev(nn.Module):
    """Appends one channel: the standard deviation within small groups of the batch (Karras et al. 2018, section 3).

    It lets a discriminator see that the generator gives too little variety. Groups are neighbours in the batch; a batch
    that does not divide into groups is one.
    """

    group = 4

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to (n, c + 1, h, w)."""
        n, c, h, w = x.shape
        group = self.group if n % self.group == 0 else n
        grouped = x.reshape(n // group, group, c, h, w).float()
        deviation = (grouped.var(dim=1, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        channel = deviation.to(x.dtype).repeat_interleave(group).view(n, 1, 1, 1).expand(n, 1, h, w)
        return torch.cat([x, channel], dim=1)


def init_variance(module: nn.Module) -> None:
    """Weights that keep the variance of activations through leaky ReLUs (He et al. 2015, equation 14); biases 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, nn.init.calculate_gain("leaky_relu", LEAK) / math.sqrt(_fan_in(layer)))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


def _fan_in(layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear) -> float:
    """How many inputs one output adds up."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    area = math.prod(layer.kernel_size)
    if isinstance(layer, nn.ConvTranspose2d):
        return layer.in_channels * area / math.prod(layer.stride)  # each output sees one kernel tap in stride^2
    return layer.in_channels * area


def add_spectral_norm(module: nn.Module) -> None:
    """Divides every convolution's and linear layer's weight by its largest singular value (Miyato et al. 2018)."""
    for layer in list(module.modules()):
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            parametrizations.spectral_norm(layer)
