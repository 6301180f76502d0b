"""torch-fidelity's InceptionV3, whose weights were converted from the TensorFlow network that FID was defined on."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from aigc_cli import files
from aigc_cli.config import STRICT
from aigc_cli.errors import DataError
from aigc_cli.metrics.features import Sources
from aigc_cli.registry import register

FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URLS = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)


@dataclass(config=STRICT, frozen=True, kw_only=True)
class InceptionConfig:
    """It has no choices: any would make the figure another one."""

    name: Literal["inception"] = "inception"


@register("extractor", "inception", InceptionConfig)
class Inception:
    """The 2048 pooled features and the 1008 logits without bias; images of any size, grey ones repeated to RGB."""

    name = "inception-v3-compat"
    widths: Mapping[str, int] = {"features": 2048, "logits": 1008}

    def __init__(self, config: InceptionConfig, sources: Sources) -> None:
        self.checksum, state = load_weights(sources.weights or find_weights())
        self.canonical = self.checksum == SHA256
        if not self.canonical:
            self.name = f"inception-v3-compat-{self.checksum[:8]}"
        self.facts: Mapping[str, Any] = {
            "preprocessing": "uint8, resized to 299x299 by TensorFlow 1 bilinear interpolation (torch-fidelity)",
        }
        self._device = sources.device
        self._network = _network(state).to(sources.device)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Features of raw uint8 images (n, C, H, W), C 1 or 3, in float32."""
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        with torch.inference_mode():
            features, logits = self._network(rgb.to(self._device))
        return {"features": features.cpu(), "logits": logits.cpu()}


def _network(state: Mapping[str, Tensor]) -> nn.Module:
    import torch_fidelity.feature_extractor_inceptionv3 as module

    # Its constructor would unpickle a file, or download one. Handing it the state that was read safely, in the place
    # of what it would download, leaves it neither.
    original = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *args, **kwargs: state
    try:
        return module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], None)  # type: ignore[no-any-return]
    except RuntimeError as error:
        first = " ".join(line.strip() for line in str(error).splitlines()[:2])
        raise DataError(f"the weights do not fit the Inception network: {first[:300]}", _mend()) from None
    finally:
        module.load_state_dict_from_url = original


def load_weights(path: Path) -> tuple[str, dict[str, Tensor]]:
    """SHA-256 and tensors of a file of weights, ``.pth`` or ``.safetensors``; nothing in it is executed.

    Raises:
        DataError: it is missing, cut short, corrupt, or holds no tensors by name.
    """
    if not path.is_file():
        raise DataError(f"there is no file of weights at {path}", _mend())
    checksum = files.checksum(path)
    promised = path.stem.rsplit("-", 1)[-1]
    if len(promised) == 8 and all(c in "0123456789abcdef" for c in promised) and not checksum.startswith(promised):
        raise DataError(f"{path} is corrupt: its SHA-256 begins with {checksum[:8]}, not {promised}", _mend())
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd pickles, which are refused anyway
                state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, OSError, EOFError, LookupError, pickle.UnpicklingError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path} cannot be read as weights: {reason}", _mend()) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} holds no weights by name", _mend())
    bad = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise DataError(f"{path} holds NaN or infinite weights in {bad[0]}", _mend())
    return checksum, state


def weight_folders() -> list[Path]:
    """Where the weights are looked for, best first: our cache, then torch hub's."""
    from aigc_cli.data.cache import cache_dir

    return [cache_dir() / "weights", Path(torch.hub.get_dir()) / "checkpoints"]


def find_weights() -> Path:
    """The standard weights on this machine, downloaded where they are not.

    Raises:
        DataError: they are not here and cannot be had.
    """
    wanted = [folder / url.rsplit("/", 1)[1] for folder in weight_folders() for url in URLS]
    for path in wanted:
        if path.is_file():
            return path
    from aigc_cli.data.download import download

    try:
        download(list(URLS), wanted[0], sha256=SHA256)
    except DataError as error:
        raise DataError(f"the Inception weights are not here: {error.message}", _mend(source="")) from None
    return wanted[0]


def _mend(source: str = f", from {URLS[0]}") -> str:
    place = str(weight_folders()[0]).replace(os.path.expanduser("~"), "~", 1)
    return (
        f"put {FILE} (SHA-256 {SHA256}{source}) into {place}, or name it with weights=FILE; "
        "`aigc eval --metric fd,prdc` needs no such file"
    )
