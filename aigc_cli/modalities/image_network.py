"""The network that learns from images, with classes or without, and whose penultimate features metrics look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aigc_cli.nn.augment import translation

WIDTH = 128
#: In training, images move by up to this share of their side: without it, the features of what it was trained on
#: cluster more tightly than those of new images of the same kind, which would then score as less precise.
_SHIFT = 1 / 16
#: What is still the same image, where there are no classes: a part of this share of its area at least, this much longer
#: one way than the other at most, with this much more or less contrast, and as much brightness and colour.
_LEAST_AREA, _STRETCH, _COLOUR = 0.35, 4 / 3, 0.4


class ImageNetwork(nn.Module):
    """A plain convolutional network for images of any size.

    Halves the image to at most 32 pixels by strided convolutions, then to at most 4 by pooling, and averages what is
    left: (n, C, H, W) in [-1, 1] to features (n, 128) and logits (n, classes).
    """

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        while side > 32:
            layers += _convolution(width, 16, stride=2)
            width, side = 16, (side + 1) // 2
        layers += _convolution(width, 32)
        width = 32
        while side > 4:
            wider = min(2 * width, WIDTH)
            layers += [nn.MaxPool2d(2), *_convolution(width, wider)]
            width, side = wider, side // 2
        layers += [*_convolution(width, WIDTH), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``"features"`` and ``"logits"``."""
        if self.training:
            images = translation(images, _SHIFT).contiguous(memory_format=torch.channels_last)
        features = self.body(images)
        return {"features": features, "logits": self.head(features)}

    def augment(self, images: Tensor) -> Tensor:
        """The same images seen in another way, (n, C, H, W) in about [-1, 1]. Neither mirrored nor turned, nor blurred,
        nor with noise: features are to tell those from the images as they are."""
        return _coloured(cropped(images))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def cropped(images: Tensor) -> Tensor:
    """A random part of each image, brought to the size of the whole."""
    share = torch.empty(len(images), device=images.device).uniform_(_LEAST_AREA, 1)
    longer = (torch.rand_like(share) * 2 - 1) * math.log(_STRETCH)
    size = torch.stack([share * longer.exp(), share / longer.exp()], dim=1).sqrt().clamp_max(1)  # (n, 2): across, down
    centre = (torch.rand_like(size) * 2 - 1) * (1 - size)
    places = torch.cat([torch.diag_embed(size), centre[:, :, None]], dim=2)
    grid = nn.functional.affine_grid(places, list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _coloured(images: Tensor) -> Tensor:
    """Each image with its own change of contrast, of brightness, and of each channel."""
    contrast, brightness, colour = (
        (torch.rand(len(images), channels, 1, 1, device=images.device) * 2 - 1) * _COLOUR
        for channels in (1, 1, images.shape[1])
    )
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    shifted = mean + (brightness + (colour if images.shape[1] > 1 else 0)) / 2
    return (images - mean) * (1 + contrast) + shifted
