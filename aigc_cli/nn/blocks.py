"""Convolutional blocks, normalisation by name, and how weights begin."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, max_pool2d, normalize
from torch.nn.utils import parametrize

LEAK = 0.2  # slope of every leaky ReLU, as in DCGAN (Radford et al. 2016)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED, nn.Linear)


class PixelNorm(nn.Module):
    """Scales each position's features to unit mean square (Karras et al. 2018, section 4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same shape."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


#: name -> a normalisation for so many channels of (n, channels, height, width).
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(math.gcd(channels, 8), channels),
    "pixel": lambda channels: PixelNorm(),
}
#: The same for (n, features).
FLAT_NORMS: dict[str, Callable[[int], nn.Module]] = {**NORMS, "batch": nn.BatchNorm1d}


def down(inputs: int, outputs: int, norm: str, dropout: float = 0.0) -> nn.Sequential:
    """Halves height and width: strided 4x4 convolution, normalisation, leaky ReLU, dropout of whole channels."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=norm != "batch"),
        NORMS[norm](outputs),
        nn.LeakyReLU(LEAK),
        nn.Dropout2d(dropout) if dropout else nn.Identity(),
    )


def up(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Doubles height and width: transposed 4x4 convolution, normalisation, leaky ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=norm != "batch"),
        NORMS[norm](outputs),
        nn.LeakyReLU(LEAK),
    )


def lay_out(module: nn.Module, form: torch.memory_format | None) -> None:
    """Puts weights of the rank that a memory format is of in that format, and leaves all others as they are, as None
    does with all."""
    if form is None:
        return
    rank = 5 if form is torch.channels_last_3d else 4
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == rank:
            tensor.data = tensor.data.contiguous(memory_format=form)


class Residual(nn.Module):
    """Layers beside the identity, whose output has the shape of what they see."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same shape."""
        return torch.add(x, self.branch(x))


class Modulation(nn.Linear):
    """The linear layer that gives gains and biases from a condition."""


