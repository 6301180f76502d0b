"""What an autoencoder loses of an image: ``reconstruction`` (mean squared error, PSNR, SSIM) and ``lpips``."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.metrics.extractors.pretrained import load_weights, misfit, short_path, weight_folders
from aigc_cli.registry import register

_SSIM_SIDE = 11  # of its Gaussian window
_LEAST_ERROR = 1e-10  # 100 dB; a PSNR of infinity cannot be written down
LPIPS_FILE = "alexnet-owt-7be5be79.pth"
_LPIPS_URL = f"https://download.pytorch.org/models/{LPIPS_FILE}"
_LPIPS_SIDE = 32  # below which AlexNet has nothing left to pool


class PairMetric(Metric):
    """A mean over items of what is measured of each and its reconstruction, both raw uint8 (n, C, H, W)."""

    takes: ClassVar[Takes] = {"pairs": ("content",)}
    made_by = "reconstruct"
    needs = frozenset({"encode", "decode"})
    total: Tensor
    count: Tensor

    def __init__(self, config: Any, width: int = 0) -> None:
        super().__init__(config, width)
        self.add_state("total", default=torch.zeros(len(self.figures), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, made: Tensor, images: Tensor) -> None:
        """Adds what the model made of images, and the images."""
        self.total = self.total + torch.stack([each.double().sum() for each in self.measured(images, made)])
        self.count = self.count + len(images)

    @abstractmethod
    def measured(self, images: Tensor, made: Tensor) -> list[Tensor]:
        """What is averaged, (n,) each, in the order of :attr:`figures`."""

    def compute(self) -> dict[str, Tensor]:
        """The scores, float64 scalars by name."""
        return dict(zip(self.figures, self.total / self.count, strict=True))

    def facts(self) -> dict[str, Any]:
        """On what scale the values are."""
        return {"scale": "uint8 as [0, 1]"}


@register("metric", "reconstruction", PlainConfig)
class Reconstruction(PairMetric):
    """``reconstruction``: mean squared error over pixels in [0, 1], the PSNR of that mean in dB, and the mean SSIM.

    SSIM: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004, with its window
    of 11x11; images smaller than that have none.
    """

    figures: ClassVar[Figures] = {"mse": "lower", "psnr": "higher", "ssim": "higher"}

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        self._has_ssim = True

    def measured(self, images: Tensor, made: Tensor) -> list[Tensor]:
        """Squared error, the same again for the PSNR, and SSIM of each image."""
        made = made.to(images.device)
        error = (images.double() - made.double()).square().flatten(1).mean(dim=1) / 255**2
        x, y = images.float() / 255, made.float() / 255
        self._has_ssim = self._has_ssim and min(x.shape[-2:]) >= _SSIM_SIDE
        if not self._has_ssim:
            return [error, error, torch.zeros_like(error)]
        similar: Any = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none")
        return [error, error, similar]

    def compute(self) -> dict[str, Tensor]:
        """See :meth:`PairMetric.compute`."""
        values = super().compute()
        values["psnr"] = -10 * values["psnr"].clamp_min(_LEAST_ERROR).log10()
        if not self._has_ssim:
            del values["ssim"]
        return values

    def notes(self) -> list[str]:
        """Says so where there is no SSIM."""
        return [] if self._has_ssim else [f"ssim needs images of at least {_SSIM_SIDE}x{_SSIM_SIDE}"]


@register("metric", "lpips", PlainConfig)
class LPIPS(PairMetric):
    """``lpips``: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric, 2018.

    AlexNet with the linear layers of version 0.1, which torchmetrics brings along; AlexNet's own weights must be there.
    """

    figures: ClassVar[Figures] = {"lpips": "lower"}

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        path = next((folder / LPIPS_FILE for folder in weight_folders() if (folder / LPIPS_FILE).is_file()), None)
        hint = (
            f"put {LPIPS_FILE} (SHA-256 begins with 7be5be79, from {_LPIPS_URL}) into {short_path(weight_folders()[0])}"
        )
        if path is None:
            raise DataError("the AlexNet weights of lpips are not here", hint)
        self.checksum, state = load_weights(path, hint, named_by_sum=True)
        self._network = _lpips(state, hint)

    def measured(self, images: Tensor, made: Tensor) -> list[Tensor]:
        """The distance of each pair; grey images are repeated to RGB."""
        if min(images.shape[-2:]) < _LPIPS_SIDE:
            raise ConfigError(f"lpips needs images of at least {_LPIPS_SIDE}x{_LPIPS_SIDE}", "leave it out")
        x, y = (part.expand(-1, 3, -1, -1).float() / 127.5 - 1 for part in (images, made.to(images.device)))
        with torch.inference_mode():
            return [self._network.to(x.device)(x, y).flatten()]

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
