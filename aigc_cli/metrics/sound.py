"""What a clip lost on the way through a model or a codec, in the words of those who work with sound: errors of spectra,
of cepstra, and where the phase is kept of the waveform itself."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from aigc_cli.modalities.audio_codecs import MelCodec, mel_matrix
from aigc_cli.modalities.audio_config import FULL, lengths

_FRAME_S = 0.008  # from frame to frame, about
_MELS, _CEPSTRA = 64, 13
_FLOOR = 1e-4  # 80 dB below a sine at full scale: what is quieter is silence, whose logarithm means nothing
_LEAST = 1e-10  # 100 dB; an infinite one cannot be written down
#: The packages that give further scores, where they are installed.
PACKAGES = {"stoi": "pystoi", "pesq": "pesq"}
_PESQ = {8000: "nb", 16000: "wb"}  # the rates that it is defined at


def clip_errors(clips: Tensor, made: Tensor, rate: int, *, align: bool = False) -> dict[str, Tensor]:
    """Of int16 clips (n, channels, samples) and what became of them, means over the frames of each (n,), as far as
    either of the two sounds: ``mel_l1``, the absolute difference of logarithms of mel magnitudes in nats; ``lsd``, the
    log-spectral distance in dB; and ``mcd``, the mel-cepstral distortion in dB of 13 coefficients without the first,
    frame against frame (Kubichek, Mel-cepstral distance measure for objective speech quality assessment, 1993), or with
    `align` along the path of :func:`along_best_path`, where one may be slower than the other."""
    samples = clips.shape[-1]
    hop = 2 ** max(4, min(round(math.log2(rate * _FRAME_S)), int(math.log2(samples / 4))))
    stft = MelCodec(rate, clips.shape[1], samples, hop, _MELS)
    x, y = (stft.stft(part.float() / FULL).abs().double() / (stft.window_length / 4) for part in (clips, made))
    ends = torch.maximum(lengths(clips), lengths(made)).clamp_min(1)
    sounds = (torch.arange(x.shape[-1], device=x.device) * hop < ends[:, None]).double()

    def over_frames(each: Tensor) -> Tensor:
        """The mean of (n, channels, frames) over channels and those frames that sound."""
        mean: Tensor = (each.mean(dim=1) * sounds).sum(dim=1) / sounds.sum(dim=1)
        return mean

    matrix = mel_matrix(rate, x.shape[2], _MELS).double().to(x.device)
    mels = [(matrix @ part).clamp_min(_FLOOR).log() for part in (x, y)]
    decibels = [20 * part.clamp_min(_FLOOR).log10() for part in (x, y)]
    cepstra = [_cosines(_MELS).to(x.device)[1 : _CEPSTRA + 1] @ part for part in mels]

    def distortion(a: Tensor, b: Tensor) -> Tensor:
        """In dB, of cepstra (n, channels, coefficients, frames): (n, channels, frames)."""
        return 10 / math.log(10) * (2 * (a - b).square().sum(dim=2)).sqrt()

    if align:
        frames = [(lengths(part).clamp_min(1) + hop - 1) // hop for part in (clips, made)]
        mcd = along_best_path(lambda i, j: distortion(cepstra[0][..., i], cepstra[1][..., j]).mean(dim=1), *frames)
    else:
        mcd = over_frames(distortion(*cepstra))
    return {
        "mel_l1": over_frames((mels[0] - mels[1]).abs().mean(dim=2)),
        "lsd": over_frames((decibels[0] - decibels[1]).square().mean(dim=2).sqrt()),
        "mcd": mcd,
    }


def along_best_path(cost: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    """The mean cost (n,) along the path that aligns two sequences of `first` and `second` (n,) frames at the least sum,
    by steps of one frame in either or both (dynamic time warping; Sakoe and Chiba 1978, without slope or window).

    `cost` gives those of the frames at (k,) and at (k,) of each pair, (n, k). Memory grows with the frames, not their
    square: the grid is walked by its diagonals, of which three are held.
    """
    rows, columns = int(first.max()), int(second.max())
    far = torch.full((len(first), rows + 1), math.inf, dtype=torch.float64, device=first.device)
    none = torch.zeros_like(far)
    sums, steps = [far, far], [none, none]  # of the last two diagonals; place i + 1 is row i
    found = none[:, 0].clone()
    for diagonal in range(rows + columns - 1):
        at = torch.arange(max(0, diagonal - columns + 1), min(diagonal, rows - 1) + 1, device=first.device)
        ways = [(sums[0], steps[0], at), (sums[1], steps[1], at), (sums[1], steps[1], at + 1)]  # both, first, second
        before, way = torch.stack([total[:, place] for total, _, place in ways]).min(dim=0)
        length = torch.stack([taken[:, place] for _, taken, place in ways]).gather(0, way[None])[0]
        total, taken = far.clone(), none.clone()
        total[:, at + 1] = cost(at, diagonal - at) + (before if diagonal else 0)
        taken[:, at + 1] = length + 1
        ends = first + second - 2 == diagonal
        found = torch.where(ends, (total / taken).gather(1, first[:, None])[:, 0], found)
        sums, steps = [sums[1], total], [steps[1], taken]
    return found


@lru_cache
def _cosines(n: int) -> Tensor:
    """The orthonormal cosine transform (DCT-II), (n, n)."""
    at = torch.arange(n, dtype=torch.float64)
    found = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * math.sqrt(2 / n)
    found[0] /= math.sqrt(2)
    return found


def wave_errors(clips: Tensor, made: Tensor, rate: int) -> dict[str, Tensor]:
    """What compares waveforms sample by sample, and says nothing where a codec has lost the phase: ``si_sdr`` in dB (Le
    Roux et al., SDR - half-baked or well done?, 2019), and ``stoi`` and ``pesq`` where their packages are installed.
    (n,) each, not a number where it is not defined, such as of silence."""
    x, y = (part.double().flatten(1) for part in (clips, made))
    x, y = (part - part.mean(dim=1, keepdim=True) for part in (x, y))
    aimed = (x * y).sum(1, keepdim=True) / x.square().sum(1, keepdim=True) * x
    ratio = aimed.square().sum(1) / (aimed - y).square().sum(1).clamp_min(1e-9)
    found = {"si_sdr": 10 * ratio.clamp(_LEAST, 1 / _LEAST).log10()}
    mono = [(part.double().mean(dim=1) / FULL).cpu().numpy() for part in (clips, made)]
    ends = lengths(clips).clamp_min(1).tolist()
    for name, score in _scores(rate).items():
        each = [_defined(score, a[:end], b[:end]) for a, b, end in zip(*mono, ends, strict=True)]
        found[name] = torch.tensor(each, dtype=torch.float64, device=x.device)
    return found


def _scores(rate: int) -> Mapping[str, Callable[[Any, Any], float]]:
    """What the packages that are installed give at a rate."""
    found: dict[str, Callable[[Any, Any], float]] = {}
    if find_spec("pystoi"):
        stoi = import_module("pystoi").stoi
        found["stoi"] = lambda clean, made: float(stoi(clean, made, rate))
    if find_spec("pesq") and rate in _PESQ:
        pesq = import_module("pesq").pesq
        found["pesq"] = lambda clean, made: float(pesq(rate, clean, made, _PESQ[rate]))
    return found


def _defined(score: Callable[[Any, Any], float], clean: Any, made: Any) -> float:
    """A score; not a number where its package cannot give one, as of clips that are too short or silent."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as which pystoi says so
        try:
            return score(clean, made)
        except Exception:  # each package has its own
            return math.nan
