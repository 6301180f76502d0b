"""What a model sees of sound: a log-mel spectrogram, a log-magnitude spectrogram as SpecGAN has it, or the waveform.

Spectrograms come back to sound by the fast Griffin-Lim algorithm (Perraudin et al., A fast Griffin-Lim algorithm, 2013)
from a phase that is always the same, so that a clip depends on its spectrogram alone.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.modalities.audio_config import CODEC_FILE, FULL, AudioCodecConfig, lengths
from aigc_cli.modalities.audio_decode import Normalize
from aigc_cli.modalities.base import Codec

FORMAT = 1  # of the file that a run keeps
_ROUNDS, _MOMENTUM = 32, 0.99  # of Griffin-Lim
_FITS = 30  # rounds in which magnitudes are sought for a mel
_QUIET = 1e-5  # the magnitude that the logarithm is floored at, of samples in [-1, 1]
_FLOOR = -0.99  # of what is encoded: what a network cannot tell from -1 is silence,
_MEL_FLOOR = -0.9  # and of mel what is within some dB of it, where real sound hardly is and networks often are
_LONGEST_FRAME_S = 0.016  # all of FSDD is recognised after frames of 16 ms, 97 % after 64; those of 8 cost twice
_STRIDE = 16  # frames come in multiples of it, so that networks can halve them
_DEVIATIONS = 3.0  # of a log magnitude from its mean that are kept, as in SpecGAN


class AudioCodec(Codec):
    """Base: int16 clips (n, channels, samples) at `rate` to `shape`, and back.

    `padding` is what encoded frames after the end of a clip hold; None where that is no one value.
    """

    kind: ClassVar[str]
    shape: tuple[int, ...]
    padding: float | None = None
    level: Normalize = "peak"  # how loud the data makes its files, and so those that a person names

    def __init__(self, rate: int, channels: int, samples: int) -> None:
        self.rate, self.channels, self.samples = rate, channels, samples

    def fit(self, clips: Iterable[Tensor]) -> None:
        """Learns what there is to learn of training clips, int16 (n, channels, samples) at a time; most need not."""

    def state(self) -> dict[str, Any]:
        """What makes the same codec again, for JSON, beside its kind, rate and size."""
        return {}

    def files(self) -> Mapping[str, str]:
        """``codec.json``."""
        own = {"format": FORMAT, "kind": self.kind, "rate": self.rate, "channels": self.channels}
        return {CODEC_FILE: json.dumps({**own, "samples": self.samples, **self.state()}, indent=1) + "\n"}


class WaveformCodec(AudioCodec):
    """Samples as they are, float32 in [-1, 1]."""

    kind = "waveform"
    preprocessing = "waveform in [-1, 1]"
    traceable = True
    padding = 0.0

    def __init__(self, rate: int, channels: int, samples: int) -> None:
        super().__init__(rate, channels, samples)
        self.shape = (channels, samples)

    def encode(self, content: Tensor) -> Tensor:
        """int16 (n, channels, samples) to float32."""
        return content.float().div_(FULL)

    def decode(self, encoded: Tensor) -> Tensor:
        """Floating (n, channels, samples) to int16."""
        return to_int16(encoded)


class _Spectrogram(AudioCodec):
    """Base of what goes by magnitudes of a short-time Fourier transform, (n, channels, bins, frames)."""

    depth: float | None = None  # dB below a full-scale sine that are silence; None is where `_QUIET` is

    def __init__(self, rate: int, channels: int, samples: int, hop: int, bins: int, window: int) -> None:
        super().__init__(rate, channels, samples)
        self.hop, self.bins, self.window_length = hop, bins, window
        if samples // hop < 4:
            what = f"clips of {samples} samples have {samples // hop} frames of data.codec.hop={hop} samples"
            raise ConfigError(what, "lower data.codec.hop=, or raise data.seconds=")
        if window < 2 * hop:
            what = f"data.codec.hop={hop} skips samples between windows of {window}"
            raise ConfigError(what, f"lower data.codec.hop= to {window // 2}, or raise data.codec.bins=")
        self.frames = -(-samples // (_STRIDE * hop)) * _STRIDE
        self.shape = (channels, bins, self.frames)

    @abstractmethod
    def of_magnitudes(self, magnitudes: Tensor) -> Tensor:
        """Magnitudes (n, channels, window / 2 + 1, frames) to what a model sees."""

    @abstractmethod
    def to_magnitudes(self, encoded: Tensor) -> Tensor:
        """And back."""

    def state(self) -> dict[str, Any]:
        """See :meth:`AudioCodec.state`."""
        return {"hop": self.hop, "bins": self.bins, **({} if self.depth is None else {"depth": self.depth})}

    def encode(self, content: Tensor) -> Tensor:
        """int16 (n, channels, samples) to float32 (n, *shape)."""
        return self.of_magnitudes(self.magnitudes(content))

    def magnitudes(self, content: Tensor) -> Tensor:
        """int16 (n, channels, samples) to (n, channels, window / 2 + 1, frames)."""
        return self.stft(content.float() / FULL).abs()

    def decode(self, encoded: Tensor) -> Tensor:
        """Floating (n, *shape) to int16 (n, channels, samples), by Griffin-Lim."""
        magnitudes = self.to_magnitudes(encoded.float())
        phase = self._phase.to(magnitudes.device).expand_as(magnitudes)
        before = torch.zeros_like(magnitudes, dtype=torch.complex64)
        found = magnitudes * phase
        for _ in range(_ROUNDS):
            rebuilt = self.stft(self.istft(found))
            ahead = rebuilt + _MOMENTUM * (rebuilt - before)
            found, before = magnitudes * (ahead / ahead.abs().clamp_min(1e-12)), rebuilt
        waves = self.istft(found)
        return to_int16(waves / waves.abs().amax(dim=(1, 2), keepdim=True).clamp_min(1))  # quieter, and not clipped

    def stft(self, waves: Tensor) -> Tensor:
        """Floating (n, channels, samples) to complex (n, channels, window / 2 + 1, frames)."""
        n, channels, samples = waves.shape
        pad, missing = self.window_length - self.hop, self.frames * self.hop - samples
        padded = torch.nn.functional.pad(waves.reshape(n * channels, samples), (pad // 2, pad - pad // 2 + missing))
        window = self._window.to(waves.device)
        found = torch.stft(padded, self.window_length, self.hop, window=window, center=False, return_complex=True)
        return found.view(n, channels, *found.shape[1:])

    def istft(self, found: Tensor) -> Tensor:
        """Complex (n, channels, window / 2 + 1, frames) to floating (n, channels, samples)."""
        n, channels = found.shape[:2]
        pieces = torch.fft.irfft(found.flatten(0, 1), n=self.window_length, dim=1)
        added = self._added(pieces * self._window.to(pieces.device)[:, None]) / self._weight.to(pieces.device)
        pad = (self.window_length - self.hop) // 2
        return added[:, pad : pad + self.samples].view(n, channels, -1)

    def _added(self, pieces: Tensor) -> Tensor:
        """Windows (n, window, frames) added up where they overlap, (n, time)."""
        total = self.window_length + self.hop * (self.frames - 1)
        found: Tensor = torch.nn.functional.fold(
            pieces, output_size=(1, total), kernel_size=(1, self.window_length), stride=(1, self.hop)
        )
        return found[:, 0, 0]

    @cached_property
    def _weight(self) -> Tensor:
        """The squares of all windows added up at each sample, (1, time): each round of Griffin-Lim divides by it."""
        squares = self._window.square()[:, None].expand(-1, self.frames)[None]
        return self._added(squares).clamp_min(1e-8)

    @cached_property
    def _window(self) -> Tensor:
        return torch.hann_window(self.window_length)

    @cached_property
    def _phase(self) -> Tensor:
        random = torch.Generator().manual_seed(0)
        size = (1, self.channels, self.window_length // 2 + 1, self.frames)
        angle = 2 * math.pi * torch.rand(size, generator=random)
        return torch.polar(torch.ones_like(angle), angle)


class MelCodec(_Spectrogram):
    """The logarithm of mel magnitudes in [-1, 1], -1 for silence, (n, channels, bins, frames)."""

    kind = "mel"
    preprocessing = "log-mel spectrogram in [-1, 1]"
    padding = -1.0

    def __init__(self, rate: int, channels: int, samples: int, hop: int, bins: int, depth: float | None = None) -> None:
        super().__init__(rate, channels, samples, hop, bins, 4 * hop)
        self.depth = depth
        high = math.log(self.window_length / 4)  # of a full-scale sine, a window's sum of it: what 1 stands for
        self._range = math.log(_QUIET) if depth is None else high - depth * math.log(10) / 20, high
        self._matrix = mel_matrix(rate, self.window_length // 2 + 1, bins)

    def of_magnitudes(self, magnitudes: Tensor) -> Tensor:
        """See the class."""
        mel = self._matrix.to(magnitudes.device) @ magnitudes
        low, high = self._range
        return torch.sub((mel.clamp_min(_QUIET).log().clamp_min(low) - low) / (high - low) * 2, 1)

    def to_magnitudes(self, encoded: Tensor) -> Tensor:
        """Magnitudes of no less than zero, sought by multiplying (Lee and Seung, Algorithms for non-negative matrix
        factorization, 2001): the pseudo-inverse has ripples beside each partial of a tone, which are heard. What is at
        the floor is silence."""
        low, high = self._range
        level = (encoded.clamp(-1, 1) + 1) / 2 * (high - low) + low
        matrix = self._matrix.to(encoded.device)
        found = wanted = matrix.T @ torch.where(encoded <= _MEL_FLOOR, 0.0, level.exp())
        for _ in range(_FITS):
            found = found * wanted / (matrix.T @ (matrix @ found)).clamp_min(1e-20)
        return found


class SpectrogramCodec(_Spectrogram):
    """The logarithm of magnitudes at evenly spaced frequencies, each normalised by its mean and deviation over training
    clips and cut to three deviations, in [-1, 1], -1 for silence, (n, channels, bins, frames) (Donahue et al.,
    Adversarial Audio Synthesis, 2019, section 3.2, with windows of 2 * bins samples; the highest frequency of all is
    left out).
    """

    kind = "spectrogram"
    preprocessing = "log-magnitude spectrogram, each frequency normalised, in [-1, 1]"
    padding = -1.0

    def __init__(self, rate: int, channels: int, samples: int, hop: int, bins: int) -> None:
        super().__init__(rate, channels, samples, hop, bins, 2 * bins)
        self.statistics: Tensor | None = None  # the means and deviations (2, bins, 1) of log magnitudes, float32

    def fit(self, clips: Iterable[Tensor]) -> None:
        """The statistics, of the frames that begin before the end of a clip: silence after it says nothing of sound."""
        sums = torch.zeros(3, self.bins, dtype=torch.float64)
        for content in clips:
            heard = torch.arange(self.frames) * self.hop < lengths(content)[:, None]
            found = self._log(self.magnitudes(content)).permute(0, 3, 1, 2)[heard].reshape(-1, self.bins).double()
            sums += torch.stack([torch.ones_like(found).sum(0), found.sum(0), found.square().sum(0)])
        mean, square = sums[1:] / sums[0].clamp_min(1)
        deviation = (square - mean.square()).clamp_min(1e-6).sqrt()
        self.statistics = torch.stack([mean, deviation]).float()[..., None]

    def state(self) -> dict[str, Any]:
        """See :meth:`AudioCodec.state`."""
        mean, deviation = self._statistics[..., 0].tolist()
        return {**super().state(), "mean": mean, "deviation": deviation}

    def of_magnitudes(self, magnitudes: Tensor) -> Tensor:
        """See the class."""
        mean, deviation = self._statistics.to(magnitudes.device)
        found = torch.clamp((self._log(magnitudes) - mean) / (_DEVIATIONS * deviation), -1, 1)
        return torch.where(magnitudes[:, :, : self.bins] > _QUIET, found, -1.0)

    def to_magnitudes(self, encoded: Tensor) -> Tensor:
        """See the class; what is at the floor is silence, and so is the frequency that is left out."""
        mean, deviation = self._statistics.to(encoded.device)
        found = (encoded.clamp(-1, 1) * (_DEVIATIONS * deviation) + mean).exp()
        return torch.nn.functional.pad(torch.where(encoded <= _FLOOR, 0.0, found), (0, 0, 0, 1))

    def _log(self, magnitudes: Tensor) -> Tensor:
        return magnitudes[:, :, : self.bins].clamp_min(_QUIET).log()

    @property
    def _statistics(self) -> Tensor:
        if self.statistics is None:
            raise RuntimeError("a codec of spectrograms is fitted on training clips first")
        return self.statistics


def mel_matrix(rate: int, bins: int, mels: int) -> Tensor:
    """Triangles over the mel scale (O'Shaughnessy 1987: 2595 log10(1 + f / 700)), each with a sum of 1: (mels, bins)
    from linear frequencies in [0, rate / 2]."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, mels + 2, dtype=torch.float64) / 2595) - 1)
    at = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    low, centre, high = (edges[part : part + mels, None] for part in range(3))
    rising, falling = (at - low) / (centre - low), (high - at) / (high - centre)
    triangles = torch.minimum(rising, falling).clamp_min(0)
    nearest = torch.nn.functional.one_hot((at - centre).abs().argmin(dim=1), bins).double()
    triangles = torch.where(triangles.sum(dim=1, keepdim=True) > 0, triangles, nearest)  # narrower than a bin
    return (triangles / triangles.sum(dim=1, keepdim=True)).float()


def to_int16(waves: Tensor) -> Tensor:
    """Floating samples in [-1, 1] to int16, clamped."""
    return waves.mul(FULL).round_().clamp_(-FULL, FULL).to(torch.int16)


def make_codec(config: AudioCodecConfig, rate: int, channels: int, samples: int) -> AudioCodec:
    """A codec that is not fitted yet, of clips of so many samples."""
    if config.path is not None:
        path = Path(config.path)
        return read_codec(path / CODEC_FILE if path.is_dir() else path)
    if config.kind == "waveform":
        return WaveformCodec(rate, channels, samples)
    if config.kind == "mel":
        hop = config.hop or _usual_hop(rate, samples, 64)
        return MelCodec(rate, channels, samples, hop, config.bins or 64, config.depth)
    bins = config.bins or 128
    hop = config.hop or min(_usual_hop(rate, samples, 128), bins)  # windows of 2 * bins samples leave no gaps
    return SpectrogramCodec(rate, channels, samples, hop, bins)


def _usual_hop(rate: int, samples: int, frames: int) -> int:
    """The power of two by which clips have so many frames at least, and a frame is about 16 ms long at most."""
    longest = 2 ** round(math.log2(rate * _LONGEST_FRAME_S))
    return int(min(longest, 2 ** max(4, int(math.log2(samples / frames)))))


def _fitted(codec: SpectrogramCodec, saved: Mapping[str, Any]) -> SpectrogramCodec:
    """With the statistics that a file says; raises ValueError where these cannot be."""
    found = torch.tensor([saved["mean"], saved["deviation"]], dtype=torch.float32)[..., None]
    if found.shape != (2, codec.bins, 1) or not found.isfinite().all() or (found[1] <= 0).any():
        raise ValueError(f"its statistics are not those of {codec.bins} frequencies")
    codec.statistics = found
    return codec


def read_codec(path: Path) -> AudioCodec:
    """The codec in a ``codec.json``, which may come from a stranger; raises DataError where it is missing or broken."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["format"] != FORMAT:
            raise ValueError(f"it has format {saved['format']}, and this version knows {FORMAT}")
        size = (int(saved["rate"]), int(saved["channels"]), int(saved["samples"]))
        frames: tuple[int, ...] = () if saved["kind"] == "waveform" else (int(saved["hop"]), int(saved["bins"]))
        if min(*size, *frames) < 1:
            raise ValueError("its sizes are not positive")
        if saved["kind"] == "waveform":
            return WaveformCodec(*size)
        if saved["kind"] == "mel":
            return MelCodec(*size, frames[0], frames[1], AudioCodecConfig(kind="mel", depth=saved.get("depth")).depth)
        if saved["kind"] == "spectrogram":
            return _fitted(SpectrogramCodec(*size, *frames), saved)
        raise ValueError(f"there is no codec {saved['kind']!r}")
    except (OSError, ValueError, ArithmeticError, KeyError, TypeError, ConfigError) as error:
        raise DataError(f"{path} is not a codec of sound: {error}", "restore the run's own file") from None
