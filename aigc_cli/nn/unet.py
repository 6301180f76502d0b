"""A U-Net that looks at a noisy item and a time: sequences, maps and volumes, of any size.

Residual blocks with a scale and a shift from the time, and from the class where there are any (Dhariwal and Nichol,
Diffusion Models Beat GANs on Image Synthesis, 2021, section 3), on ever smaller maps and back, each of which sees the
features of its size on the way down (Ronneberger, Fischer and Brox 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

#: By the number of an item's dimensions beside its channels.
_CONVS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Any] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_HEAD = 32  # channels of an attention head


def convolutions(dimensions: int) -> tuple[Any, Any]:
    """The classes of convolutions, and of transposed ones, of items with so many dimensions beside their channels."""
    return _CONVS[dimensions], _TRANSPOSED[dimensions]


class Conditioned(nn.Module):
    """What networks share that look at a time and, where there are any, a class, of which the last stands for any."""

    times: Times
    classes: nn.Embedding | None

    def condition(self, time: Tensor, labels: Tensor | None) -> Tensor:
        """Times (n,) in [0, 1] and labels (n,) as (n, width)."""
        found: Tensor = self.times(time)
        if self.classes is not None:
            found = found + self.classes(labels)
        return silu(found)


class UNet(Conditioned):
    """(n, c, ...), times (n,) in [0, 1] and labels (n,) to (n, c, ...).

    `widths` are the channels of each size, the largest first; an item is first cut to patches of `patch` a side, whose
    values become channels, so that the largest maps, which cost most, are smaller. The smallest map has attention
    between all of its places. Of `classes`, the last stands for any.
    """

    def __init__(
        self, shape: Sequence[int], widths: Sequence[int], *, blocks: int, patch: int, classes: int, dropout: float
    ) -> None:
        super().__init__()
        channels, condition = shape[0], 4 * widths[0]
        conv, transposed = convolutions(len(shape) - 1)
        self.times = Times(condition)
        self.classes = nn.Embedding(classes, condition) if classes else None
        self.into = (
            conv(channels, widths[0], patch, stride=patch) if patch > 1 else conv(channels, widths[0], 3, padding=1)
        )

        def block(inputs: int, outputs: int) -> nn.Module:
            return Block(conv, inputs, outputs, condition, dropout)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        kept = [widths[0]]
        for before, width in zip([widths[0], *widths], widths, strict=False):
            stage = nn.ModuleList()
            if kept[1:]:
                stage.append(conv(before, before, 3, stride=2, padding=1))
                kept.append(before)
            for place in range(blocks):
                stage.append(block(before if place == 0 else width, width))
                kept.append(width)
            self.down.append(stage)
        self.middle = nn.ModuleList([block(width, width), Attention(conv, width), block(width, width)])
        for smaller, width in pairwise([widths[-1], *reversed(widths)]):
            self.up.append(
                nn.ModuleList(
                    block((smaller if place == 0 else width) + kept.pop(), width) for place in range(blocks + 1)
                )
            )
        out = (
            transposed(widths[0], channels, patch, stride=patch)
            if patch > 1 else conv(widths[0], channels, 3, padding=1)
        )  # fmt: skip
        self.out = nn.Sequential(_norm(widths[0]), nn.SiLU(), out)
        self._begin()

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """See the class."""
        condition = self.condition(time, labels)
        x = self.into(x)
        kept = [x]
        for stage in self.down:
            for layer in stage:  # type: ignore[attr-defined]
                x = layer(x, condition) if isinstance(layer, Block) else layer(x)
                kept.append(x)
        first, attention, last = self.middle
        x = last(attention(first(x, condition)), condition)
        for stage in self.up:
            if x.shape[2:] != kept[-1].shape[2:]:
                x = interpolate(x, size=kept[-1].shape[2:])
            for layer in stage:  # type: ignore[attr-defined]
                x = layer(torch.cat([x, kept.pop()], dim=1), condition)
        found: Tensor = self.out(x)
        return found

    def _begin(self) -> None:
        """Each block begins as the identity, and the whole as 0 (Dhariwal and Nichol 2021)."""
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.second.weight)
                nn.init.zeros_(module.second.bias)
            elif isinstance(module, Attention):
                nn.init.zeros_(module.out.weight)
                nn.init.zeros_(module.out.bias)
        for parameter in self.out[-1].parameters():
            nn.init.zeros_(parameter)


class Times(nn.Module):
    """Times (n,) in [0, 1] as vectors (n, width): sines and cosines (Vaswani et al. 2017), and two layers on them."""

    frequencies: Tensor

    def __init__(self, width: int, waves: int = 64) -> None:
        super().__init__()
        spread = torch.exp(-math.log(10_000.0) * torch.arange(waves // 2) / (waves // 2))
        self.register_buffer("frequencies", 1000 * spread, persistent=False)
        self.layers = nn.Sequential(nn.Linear(waves, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, time: Tensor) -> Tensor:
        """See the class."""
        angles = time.float()[:, None] * self.frequencies
        found: Tensor = self.layers(torch.cat([angles.cos(), angles.sin()], dim=1))
        return found


class Block(nn.Module):
    """Two convolutions beside the identity, the second of features that a condition scales and shifts."""

    def __init__(self, conv: Any, inputs: int, outputs: int, condition: int, dropout: float) -> None:
        super().__init__()
        self.first_norm, self.second_norm = _norm(inputs), _norm(outputs)
        self.first = conv(inputs, outputs, 3, padding=1)
        self.second = conv(outputs, outputs, 3, padding=1)
        self.modulation = nn.Linear(condition, 2 * outputs)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Identity() if inputs == outputs else conv(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(n, inputs, ...) and (n, condition) to (n, outputs, ...)."""
        features = self.first(silu(self.first_norm(x)))
        scale, shift = self.modulation(condition).view(len(x), -1, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        features = self.second(self.dropout(silu(torch.addcmul(shift, self.second_norm(features), 1 + scale))))
        return torch.add(self.skip(x), features)


class Attention(nn.Module):
    """Attention between all places of a map, beside the identity."""

    def __init__(self, conv: Any, channels: int) -> None:
        super().__init__()
        self.heads = max(1, channels // _HEAD)
        self.norm = _norm(channels)
        self.qkv, self.out = conv(channels, 3 * channels, 1), conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, ...) to the same shape."""
        joint = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(3, 4)
        mixed = scaled_dot_product_attention(joint[:, 0], joint[:, 1], joint[:, 2])
        return torch.add(x, self.out(mixed.transpose(2, 3).reshape(x.shape)))


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(channels, 8), channels)
