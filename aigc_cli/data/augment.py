"""Changes of images that a person asks for by name, drawn anew for each item in each epoch.

Unlike those in front of a discriminator (``nn/augment.py``) they are part of the data: what a model is shown so, it
learns to make. Draws are an item's own, of (seed, epoch, index), so that they depend neither on its batch nor on when a
run was stopped. All that moves pixels is one resampling, since each blurs a little; a mirror alone is exact.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Augmentation = Literal["crop", "shift", "rotation", "colour", "flip"]
LEAST_AREA = 0.7  # share of an image that a crop keeps, at least
SHIFT = 0.125  # of the side, at most, to either side
TURN = math.radians(15)
BRIGHTNESS, CONTRAST, SATURATION = 0.15, 0.25, 0.4  # at most, of the range and as changes of a factor of 1


def augmented(content: Tensor, uniform: Tensor, names: Collection[str]) -> Tensor:
    """Images uint8 (n, c, h, w) as `names` of :data:`Augmentation` change them, in the same form.

    `uniform` is float32 (n, 8) in [0, 1): the draws of each image, of which every augmentation has its own.
    """
    if {"crop", "shift", "rotation"} & set(names):
        content = _resampled(content, uniform, names)
    elif "flip" in names:
        content = mirrored(content, uniform[:, 0] < 0.5)
    return _recoloured(content, uniform) if "colour" in names else content


def mirrored(content: Tensor, which: Tensor) -> Tensor:
    """Images (n, c, h, w) with left and right exchanged where `which`, bool (n,), says so."""
    import torch

    n = len(content)
    index = torch.arange(n, device=content.device) + n * which  # without a host sync
    return torch.cat([content, content.flip(-1)]).index_select(0, index)  # twice as fast as torch.where


def _two(uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Two draws out of one, of 12 bits each: there are but eight for an item."""
    scaled = uniform * 4096
    first = scaled.floor()
    return first / 4096, scaled - first


def _resampled(content: Tensor, uniform: Tensor, names: Collection[str]) -> Tensor:
    """Bilinear samples where the changes together put each pixel; beyond the edges an image is mirrored."""
    import torch
    from torch.nn.functional import grid_sample

    n, (height, width) = len(content), content.shape[-2:]
    matrix = torch.eye(2, device=content.device).expand(n, 2, 2)  # from a place in the view to one in the image
    centre = torch.zeros(n, 2, device=content.device)  # x, y; an image reaches from -1 to 1
    if "rotation" in names:
        angle = (uniform[:, 4] * 2 - 1) * TURN
        cos, sin = angle.cos(), angle.sin()
        matrix = torch.stack([cos, -sin * height / width, sin * width / height, cos], dim=1).view(n, 2, 2)
    if "crop" in names:
        side = (LEAST_AREA + (1 - LEAST_AREA) * uniform[:, 1]).sqrt()
        matrix = matrix * side[:, None, None]
        centre = centre + (torch.stack(_two(uniform[:, 2]), dim=1) * 2 - 1) * (1 - side)[:, None]
    if "shift" in names:
        sides = torch.tensor([width, height], device=content.device)
        reach = (SHIFT * sides).round().clamp_min(1)
        whole = (torch.stack(_two(uniform[:, 3]), dim=1) * (2 * reach + 1)).floor() - reach  # pixels
        centre = centre + whole * 2 / sides
    if "flip" in names:
        across = torch.where(uniform[:, 0] < 0.5, -1.0, 1.0)
        matrix = matrix * torch.stack([across, torch.ones_like(across)], dim=1)[:, None]
    columns = (torch.arange(width, device=content.device) * 2 + 1) / width - 1
    rows = (torch.arange(height, device=content.device) * 2 + 1) / height - 1
    view = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # (h, w, 2)
    places = torch.einsum("nij,hwj->nhwi", matrix, view) + centre[:, None, None]
    pixels = grid_sample(content.float(), places, mode="bilinear", padding_mode="reflection", align_corners=False)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


def _recoloured(content: Tensor, uniform: Tensor) -> Tensor:
    """Brightness, contrast about an image's own mean, and saturation, each changed by up to its bound."""
    import torch

    brightness, contrast, saturation = ((uniform[:, 5:8] * 2 - 1)[..., None, None, None]).unbind(1)
    x = content.float()
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * (1 + SATURATION * saturation)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + CONTRAST * contrast) + 255 * BRIGHTNESS * brightness
    return x.round_().clamp_(0, 255).to(torch.uint8)
