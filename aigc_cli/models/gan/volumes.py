"""The networks of ``dcgan3d``: clips, by convolutions over frames and pixels (Vondrick, Pirsiavash and Torralba,
Generating Videos with Scene Dynamics, 2016), with a second discriminator that sees single frames (Tulyakov et al.,
MoCoGAN: Decomposing Motion and Content for Video Generation, 2018)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError
from aigc_cli.models.gan.config import GANConfig
from aigc_cli.models.gan.networks import BASE, SIZES, LatentAndClass, ProjectionHead, fully_connected, pyramid
from aigc_cli.nn.blocks import LEAK, init_weights
from aigc_cli.nn.collective import draw, integers

_FEWEST = 2  # frames of the smallest volume, at least
_FRAMES = 2  # of a clip that the second discriminator sees, drawn anew each time

Stride = tuple[int, int, int]


def halvings(shape: tuple[int, ...]) -> list[Stride]:
    """By what clips (c, t, h, w) are narrowed, layer by layer, until a side is 4; frames by the last layers, while they
    are even and more than 2; a ConfigError for clips that it does not serve."""
    if len(shape) != 4:
        what = f"model.network=dcgan3d makes clips, and these items have the shape {'x'.join(map(str, shape))}"
        raise ConfigError(what, "set another model.network=, such as dcgan for images and spectrograms")
    _, frames, height, width = shape
    if height != width or height not in SIZES:
        what = f"model.network=dcgan3d makes square clips of {', '.join(map(str, SIZES))} pixels, not {height}x{width}"
        raise ConfigError(what, "set data.size= to one of them")
    layers, along = int(math.log2(height // BASE)), 0
    while along < layers and frames % 2 == 0 and frames // 2 >= _FEWEST:
        frames, along = frames // 2, along + 1
    return [(2 if layer >= layers - along else 1, 2, 2) for layer in range(layers)]


def _smallest(shape: tuple[int, ...], strides: list[Stride]) -> tuple[int, int, int]:
    return shape[1] // math.prod(stride[0] for stride in strides), BASE, BASE


def _norm(norm: str, channels: int) -> nn.Module:
    if norm == "none":
        return nn.Identity()
    return nn.BatchNorm3d(channels) if norm == "batch" else nn.GroupNorm(math.gcd(channels, 8), channels)


def _down(inputs: int, outputs: int, stride: Stride) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, [2 + each for each in stride], stride, padding=1)  # type: ignore[arg-type]


class VolumeGenerator(nn.Module):
    """A linear layer, then transposed convolutions that double what the discriminator's halve."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        if config.generator_norm == "pixel":
            raise ConfigError("model.network=dcgan3d has no pixel norm", "choose model.generator_norm=batch or group")
        strides = halvings(shape)
        widths = pyramid(config.generator_widths, len(strides))[::-1]
        self.latent = LatentAndClass(config.latent, classes, config.embedding)
        self.base = widths[0], *_smallest(shape, strides)
        hidden = fully_connected(self.latent.width, config.hidden, config.generator_norm) if config.hidden else ()
        self.stem = nn.Sequential(*hidden, nn.Linear(config.hidden or self.latent.width, math.prod(self.base)))
        layers: list[nn.Module] = []
        for (inputs, outputs), stride in zip(pairwise([*widths, shape[0]]), strides[::-1], strict=True):
            kernel = [2 + each for each in stride]
            layers += [_norm(config.generator_norm, inputs), nn.LeakyReLU(LEAK)]
            layers += [nn.ConvTranspose3d(inputs, outputs, kernel, stride, padding=1)]  # type: ignore[arg-type]
        self.body = nn.Sequential(*layers, nn.Tanh())
        init_weights(self, config.init)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, latent) to (n, c, t, h, w) in [-1, 1]."""
        volume = self.stem(self.latent(latent, labels)).view(-1, *self.base)
        clips: Tensor = self.body(volume.contiguous(memory_format=torch.channels_last_3d))
        return clips


class VolumeDiscriminator(nn.Module):
    """Convolutions over the whole clip, and others over a few of its frames, one by one: the mean of both scores."""

    def __init__(self, config: GANConfig, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        strides, norm = halvings(shape), config.discriminator_norm
        widths = pyramid(config.discriminator_widths, len(strides))
        volumes: list[nn.Module] = [_down(shape[0], widths[0], strides[0]), nn.LeakyReLU(LEAK)]
        images: list[nn.Module] = [nn.Conv2d(shape[0], widths[0], 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        for (inputs, outputs), stride in zip(pairwise(widths), strides[1:], strict=True):
            volumes += [_down(inputs, outputs, stride), _norm(norm, outputs), nn.LeakyReLU(LEAK)]
            images += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        size = widths[-1] * math.prod(_smallest(shape, strides))
        hidden = fully_connected(size, config.hidden, norm) if config.hidden else ()
        self.volumes = nn.Sequential(*volumes, nn.Flatten(), *hidden)
        self.images = nn.Sequential(*images, nn.Flatten())
        self.head = ProjectionHead(config.hidden or size, classes)
        self.frame_head = ProjectionHead(widths[-1] * BASE**2, classes)
        init_weights(self, config.init)

    def forward(self, clips: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n, c, t, h, w) to (n,)."""
        score: Tensor = self.head(self.volumes(clips.contiguous(memory_format=torch.channels_last_3d)), labels)
        n, frames = len(clips), clips.shape[2]
        count = min(_FRAMES, frames) if self.training else frames
        if self.training:
            chosen = draw(integers(frames), n, count, device=clips.device)
        else:
            chosen = torch.arange(frames, device=clips.device).expand(n, -1)
        rows = torch.arange(n, device=clips.device)[:, None]
        single = clips.transpose(1, 2)[rows, chosen].flatten(0, 1)  # (n * count, c, h, w)
        told = None if labels is None else labels.repeat_interleave(count)
        frame_scores: Tensor = self.frame_head(self.images(single), told).view(n, count)
        return (score + frame_scores.mean(dim=1)) / 2
