"""Differentiable augmentation (Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training, 2020).

The same kinds of change are drawn for every image that the discriminator sees, real or generated, and gradients pass
through them to the generator: a small data set is then hard to learn by heart, and changes do not leak into samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from aigc_cli.nn.collective import draw, integers


def translation(x: Tensor, fraction: float = 0.125) -> Tensor:
    """Moves each image by up to `fraction` of its side, in whole pixels, independently down and across.

    What comes in from outside is the image's own edge, unlike the paper's zeros: 0 is grey in [-1, 1].
    """
    n, _, height, width = x.shape
    rows = _shifted(n, height, fraction, x.device)
    columns = _shifted(n, width, fraction, x.device)
    index = rows[:, :, None] * width + columns[:, None, :]
    return x.flatten(2).gather(2, index.view(n, 1, -1).expand(-1, x.shape[1], -1)).view_as(x)


def _shifted(n: int, side: int, fraction: float, device: torch.device) -> Tensor:
    reach = max(1, round(side * fraction))
    shift = draw(integers(2 * reach + 1), n, 1, device=device) - reach
    return (torch.arange(side, device=device) + shift).clamp(0, side - 1)


def color(x: Tensor) -> Tensor:
    """Changes brightness by up to 0.5, saturation by 0 to 2 and contrast by 0.5 to 1.5, as in the paper."""
    draws = draw(torch.rand, 3, x.shape[0], 1, 1, 1, dim=1, device=x.device, dtype=x.dtype)
    x = x + draws[0] - 0.5
    mean = x.mean(dim=1, keepdim=True)
    x = (x - mean) * (2 * draws[1]) + mean
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (draws[2] + 0.5) + mean


def cutout(x: Tensor, fraction: float = 0.5) -> Tensor:
    """Blanks a square of `fraction` of the side, its centre anywhere in the image."""
    n, _, height, width = x.shape
    keep_rows = _outside(n, height, fraction, x.device)
    keep_columns = _outside(n, width, fraction, x.device)
    return x * (keep_rows[:, None, :, None] | keep_columns[:, None, None, :])


def _outside(n: int, side: int, fraction: float, device: torch.device) -> Tensor:
    hole = max(1, round(side * fraction))
    start = draw(integers(side + 1 - hole % 2), n, 1, device=device) - hole // 2
    position = torch.arange(side, device=device)
    return (position < start) | (position >= start + hole)


def flip(x: Tensor) -> Tensor:
    """Exchanges left and right in half of the images."""
    mirrored = draw(torch.rand, x.shape[0], 1, 1, 1, device=x.device) < 0.5
    return torch.where(mirrored, x.flip(-1), x)


#: name -> an augmentation of (n, c, h, w) in [-1, 1].
AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "translation": translation,
    "color": color,
    "cutout": cutout,
    "flip": flip,
}


def augment(x: Tensor, names: Sequence[str]) -> Tensor:
    """Applies the named augmentations in turn, each image with draws of its own."""
    for name in names:
        x = AUGMENTATIONS[name](x)
    return x
