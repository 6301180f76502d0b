"""VGGish, the network of the Fréchet audio distance, on weights that the user has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.pretrained import load_weights, misfit
from aigc_cli.registry import register

_RATE, _WINDOW, _HOP, _FFT, _BINS, _FRAMES = 16_000, 400, 160, 512, 64, 96
_LOW, _HIGH, _OFFSET = 125.0, 7500.0, 0.01
_HINT = "name a file of PyTorch weights of VGGish with weights=FILE; `aigc eval --metric fd,kd` needs no such file"


@register("extractor", "vggish", PlainConfig)
class VGGish:
    """Hershey et al., CNN Architectures for Large-Scale Audio Classification, 2017: 128 values for each 0.96 s, of
    which those of a clip are averaged; a shorter clip is followed by silence."""

    canonical = True
    name = "vggish"
    widths: ClassVar[Mapping[str, int]] = {"features": 128}

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        spec = sources.spec
        if spec is None or spec.rate is None:
            raise ConfigError("extractor=vggish listens to sound", "use metric=fd for the data itself")
        if sources.weights is None:
            raise DataError("the weights of VGGish are not here", _HINT)
        self._rate, self._device = spec.rate, sources.device
        self.checksum, state = load_weights(sources.weights, _HINT)
        network = _network()
        try:
            network.load_state_dict({key: value for key, value in state.items() if not key.startswith("pproc.")})
        except RuntimeError as error:
            raise misfit("VGGish", error, _HINT) from None
        self._network = network.eval().to(sources.device)
        self.facts: Mapping[str, Any] = {
            "preprocessing": "16 kHz, log-mel, mean over windows of 0.96 s, before the last ReLU"
        }

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of int16 clips (n, channels, samples)."""
        import soxr

        waves = [soxr.resample(wave, self._rate, _RATE, quality="HQ") for wave in _mono(clips)]
        least = _WINDOW + _HOP * (_FRAMES - 1)
        padded = np.stack([np.pad(wave, (0, max(0, least - len(wave)))) for wave in waves])
        windows = log_mel(torch.from_numpy(padded).float()).to(self._device)  # (n, windows, 96, 64)
        with torch.inference_mode():
            found = self._network["features"](windows.flatten(0, 1)[:, None])
            found = self._network["embeddings"](found.permute(0, 2, 3, 1).flatten(1))
        return {"features": found.view(*windows.shape[:2], -1).mean(dim=1).cpu()}


def _mono(clips: Tensor) -> np.ndarray:
    found: np.ndarray = clips.double().mean(dim=1).div(32768).cpu().numpy()
    return found


def log_mel(waves: Tensor) -> Tensor:
    """Waves (n, samples) at 16 kHz as VGGish sees them, (n, windows, 96, 64): its mel scale, natural logarithms."""
    frames = waves.unfold(1, _WINDOW, _HOP) * torch.hann_window(_WINDOW)
    magnitudes = torch.fft.rfft(frames, _FFT).abs()
    mel = [1127 * math.log(1 + hertz / 700) for hertz in (_LOW, _HIGH)]
    edges = torch.linspace(mel[0], mel[1], _BINS + 2)
    at = 1127 * (1 + torch.linspace(0, _RATE / 2, _FFT // 2 + 1) / 700).log()
    rising = (at[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at[:, None]) / (edges[2:] - edges[1:-1])
    matrix = torch.minimum(rising, falling).clamp_min(0)
    matrix[0] = 0
    found: Tensor = (magnitudes @ matrix + _OFFSET).log()
    count = found.shape[1] // _FRAMES
    return found[:, : count * _FRAMES].view(len(waves), count, _FRAMES, _BINS)


def _network() -> nn.ModuleDict:
    layers: list[nn.Module] = []
    width = 1
    for size in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M"):
        if isinstance(size, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(width, size, 3, padding=1), nn.ReLU(inplace=True)]
            width = size
    sizes = [(512 * 4 * 6, 4096), (4096, 4096), (4096, 128)]
    linear = [layer for size in sizes for layer in (nn.Linear(*size), nn.ReLU(inplace=True))]
    # The embedding is what comes before the last ReLU, as its authors' code and the usual ones for FAD have it.
    return nn.ModuleDict({"features": nn.Sequential(*layers), "embeddings": nn.Sequential(*linear[:-1])})
