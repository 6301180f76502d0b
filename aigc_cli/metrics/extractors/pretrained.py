"""Extractors with published weights: torch-fidelity's InceptionV3, converted from the TensorFlow network that FID was
defined on, and torchvision's classifiers; and how a file of weights is found, and read without running anything in it.
"""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from aigc_cli import files
from aigc_cli.data.cache import cache_dir, download
from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.modalities.base import modality
from aigc_cli.registry import register

FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URLS = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
_INCEPTION_SIDE = 299
#: How images are brought to that size, with what is said of it.
RESIZES = {
    "tf_bilinear": "uint8, resized to 299x299 by TensorFlow 1 bilinear interpolation (torch-fidelity)",
    "clean": "uint8, resized to 299x299 by PIL bicubic with antialiasing in float32 (clean-fid)",
}
_SIDE = 224  # of what all but a few of torchvision's networks were trained on
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as all of torchvision's weights expect
_HINT = "write for example extractor=torchvision model=resnet50 weights=FILE"


class _Pretrained(ABC):
    """A network that sees images of any size in RGB; grey ones are repeated to it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.batch_size = 32 if device.type == "cpu" else 128  # a larger one is no faster, and leaves the cache

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Features of raw uint8 images (n, C, H, W), C 1 or 3, in float32."""
        with torch.inference_mode():
            features, logits = self._layers(images.expand(-1, 3, -1, -1))
        return {"features": features.cpu(), "logits": logits.cpu()}

    @abstractmethod
    def _layers(self, rgb: Tensor) -> tuple[Tensor, Tensor]: ...


def _check_pictures(name: str, sources: Sources) -> None:
    """Refuses to look at anything else, before weights are looked for."""
    spec = sources.spec
    if spec is not None and modality(spec.modality).axes != ("channels", "height", "width"):
        what = f"extractor={name} looks at pictures, and these are {modality(spec.modality).noun[1]}"
        raise ConfigError(what, "`aigc eval --metric fd,kd,prdc` learns from the data itself")


