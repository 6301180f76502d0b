"""torch-fidelity's InceptionV3, whose weights were converted from the TensorFlow network that FID was defined on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from aigc_cli.errors import ConfigError, DataError, suggest
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.weights import load_weights, misfit, short_path, weight_folders
from aigc_cli.registry import register

FILE = "pt_inception-2015-12-05-6726825d.pth"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URLS = (
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)
SIDE = 299
#: How images are brought to that size, with what is said of it.
RESIZES = {
    "tf_bilinear": "uint8, resized to 299x299 by TensorFlow 1 bilinear interpolation (torch-fidelity)",
    "clean": "uint8, resized to 299x299 by PIL bicubic with antialiasing in float32 (clean-fid)",
}


@register("extractor", "inception", PlainConfig)
class Inception:
    """The 2048 pooled features and the 1008 logits without bias; images of any size, grey ones repeated to RGB."""

    widths: Mapping[str, int] = {"features": 2048, "logits": 1008}

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
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
        self._device = sources.device
        self.batch_size = 32 if sources.device.type == "cpu" else 128  # a larger one is no faster, and leaves the cache
        self._network = _network(state).to(sources.device)
        self._clean = _Substitute(self._network) if resize == "clean" else None

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Features of raw uint8 images (n, C, H, W), C 1 or 3, in float32."""
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        with torch.inference_mode():
            if self._clean is not None:
                self._clean.input = ((clean(rgb) - 128) / 128).to(self._device)
            features, logits = self._network(rgb.to(self._device))
        return {"features": features.cpu(), "logits": logits.cpu()}


class _Substitute:
    """Puts an input of ours in the place of what the network would resize by itself, which it cannot leave out."""

    def __init__(self, network: nn.Module) -> None:
        self.input: Tensor | None = None
        first: Any = network.Conv2d_1a_3x3
        first.register_forward_pre_hook(lambda module, inputs: (self.input,))


def clean(images: Tensor) -> Tensor:
    """uint8 images (n, C, H, W) at 299x299, float32 in about [0, 255]: PIL's bicubic filter, with antialiasing, on
    floating point channels (Parmar, Zhang and Zhu, On Aliased Resizing and Surprising Subtleties in GAN Evaluation,
    2022, section 3)."""
    import numpy as np
    from PIL import Image

    channels = images.float().cpu().flatten(0, 1).numpy()
    resized = [
        np.asarray(Image.fromarray(channel, mode="F").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for channel in channels
    ]
    whole = torch.from_numpy(np.stack(resized))
    return whole.reshape(len(images), images.shape[1], SIDE, SIDE).clamp(0, 255)


def _network(state: Mapping[str, Tensor]) -> nn.Module:
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
    from aigc_cli.data.cache import download

    try:
        download(list(URLS), wanted[0], {"sha256": SHA256})
    except DataError as error:
        raise DataError(f"the Inception weights are not here: {error.message}", _hint(source="")) from None
    return wanted[0]


def _hint(source: str = f", from {URLS[0]}") -> str:
    place = short_path(weight_folders()[0])
    return (
        f"put {FILE} (SHA-256 {SHA256}{source}) into {place}, or name it with weights=FILE; "
        "`aigc eval --metric fd,prdc` needs no such file, but data=NAME where there is no run"
    )
