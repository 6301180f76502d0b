"""The network that learns from clips, with classes or without, and whose penultimate features metrics look at."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from aigc_cli.modalities.image_network import cropped
from aigc_cli.nn.augment import translation

WIDTH = 96
_SHIFT = 1 / 16  # of the side, by which clips move in training, all frames of one alike
_COLOUR = 0.4  # what contrast and brightness change by where there are no classes
#: What is done to the time of half of the clips in training, which the network learns to tell beside their classes: so
#: that features see motion whatever the classes are (Misra, Zitnick and Hebert, Shuffle and Learn, 2016; Wei et al.,
#: Learning and Using the Arrow of Time, 2018; Benaim et al., SpeedNet, 2020).
_TIMES = ("as it is", "shuffled", "reversed", "slower", "frozen")


class VideoNetwork(nn.Module):
    """A plain network of convolutions over frames and pixels for clips of any size.

    Halves pixels to at most 16 by strides and then both to a few places, and averages what is left: (n, c, t, h, w) in
    [-1, 1] to features (n, 96) and logits (n, classes).
    """

    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, frames, height, width = shape
        side, inputs, outputs, layers = min(height, width), channels, 12, list[nn.Module]()
        while side > 4 or inputs < WIDTH:
            across = 2 if side > 2 else 1
            along = 2 if side <= 8 and frames > 2 else 1
            layers += _convolution(inputs, outputs, (along, across, across))
            inputs, outputs = outputs, min(2 * outputs, WIDTH)
            side, frames = -(-side // across), -(-frames // along)
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten())
        self.head = nn.Linear(WIDTH, classes)
        self.times = nn.Linear(WIDTH, len(_TIMES))

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """``"features"`` and ``"logits"``."""
        if self.training:
            clips = folded(translation, clips, _SHIFT)
        features = self.body(clips.contiguous(memory_format=torch.channels_last_3d))
        return {"features": features, "logits": self.head(features), "times": self.times(features)}

    def objective(self, clips: Tensor, labels: Tensor) -> Tensor:
        """What a classifier minimises: its classes of clips as they are, and what was done to the time of others."""
        changed, times = retimed(clips)
        found = self(changed)
        plain = times == 0
        classes = cross_entropy(found["logits"], labels, reduction="none")
        return torch.where(plain, classes, 0).sum() / plain.sum().clamp_min(1) + cross_entropy(found["times"], times)

    def beside(self, clips: Tensor) -> Tensor:
        """What is minimised beside a comparison of views: what was done to the time of clips."""
        changed, times = retimed(clips)
        return cross_entropy(self(changed)["times"], times)

    def augment(self, clips: Tensor) -> Tensor:
        """The same clips seen in another way, all frames of one alike: a part of the picture, with other contrast and
        brightness. Their time is not changed: features are to tell that."""
        parts = folded(cropped, clips)
        contrast, brightness = (
            (torch.rand(len(clips), 1, 1, 1, 1, device=clips.device) * 2 - 1) * _COLOUR for _ in "cb"
        )
        mean = parts.mean(dim=(1, 2, 3, 4), keepdim=True)
        return (parts - mean) * (1 + contrast) + mean + brightness / 2


def _convolution(inputs: int, outputs: int, stride: tuple[int, int, int]) -> list[nn.Module]:
    layer = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [layer, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]


def folded(change: object, clips: Tensor, *arguments: float) -> Tensor:
    """Clips (n, c, t, h, w) as a change of images makes of them, whose draws are then those of all frames of a clip."""
    images = clips.flatten(1, 2)
    changed: Tensor = change(images, *arguments)  # type: ignore[operator]
    return changed.view_as(clips)


def retimed(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Clips (n, c, t, h, w), of which about half have their time changed, and which change that is (n,), 0 for none."""
    n, frames, device = len(clips), clips.shape[2], clips.device
    times = torch.randint(1, len(_TIMES), (n,), device=device) * (torch.rand(n, device=device) < 0.5)
    forward = torch.arange(frames, device=device).expand(n, -1)
    shuffled = torch.rand(n, frames, device=device).argsort(dim=1)
    start = (torch.rand(n, 1, device=device) * frames).long()
    half = torch.arange(frames, device=device) // 2 + (torch.rand(n, 1, device=device) * math.ceil(frames / 2)).long()
    orders = torch.stack([forward, shuffled, forward.flip(1), half, start.expand(n, frames)])
    order = orders[times, torch.arange(n, device=device)]
    return clips.gather(2, order[:, None, :, None, None].expand_as(clips)), times
