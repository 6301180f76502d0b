"""The frames of clips, one by one: what a network sees in them that knows nothing of motion."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.classifier import Classifier
from aigc_cli.modalities.image_network import ImageNetwork
from aigc_cli.registry import register


@register("extractor", "frames", PlainConfig)
class Frames(Classifier):
    """``[<data>-frames]``: the network of images, which learns the classes of clips from single frames.

    Raises:
        ConfigError: the data is not of clips, or has no labels.
    """

    suffix = "frames"
    layers = ("features", "logits", "frames")

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        spec = None if sources.splits is None else sources.splits["train"].plain.spec
        if spec is not None and len(spec.raw) != 4:
            raise ConfigError("extractor=frames looks at clips of video", "use another extractor=")
        super().__init__(config, sources)

    def network(self) -> nn.Module:
        """Of images of a frame's size."""
        channels, _, height, width = self.train.spec.raw
        return _OfFrames(channels, min(height, width), len(self.train.spec.classes))


class _OfFrames(nn.Module):
    """Clips (n, c, t, h, w) to ``"features"`` (n, d) of one frame each, to ``"frames"``, the logits of each of their
    frames one after the other (n, t * k), and to ``"logits"`` (n, k), the mean of these."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        self.images = ImageNetwork(channels, side, classes)

    def forward(self, clips: Tensor) -> dict[str, Tensor]:
        """In training one frame of each clip by chance; else all frames, and features of one that the sum of all
        pixels decides: which one that is says nothing about their order."""
        n, frames = len(clips), clips.shape[2]
        if self.training:
            chosen = torch.randint(frames, (n,), device=clips.device)
            found: dict[str, Tensor] = self.images(clips[torch.arange(n, device=clips.device), :, chosen])
            return found
        each = self.images(clips.transpose(1, 2).flatten(0, 1))
        chosen = ((clips.double() + 1) * 127.5).round().sum(dim=(1, 2, 3, 4)).long() % frames
        features = each["features"].view(n, frames, -1)[torch.arange(n, device=clips.device), chosen]
        logits = each["logits"].view(n, frames, -1)
        return {"features": features, "logits": logits.mean(dim=1), "frames": logits.flatten(1)}
