"""The network that learns from clips, whose penultimate features metrics look at, and a small view of a clip."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from aigc_cli.modalities.audio_codecs import MelCodec
from aigc_cli.modalities.base import DataSpec
from aigc_cli.modalities.image_network import ImageNetwork

_BINS = 64
_FRAME_S = 0.016  # from frame to frame, about: onsets and syllables are seen, the single periods of a voice are not
_FEWEST_FRAMES, _MOST_FRAMES = 32, 512
#: In training, clips move by up to this share of their length: where in a clip a word begins says nothing about it.
_SHIFT = 1 / 8
_GAIN = 0.15  # and are louder or quieter by up to so much of the range of the logarithm
#: What is still the same clip where there are no classes: this share of what sounds at least, without so much of the
#: bins and frames at most.
_LEAST_PART, _MASKED = 0.6, 0.15
_HEARD = 60.0  # dB below its loudest place that are heard of a clip: what is quieter no person hears beside it
_GLANCE_RATE, _GLANCE = 8000, (16, 32)  # bins and frames


class _Mel(MelCodec):
    """What the network is given of clips."""

    preprocessing = f"log-mel spectrogram in [-1, 1], of each clip the upper {_HEARD:g} dB"

    def quietest(self, mel: Tensor) -> Tensor:
        """The level in each clip (n, 1, 1, 1) from which on it is heard."""
        low, high = self._range
        return mel.amax(dim=(1, 2, 3), keepdim=True) - _HEARD * math.log(10) / 20 / (high - low) * 2


class AudioNetwork(ImageNetwork):
    """The network of images over a log-mel spectrogram of the waveform, whatever a model sees of clips.

    What its own `codec` makes of clips, (n, channels, 64, frames) in [-1, 1], to features (n, 128) and logits
    (n, classes). What is too quiet to be heard beside the loudest of a clip is all the same to it.
    """

    edition: ClassVar[int] = 1  # since it hears as a person does

    def __init__(self, spec: DataSpec) -> None:
        channels, samples = spec.raw
        rate = spec.rate or _GLANCE_RATE
        codec = _Mel(rate, channels, samples, _hop(rate, samples), _BINS)
        super().__init__(channels, min(_BINS, codec.frames), len(spec.classes))
        self.codec = codec

    def forward(self, mel: Tensor) -> dict[str, Tensor]:
        """``"features"`` and ``"logits"``."""
        if self.training:
            mel = _louder(_later(mel))
        mel = torch.maximum(mel, self.codec.quietest(mel))
        features = self.body(mel.contiguous(memory_format=torch.channels_last))
        return {"features": features, "logits": self.head(features)}

    def augment(self, mel: Tensor) -> Tensor:
        """The same clips heard in another way: a part of what sounds, at another time, louder or quieter, with a few
        bins and frames left out. Neither reversed nor at another pitch, nor with noise: features are to tell those from
        the clips as they are."""
        return _louder(_later(_masked(_part(mel, mel > self.codec.quietest(mel)))))


def _hop(rate: int, samples: int) -> int:
    hop: int = 2 ** round(math.log2(rate * _FRAME_S))
    while samples // hop < _FEWEST_FRAMES and hop > 16:
        hop //= 2
    while samples // hop > _MOST_FRAMES:
        hop *= 2
    return hop


def _later(mel: Tensor) -> Tensor:
    """Each clip moved in time, with silence where nothing is."""
    frames = mel.shape[-1]
    reach = max(1, round(frames * _SHIFT))
    shift = torch.randint(-reach, reach + 1, (len(mel), 1), device=mel.device)
    place = torch.arange(frames, device=mel.device) - shift
    moved = mel.gather(3, place.clamp(0, frames - 1)[:, None, None].expand_as(mel))
    return moved.masked_fill(((place < 0) | (place >= frames))[:, None, None], -1.0)


def _part(mel: Tensor, heard: Tensor) -> Tensor:
    """A random part of each clip, up to the last that is `heard`; silence in the place of the rest."""
    frames = torch.arange(mel.shape[-1], device=mel.device)
    end = torch.where(heard.flatten(1, 2).any(dim=1), frames + 1, 0).amax(dim=1, keepdim=True)
    share = 1 - torch.rand(len(mel), 1, device=mel.device) * (1 - _LEAST_PART)
    start = torch.rand(len(mel), 1, device=mel.device) * (1 - share) * end
    outside = (frames < start.floor()) | (frames >= (start + share * end).ceil())
    return mel.masked_fill(outside[:, None, None], -1.0)


def _masked(mel: Tensor) -> Tensor:
    """Each clip without a band of bins and without a span of frames (Park et al., SpecAugment, 2019)."""
    for axis in (2, 3):
        size = mel.shape[axis]
        place = torch.arange(size, device=mel.device)
        width = torch.randint(0, max(2, round(size * _MASKED) + 1), (len(mel), 1), device=mel.device)
        start = (torch.rand(len(mel), 1, device=mel.device) * (size - width)).floor()
        within = (place >= start) & (place < start + width)
        mel = mel.masked_fill(within[:, None, :, None] if axis == 2 else within[:, None, None], -1.0)
    return mel


def _louder(mel: Tensor) -> Tensor:
    """Each clip with another gain; silence stays silence."""
    gain = (torch.rand(len(mel), 1, 1, 1, device=mel.device) * 2 - 1) * _GAIN
    return torch.where(mel > -1, (mel + gain).clamp(-1, 1), mel)


def glance(content: Tensor) -> Tensor:
    """int16 clips (n, channels, samples) as small log-mel spectrograms, uint8 (n, channels, 16, 32)."""
    channels, samples = content.shape[1:]
    hop = max(16, 2 ** int(math.log2(samples / _GLANCE[1])))
    codec = MelCodec(_GLANCE_RATE, channels, samples, hop, _GLANCE[0])
    small = nn.functional.adaptive_avg_pool2d(codec.encode(content), _GLANCE)
    return ((small + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
