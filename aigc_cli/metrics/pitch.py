"""Whether clips of sound have the pitch that they should: ``f0`` of reconstructions, and ``pitch`` of any samples."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from aigc_cli.errors import DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, require
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.reconstructions import PairMetric
from aigc_cli.registry import register

_LOWEST, _HIGHEST = 60.0, 1000.0  # Hz, between which a pitch is looked for
_CLEAR = 0.85  # how alike one period and the next have to be
_FIRST = 0.9  # of the best likeness, from which on the shortest period counts
_LOUD = 10**-1.5  # of the loudest frame, below which a frame does not count: -30 dB
_MOST = 0.5  # of the frames that count have to be clear
_WRONG = 50.0  # cents from which on a pitch is another: half a semitone
_AT_ONCE = 64


def pitches(clips: Tensor, rate: int) -> Tensor:
    """The pitch of each clip, int16 (n, channels, samples), in Hz, float64 (n,); 0 where it has none: the median over
    its loud frames of 50 ms of the shortest period at which they are nearly alike (McLeod and Wyvill, A Smarter Way to
    Find Pitch, 2005)."""
    return torch.cat([_pitches(part, rate) for part in torch.split(clips, _AT_ONCE)])


def _pitches(clips: Tensor, rate: int) -> Tensor:
    waves = clips.double().mean(dim=1)
    size = 2 * math.ceil(rate / _LOWEST) + 64
    if waves.shape[1] < size:
        waves = torch.nn.functional.pad(waves, (0, size - waves.shape[1]))
    frames = waves.unfold(1, size, size // 2)  # (n, frames, size)
    power = frames.square().mean(dim=2).sqrt()
    loud = (power > _LOUD * power.amax(dim=1, keepdim=True)) & (power > 1)
    alike = _alike(frames)
    shortest, longest = max(2, int(rate / _HIGHEST)), size // 2
    peak = (alike[..., 1:-1] > alike[..., :-2]) & (alike[..., 1:-1] >= alike[..., 2:])
    found = torch.where(peak, alike[..., 1:-1], -1.0)[..., shortest - 1 : longest]
    best = found.amax(dim=2, keepdim=True)
    first = (found >= _FIRST * best.clamp_min(1e-9)).to(torch.uint8).argmax(dim=2) + shortest
    before, at, after = (alike.gather(2, (first + step)[..., None])[..., 0] for step in (-1, 0, 1))
    curve = before - 2 * at + after
    period = first + torch.where(curve.abs() > 1e-12, (before - after) / (2 * curve), 0.0).clamp(-0.5, 0.5)
    clear = loud & (at > _CLEAR)
    hertz = torch.where(clear, rate / period, torch.nan).nanmedian(dim=1).values
    enough = clear.sum(dim=1) >= (_MOST * loud.sum(dim=1)).clamp_min(1)
    return torch.where(enough & hertz.isfinite(), hertz, 0.0)


def _alike(frames: Tensor) -> Tensor:
    """How alike each frame (..., size) is to itself so many samples later, in [-1, 1]: equation 9 of the paper."""
    size = frames.shape[-1]
    spectrum = torch.fft.rfft(frames, 2 * size)
    product = torch.fft.irfft(spectrum.abs().square(), 2 * size)[..., :size]
    squares = frames.square()
    ahead = squares.flip(-1).cumsum(-1)  # of the first so many samples less, and of the last, from either end
    energy = ahead.flip(-1) + squares.cumsum(-1).flip(-1)
    found: Tensor = 2 * product / energy.clamp_min(1e-9)
    return found


@register("metric", "f0", PlainConfig)
class F0(PairMetric):
    """``f0``: of clips that have a pitch, ``f0_wrong`` is the share whose reconstruction has none, or one that is more
    than 50 cents away, and ``f0_cents`` the mean distance of the others."""

    figures: ClassVar[Figures] = {"f0_cents": "lower", "f0_wrong": "lower"}

    def measured(self, items: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Of clips (n, channels, samples)."""
        wanted, found = (pitches(part, _rate(self)) for part in (items, made))
        cents = torch.where((wanted > 0) & (found > 0), 1200 * (found / wanted).log2().abs(), torch.inf)
        wrong = torch.where(wanted > 0, (cents > _WRONG).double(), torch.nan)
        return {"f0_cents": torch.where((wanted > 0) & (cents <= _WRONG), cents, torch.nan), "f0_wrong": wrong}

    def compute(self) -> dict[str, Tensor]:
        """The scores."""
        found = super().compute()
        if "f0_wrong" not in found:
            raise DataError("no clip has a pitch", "ask for metric=reconstruction")
        return found


@register("metric", "pitch", PlainConfig)
class Pitch(Metric):
    """``pitch``: ``pitched`` is the share of clips that have one, which should be near that of real clips, and
    ``pitch_distance`` how far in cents the pitches are from those of real clips, both in ascending order (the
    1-Wasserstein distance). It does not see whether a class has its own pitches."""

    takes: ClassVar[Takes] = {"real": ("content",), "fake": ("content",)}
    figures: ClassVar[Figures] = {"pitched": "near", "pitch_distance": "lower"}

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        for side in self.takes:
            self.add_state(side, default=[], dist_reduce_fx="cat")

    def update(self, stream: Stream, clips: Tensor, *originals: Tensor) -> None:
        """Keeps the pitch of each clip (n, channels, samples)."""
        getattr(self, stream).append(pitches(clips, _rate(self)).cpu())

    def compute(self) -> dict[str, Tensor]:
        """The scores."""
        kept = (getattr(self, side) for side in ("real", "fake"))
        real, fake = (dim_zero_cat(some) if len(some) else torch.zeros(0) for some in kept)
        require(len(fake), 1, "generated", "pitch", "give more clips with n=")
        found = {"pitched": (fake > 0).double().mean()}
        have = [side[side > 0].log2() for side in (real, fake)]
        if all(len(side) for side in have):
            at = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
            found["pitch_distance"] = 1200 * (have[0].quantile(at) - have[1].quantile(at)).abs().mean()
        return found


def _rate(metric: Metric) -> int:
    if metric.spec is None or metric.spec.rate is None:
        raise DataError("only sound has a pitch", "leave this metric out")
    return metric.spec.rate
