"""One-dimensional signals, such as sines and square waves: a modality of one's own, with data to train on.

aigc train --plugin signals model=vae data=signals
"""

import hashlib
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset, Split
from aigc_cli.data.splits import CutConfig, rows_of
from aigc_cli.modalities.arrays import ArrayWriter
from aigc_cli.modalities.base import Batch, Codec, DataSpec, Modality
from aigc_cli.modalities.image_writers import PNGWriter
from aigc_cli.registry import register

SHAPES = ("sine", "square", "triangle", "sawtooth")


class SignalCodec(Codec):
    """Samples of 16 bits, int16 (n, channels, time), to [-1, 1] and back."""

    def encode(self, content: Tensor) -> Tensor:
        return content.float() / 32767

    def decode(self, encoded: Tensor) -> Tensor:
        return (encoded.float() * 32767).round().clamp(-32767, 32767).to(torch.int16)


class SignalWriter(ArrayWriter):
    """``samples.npz``, and a picture of the first curves."""

    preview_suffix = ".png"

    def put(self, raw: Tensor) -> None:
        super().put(raw)
        if self.written == 0:
            first, path = raw[: self.usual], self.folder / "overview.png"
            self.preview(path, [first], self.arrangement, self.codec, f"samples 0 to {len(first) - 1}")

    def end(self) -> tuple[list[str], list[str]]:
        return super().end()[0], ["overview.png"]

    @classmethod
    def preview(cls, path, batches, arrangement, codec, title) -> None:  # type: ignore[no-untyped-def]
        PNGWriter.preview(path, [curves(codec.encode(raw)) for raw in batches], arrangement, codec, title)


def curves(signals: Tensor, height: int = 48) -> Tensor:
    """The first channel of signals (n, channels, time) in [-1, 1], drawn in black: uint8 (n, 1, height, time)."""
    place = (1 - signals[:, :1]) / 2 * (height - 1)
    before = torch.cat([place[..., :1], place[..., :-1]], dim=-1)
    row = torch.arange(height)[:, None]
    low, high = torch.minimum(place, before), torch.maximum(place, before)
    ink = (row >= low[:, :, None] - 0.7) & (row <= high[:, :, None] + 0.7)
    return torch.where(ink, 0, 255).to(torch.uint8)


@register("modality", "signal")
class SignalModality(Modality):
    """Signals of one length."""

    name = "signal"
    axes = ("channels", "time")
    noun = ("signal", "signals")

    def codec(self, spec, folder=None) -> Codec:  # type: ignore[no-untyped-def]
        return SignalCodec()

    @cached_property
    def writers(self):  # type: ignore[no-untyped-def]
        return {"npz": SignalWriter}

    def network(self, spec: DataSpec) -> nn.Module:
        return SignalNetwork(spec.shape[0], len(spec.classes))


class SignalNetwork(nn.Module):
    """Three convolutions, whose mean over time tells the classes apart."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        widths = (channels, 16, 32, 64)
        self.body = nn.Sequential(
            *(
                nn.Sequential(nn.Conv1d(a, b, 5, stride=2, padding=2), nn.BatchNorm1d(b), nn.ReLU())
                for a, b in pairwise(widths)
            ),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(64, classes)

    def forward(self, signals: Tensor) -> dict[str, Tensor]:
        features = self.body(signals)
        return {"features": features, "logits": self.head(features)}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SignalsConfig(CutConfig):
    """See ``configs/data/signals.yaml``."""

    name: Literal["signals"]
    count: Annotated[int, Field(ge=8)]
    length: Annotated[int, Field(ge=8)]


@register("data", "signals", SignalsConfig)
class Signals(Dataset):
    """Waves of four shapes, of one to three periods from any phase on, as loud as chance has it."""

    codec = SignalCodec()

    def __init__(self, config: SignalsConfig, split: Split) -> None:
        random = torch.Generator().manual_seed(0)
        periods, phase, loudness = torch.rand(3, config.count, 1, generator=random)
        at = (torch.arange(config.length) / config.length * (1 + 2 * periods) + phase) % 1
        saw = 2 * at - 1
        shapes = torch.stack([torch.sin(2 * torch.pi * at), torch.where(at < 0.5, 1, -1), 1 - 2 * saw.abs(), saw])
        labels = torch.arange(config.count) % len(SHAPES)
        waves = shapes[labels, torch.arange(config.count)] * (0.4 + 0.6 * loudness)
        rows = torch.as_tensor(rows_of(split, config.count, config.cut, "signals"))
        self.batch = Batch(self.codec.decode(waves[rows, None]), labels[rows])
        shape = tuple(self.batch.content.shape[1:])
        fingerprint = hashlib.sha256(self.batch.content.numpy().tobytes()).hexdigest()
        self.spec = DataSpec("signal", shape, SHAPES, fingerprint=fingerprint)

    def __len__(self) -> int:
        return len(self.batch)

    def resident(self) -> Batch:
        return self.batch

    def read(self, index: int) -> tuple[Tensor, int]:
        return self.batch.content[index], int(self.batch.labels[index])