class ConditionalNorm(nn.Module):
    """A normalisation whose gains and biases a condition moves (de Vries et al. 2017); without one, a plain one.

    The condition is a class as one-hot, which gives gains and biases for each class (Dumoulin et al. 2017), or any
    other vector, as in BigGAN (Brock et al. 2019, appendix B).
    """

    def __init__(self, norm: str, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = NORMS[norm](channels)
        self.modulation = Modulation(condition, 2 * channels, bias=False) if condition else None

    def forward(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """(n, c, h, w) and (n, condition) to (n, c, h, w)."""
        x = self.norm(x)
        if self.modulation is None:
            return x
        gain, bias = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(bias, x, 1 + gain)


class SelfAttention(nn.Module):
    """Attention between the places of a map, added to it with a gain that begins at 0 (Zhang et al. 2019, section 3).
    Keys and values are pooled to half the map's size, as in BigGAN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = max(1, channels // 8)
        self.outer = max(1, channels // 2)
        self.query = nn.Conv2d(channels, self.inner, 1, bias=False)
        self.key_value = nn.Conv2d(channels, self.inner + self.outer, 1, bias=False)
        self.out = nn.Conv2d(self.outer, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same shape."""
        n, _, h, w = x.shape
        query = self.query(x).flatten(2)
        key, value = torch.split(max_pool2d(self.key_value(x), 2).flatten(2), [self.inner, self.outer], dim=1)
        # Written out, because the fused kernels have no double backward, which R1 needs.
        weight = (query.transpose(1, 2) @ key).softmax(dim=2)
        attended = (value @ weight.transpose(1, 2)).view(n, self.outer, h, w)
        return torch.add(x, self.gain * self.out(attended))


class UpConv2d(nn.Conv2d):
    """Repeats every pixel 2x2, then convolves 3x3: (n, c, h, w) to (n, outputs, 2h, 2w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """As one transposed convolution with a 4x4 kernel, which multiplies 2.25 times less."""
        kernel = _sum_of_shifts(self.weight).flip(2, 3).transpose(0, 1)
        return conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)


class DownConv2d(nn.Conv2d):
    """Convolves 3x3, then takes the mean of every 2x2: (n, c, h, w) to (n, outputs, h/2, w/2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """As one convolution with a 4x4 kernel and stride 2, which multiplies 2.25 times less."""
        return conv2d(x, _sum_of_shifts(self.weight) / 4, self.bias, stride=2, padding=1)


def _sum_of_shifts(kernel: Tensor) -> Tensor:
    """The kernels (o, i, 4, 4) of kernels (o, i, 3, 3) convolved with 2x2 ones."""
    return 4 * avg_pool2d(kernel, 2, stride=1, padding=1)


class ToMap(nn.Module):
    """Features (n, h * w * channels) as a map (n, channels, h, w) in channels_last, without a copy."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """(n, h * w * c) to (n, c, h, w)."""
        return x.view(len(x), self.height, self.width, -1).permute(0, 3, 1, 2)


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
        if isinstance(layer, WEIGHTED):
            nn.init.normal_(layer.weight, 0.0, nn.init.calculate_gain("leaky_relu", LEAK) / math.sqrt(_fan_in(layer)))
        bias = getattr(layer, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


def _fan_in(layer: Any) -> float:
    """How many inputs one output adds up."""
    if isinstance(layer, nn.Linear):
        return layer.in_features
    area = math.prod(layer.kernel_size)
    if isinstance(layer, TRANSPOSED):
        return float(layer.in_channels * area / math.prod(layer.stride))  # each output sees one tap in stride^2
    return float(layer.in_channels // layer.groups * area)


def init_weights(module: nn.Module, how: str) -> None:
    """Fresh weights for convolutions, linear layers and embeddings; biases 0.

    ``variance`` is :func:`init_variance`; ``normal`` has deviation 0.02 (Radford et al. 2016); ``xavier`` keeps the
    variance both ways (Glorot and Bengio 2010), twice it where a kernel sees more than a point, as in SNGAN;
    ``orthogonal`` as in BigGAN (Saxe et al. 2014). A class's gains and biases begin at 1 and 0, but for orthogonal.
    """
    init_variance(module)
    for layer in module.modules():
        if isinstance(layer, Modulation) and how != "orthogonal":
            nn.init.zeros_(layer.weight)
        elif isinstance(layer, WEIGHTED) and how != "variance":
            _INITS[how](layer.weight)
        elif isinstance(layer, nn.Embedding) and how == "orthogonal":
            nn.init.orthogonal_(layer.weight)


_INITS: dict[str, Callable[[Tensor], Any]] = {
    "normal": lambda weight: nn.init.normal_(weight, 0.0, 0.02),
    "xavier": lambda weight: nn.init.xavier_uniform_(weight, math.sqrt(2) if weight[0, 0].numel() > 1 else 1.0),
    "orthogonal": nn.init.orthogonal_,
}


class SpectralNorm(nn.Module):
    """A weight divided by its largest singular value, which a power iteration follows (Miyato et al. 2018, section 3).

    In evaluation mode the iteration goes one step from where training left it and keeps nothing. So averaged weights
    with averaged vectors, which are no longer of unit length, are normalised as they should be.
    """

    left: Tensor

    def __init__(self, weight: Tensor, dim: int) -> None:
        super().__init__()
        self.dim = dim  # of the outputs
        self.register_buffer("left", normalize(torch.randn(weight.shape[dim]).to(weight), dim=0))
        for _ in range(15):
            self(weight.detach())

    def forward(self, weight: Tensor) -> Tensor:
        """The normalised weight, of the same shape."""
        with torch.autocast(weight.device.type, enabled=False):
            matrix = weight.movedim(self.dim, 0).flatten(1)
            with torch.no_grad():
                right = normalize(matrix.T @ self.left, dim=0)
                left = normalize(matrix @ right, dim=0)
                if self.training:
                    self.left.copy_(left)
            largest = left @ (matrix @ right)
            return weight / largest.clamp_min(1e-4)  # a weight of zeros, as gains of classes begin, stays one


def add_spectral_norm(module: nn.Module) -> None:
    """Gives every convolution and linear layer a :class:`SpectralNorm`."""
    for layer in list(module.modules()):
        if isinstance(layer, WEIGHTED):
            dim = 1 if isinstance(layer, TRANSPOSED) else 0
            parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight, dim))