@register("extractor", "inception", PlainConfig)
class Inception(_Pretrained):
    """The 2048 pooled features and the 1008 logits without bias."""

    widths: Mapping[str, int] = {"features": 2048, "logits": 1008}

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        _check_pictures("inception", sources)
        resize = sources.resize or "tf_bilinear"
        if resize not in RESIZES:
            raise ConfigError(f"resize={resize}: there is no such way to resize", suggest(resize, RESIZES))
        path = sources.weights or find_weights()
        self.checksum, state = load_weights(path, _hint(), named_by_sum=sources.weights is None)
        self.canonical = self.checksum == SHA256 and resize == "tf_bilinear"
        self.name = "inception-v3-compat"
        if self.checksum != SHA256:
            self.name += f"-{self.checksum[:8]}"
        if resize != "tf_bilinear":
            self.name += f"-{resize}"
        self.facts: Mapping[str, Any] = {"preprocessing": RESIZES[resize], "resize": resize}
        super().__init__(sources.device)
        self._network = _inception(state).to(sources.device)
        self._resized: Tensor | None = None
        if resize == "clean":  # the network cannot leave out its own way, so what that gave is replaced behind it
            first: Any = self._network.Conv2d_1a_3x3
            first.register_forward_pre_hook(lambda module, inputs: (self._resized,))

    def _layers(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        if self.facts["resize"] == "clean":
            self._resized = ((clean(rgb) - 128) / 128).to(self._device)
        features, logits = self._network(rgb.to(self._device))
        return features, logits


def clean(images: Tensor) -> Tensor:
    """uint8 images (n, C, H, W) at 299x299, float32 in about [0, 255]: PIL's bicubic filter, with antialiasing, on
    floating point channels (Parmar, Zhang and Zhu, On Aliased Resizing and Surprising Subtleties in GAN Evaluation,
    2022, section 3)."""
    import numpy as np
    from PIL import Image

    size = (_INCEPTION_SIDE, _INCEPTION_SIDE)
    channels = [Image.fromarray(channel, mode="F") for channel in images.float().cpu().flatten(0, 1).numpy()]
    resized = [np.asarray(channel.resize(size, Image.Resampling.BICUBIC)) for channel in channels]
    return torch.from_numpy(np.stack(resized)).reshape(*images.shape[:2], *size).clamp(0, 255)


def _inception(state: Mapping[str, Tensor]) -> nn.Module:
    import torch_fidelity.feature_extractor_inceptionv3 as module

    # Its constructor would unpickle a file, or download one. Handing it the state that was read safely, in the place
    # of what it would download, leaves it neither.
    original = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *args, **kwargs: state
    try:
        return module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"], None)  # type: ignore[no-any-return]
    except RuntimeError as error:
        raise misfit("the Inception network", error, _hint()) from None
    finally:
        module.load_state_dict_from_url = original


def find_weights() -> Path:
    """The standard weights on this machine, downloaded where they are not.

    Raises:
        DataError: they are not here and cannot be had.
    """
    wanted = [folder / url.rsplit("/", 1)[1] for folder in weight_folders() for url in URLS]
    for path in wanted:
        if path.is_file():
            return path
    try:
        download(list(URLS), wanted[0], {"sha256": SHA256})
    except DataError as error:
        raise DataError(f"the Inception weights are not here: {error.message}", _hint(source="")) from None
    return wanted[0]


def _hint(source: str = f", from {URLS[0]}") -> str:
    place = short_path(weight_folders()[0])
    return (
        f"put {FILE} (SHA-256 {SHA256}{source}) into {place}, or name it with weights=FILE; "
        "`aigc eval --metric fd,prdc` needs no such file"
    )


@register("extractor", "torchvision", PlainConfig)
class TorchvisionBackbone(_Pretrained):
    """What goes into the network's last linear layer, and its logits."""

    canonical = False

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        import torchvision

        _check_pictures("torchvision", sources)
        known = torchvision.models.list_models(module=torchvision.models)
        if sources.backbone is None or sources.weights is None:
            missing = "model=" if sources.backbone is None else "weights="
            raise ConfigError(f"extractor=torchvision needs {missing}", _HINT)
        if sources.backbone not in known:
            raise ConfigError(f"torchvision has no model {sources.backbone!r}", suggest(sources.backbone, known))
        hint = "name a file of weights that torchvision's own model loads"
        self.checksum, state = load_weights(sources.weights, hint)
        network, last = _backbone(sources.backbone, state)
        self.name = f"{sources.backbone}-{self.checksum[:8]}"
        self.widths: Mapping[str, int] = {"features": last.in_features, "logits": last.out_features}
        resized = f"resized to {_SIDE}x{_SIDE} by bicubic interpolation with antialiasing in float32 (torch)"
        self.facts: Mapping[str, Any] = {"preprocessing": f"uint8, {resized}, ImageNet's mean and deviation"}
        super().__init__(sources.device)
        self._network = network.to(sources.device).eval().requires_grad_(False)
        self._features: Tensor | None = None
        last.register_forward_pre_hook(self._catch)

    def _catch(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]

    def _layers(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
        x = rgb.to(self._device).float()
        x = nn.functional.interpolate(x, (_SIDE, _SIDE), mode="bicubic", antialias=True).clamp_(0, 255) / 255
        mean, deviation = (torch.tensor(values, device=x.device)[:, None, None] for values in (_MEAN, _DEVIATION))
        logits = self._network((x - mean) / deviation)
        assert self._features is not None
        features, self._features = self._features, None
        return features.flatten(1), logits


def _backbone(name: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, nn.Linear]:
    """The network with its weights, and its last linear layer.

    Raises:
        ConfigError: it ends in none.
        DataError: the weights are not this network's.
    """
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    blank = torchvision.models.get_model(name, weights=None, **options)
    layers = [(path, layer) for path, layer in blank.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ConfigError(f"torchvision's {name} does not end in a linear layer", "choose another model=")
    path, last = layers[-1]
    classes = state[f"{path}.bias"].shape[0] if f"{path}.bias" in state else last.out_features
    if classes != last.out_features:  # trained on other classes than ImageNet's
        blank = torchvision.models.get_model(name, weights=None, num_classes=classes, **options)
        last = dict(blank.named_modules())[path]
    try:
        blank.load_state_dict(state)
    except RuntimeError as error:
        raise misfit(f"torchvision's {name}", error, _HINT) from None
    return blank, last


def load_weights(path: Path, hint: str, *, named_by_sum: bool = False) -> tuple[str, dict[str, Tensor]]:
    """SHA-256 and tensors of a file of weights, ``.pth`` or ``.safetensors``; nothing in it is executed.

    Args:
        path: The file.
        hint: What the user is told to do where it cannot be used.
        named_by_sum: Whether its name ends in the first digits of its SHA-256, as those do that we look for ourselves.

    Raises:
        DataError: it is missing, cut short, corrupt, or holds no plain tensors by name.
    """
    if not path.is_file():
        raise DataError(f"there is no file of weights at {path}", hint)
    checksum = files.checksum(path)
    promised = path.stem.rsplit("-", 1)[-1]
    if named_by_sum and not checksum.startswith(promised):
        raise DataError(f"{path} is corrupt: its SHA-256 begins with {checksum[:8]}, not {promised}", hint)
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd pickles, which are refused anyway
                state = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # an unpickler raises whatever a crafted file makes it trip over
        told = "" if isinstance(error, LookupError) else " ".join(str(error).split())[:120]  # a bare key tells nobody
        reason = told or "it is not a file of tensors"
        raise DataError(f"{path} cannot be read as weights: {reason}", hint) from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} holds no weights by name", hint)
    odd = [
        name for name, value in state.items() if value.layout != torch.strided or value.is_meta or value.is_quantized
    ]
    if odd:
        raise DataError(f"{path} holds {odd[0]} as a tensor that is sparse, quantized or without values", hint)
    bad = [name for name, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise DataError(f"{path} holds NaN or infinite weights in {bad[0]}", hint)
    return checksum, state


def misfit(what: str, error: Exception, hint: str) -> DataError:
    """The error of weights that are not those of the network `what`."""
    first = " ".join(line.strip() for line in str(error).splitlines()[:2])
    return DataError(f"the weights do not fit {what}: {first[:300]}", hint)


def weight_folders() -> list[Path]:
    """Where the weights are looked for, best first: our cache, then torch hub's."""
    return [cache_dir() / "weights", Path(torch.hub.get_dir()) / "checkpoints"]


def short_path(path: Path) -> str:
    """The path as a person writes it, with ``~`` for the home folder."""
    return str(path).replace(os.path.expanduser("~"), "~", 1)
