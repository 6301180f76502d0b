"""The network that learns the classes of images, whose penultimate features metrics look at."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aigc_cli.nn.augment import translation

WIDTH = 128
#: In training, images move by up to this share of their side: without it, the features of what it was trained on
#: cluster more tightly than those of new images of the same kind, which would then score as less precise.
_SHIFT = 1 / 16


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


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]
