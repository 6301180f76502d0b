"""Metrics of an item and what a model, or a codec alone, made of it: ``reconstruction`` of pictures and of sound, and
``lpips`` of pictures."""

from __future__ import annotations

from abc import abstractmethod
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from aigc_cli.config.schema import STRICT
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.extractors.pretrained import load_weights, misfit, short_path, weight_folders
from aigc_cli.metrics.sound import PACKAGES, clip_errors, wave_errors
from aigc_cli.registry import register

_SSIM_SIDE = 11  # of its Gaussian window
_LEAST_ERROR = 1e-10  # 100 dB; a PSNR of infinity cannot be written down
LPIPS_FILE = "alexnet-owt-7be5be79.pth"
_LPIPS_URL = f"https://download.pytorch.org/models/{LPIPS_FILE}"
_LPIPS_SIDE = 32  # below which AlexNet has nothing left to pool


class PairMetric(Metric):
    """Means over items of what is measured of each and its reconstruction, both raw (n, ...)."""

    takes: ClassVar[Takes] = {"pairs": ("content",)}
    made_by = "reconstruct"
    needs = frozenset({"encode", "decode"})

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self._measured: list[str] = []

    def update(self, stream: Stream, made: Tensor, items: Tensor) -> None:
        """Adds what the model made of items, and the items; what is not a number does not count."""
        for name, each in self.measured(items, made.to(items.device)).items():
            for state in () if name in self._measured else (f"total_{name}", f"count_{name}"):
                self.add_state(state, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
            self._measured += [] if name in self._measured else [name]
            setattr(self, f"total_{name}", getattr(self, f"total_{name}") + each.double().nansum().cpu())
            setattr(self, f"count_{name}", getattr(self, f"count_{name}") + each.isfinite().sum().cpu())

    @abstractmethod
    def measured(self, items: Tensor, made: Tensor) -> dict[str, Tensor]:
        """What is averaged, (n,) each, by the names of :attr:`figures`."""

    def compute(self) -> dict[str, Tensor]:
        """The scores, float64 scalars by name."""
        counts = {name: getattr(self, f"count_{name}") for name in self._measured}
        return {name: getattr(self, f"total_{name}") / count for name, count in counts.items() if count}

    def facts(self) -> dict[str, Any]:
        """On what scale the values are."""
        return {"scale": "uint8 as [0, 1]"}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ReconstructionConfig(PlainConfig):
    """How sound is compared."""

    align: bool | Literal["auto"] = "auto"


@register("metric", "reconstruction", ReconstructionConfig)
class Reconstruction(PairMetric):
    """``reconstruction``. Of pictures: mean squared error over pixels in [0, 1], the PSNR of that mean in dB, and the
    mean SSIM. Of sound: what :func:`clip_errors` gives, and :func:`wave_errors` where the waveform itself is encoded.

    SSIM: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, with its window
    of 11x11; images smaller than that have none.
    """

    figures: ClassVar[Figures] = {
        **{"mse": "lower", "psnr": "higher", "ssim": "higher"},
        **{"mel_l1": "lower", "lsd": "lower", "mcd": "lower", "si_sdr": "higher", "stoi": "higher", "pesq": "higher"},
    }

    def measured(self, items: Tensor, made: Tensor) -> dict[str, Tensor]:
        """Of images (n, C, H, W) or clips (n, channels, samples)."""
        if items.ndim == 3:
            return self._of_clips(items, made)
        error = (items.double() - made.double()).square().flatten(1).mean(dim=1) / 255**2
        x, y = items.float() / 255, made.float() / 255
        if min(x.shape[-2:]) < _SSIM_SIDE:
            return {"mse": error, "psnr": error}
        from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds

        similar: Any = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
        return {"mse": error, "psnr": error, "ssim": similar}

    def _of_clips(self, clips: Tensor, made: Tensor) -> dict[str, Tensor]:
        rate = (self.spec and self.spec.rate) or 8000
        found = clip_errors(clips, made, rate, align=self._aligns)
        return found | (wave_errors(clips, made, rate) if self._keeps_phase else {})

    @property
    def _aligns(self) -> bool:
        """Whether what was made may be slower or faster: as a rule what is made of something else, such as text."""
        auto = self.spec is not None and self.spec.source is not None
        return auto if self.config.align == "auto" else self.config.align

    @property
    def _keeps_phase(self) -> bool:
        """Whether what is encoded is the waveform."""
        return self.spec is not None and self.spec.shape == self.spec.raw

    def compute(self) -> dict[str, Tensor]:
        """The scores."""
        values = super().compute()
        if "psnr" in values:
            values["psnr"] = -10 * values["psnr"].clamp_min(_LEAST_ERROR).log10()
        return values

    def facts(self) -> dict[str, Any]:
        """On what scale the values are."""
        if "mse" in self._measured:
            return super().facts()
        return {"scale": "80 dB below full scale is silence", **({"mcd": "aligned in time"} if self._aligns else {})}

    def notes(self) -> list[str]:
        """Says so where there is no SSIM, and what scores of sound are missing."""
        if "mse" in self._measured:
            return [] if "ssim" in self._measured else [f"ssim needs images of at least {_SSIM_SIDE}x{_SSIM_SIDE}"]
        if not self._keeps_phase:
            return ["si_sdr, stoi and pesq need the phase, which this codec does not keep"]
        missing = [f"{name} (pip install {package})" for name, package in PACKAGES.items() if not find_spec(package)]
        return [f"not measured: {' and '.join(missing)}"] if missing else []


@register("metric", "lpips", PlainConfig)
class LPIPS(PairMetric):
    """``lpips``: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018.

    AlexNet with the linear layers of version 0.1, which torchmetrics brings along; AlexNet's own weights must be there.
    """

    figures: ClassVar[Figures] = {"lpips": "lower"}

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        path = next((folder / LPIPS_FILE for folder in weight_folders() if (folder / LPIPS_FILE).is_file()), None)
        place = short_path(weight_folders()[0])
        hint = f"put {LPIPS_FILE} (SHA-256 begins with 7be5be79, from {_LPIPS_URL}) into {place}; "
        hint += "`aigc eval --metric reconstruction` needs no such file"
        if path is None:
            raise DataError("the AlexNet weights of lpips are not here", hint)
        self.checksum, state = load_weights(path, hint, named_by_sum=True)
        self._network = _lpips(state, hint)

    def measured(self, items: Tensor, made: Tensor) -> dict[str, Tensor]:
        """The distance of each pair; grey images are repeated to RGB."""
        if items.ndim != 4 or min(items.shape[-2:]) < _LPIPS_SIDE:
            raise ConfigError(f"lpips needs images of at least {_LPIPS_SIDE}x{_LPIPS_SIDE}", "leave it out")
        x, y = (part.expand(-1, 3, -1, -1).float() / 127.5 - 1 for part in (items, made))
        with torch.inference_mode():
            return {"lpips": self._network.to(x.device)(x, y).flatten()}

    def facts(self) -> dict[str, Any]:
        """The weights' sum, too."""
        return {"network": "alexnet, LPIPS 0.1", "sha256": self.checksum, "scale": "uint8 as [-1, 1]"}


def _lpips(state: dict[str, Tensor], hint: str) -> nn.Module:
    from torchmetrics.functional.image.lpips import _LPIPS

    network = _LPIPS(net="alex", pnet_rand=True)  # random for now: it would load, or fetch, a file of its own choice
    slices = [child for child in network.net.children() if isinstance(child, nn.Sequential)]
    try:
        for name, layer in (pair for part in slices for pair in part.named_children()):
            own = {key: state[f"features.{name}.{key}"] for key in layer.state_dict()}
            layer.load_state_dict(own)
    except (KeyError, RuntimeError) as error:
        raise misfit("AlexNet", error, hint) from None
    return network.eval()
