"""I3D, the network of the Fréchet video distance, on weights that the user has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d, pad, relu

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.metrics.extractors.base import PlainConfig, Sources
from aigc_cli.metrics.extractors.pretrained import load_weights, misfit
from aigc_cli.registry import register

_SIDE, _FEWEST = 224, 9  # pixels, and frames below which nothing is left to average over two
_HINT = "name a file of PyTorch weights of I3D (rgb_imagenet.pt) with weights=FILE; "
_HINT += "`aigc eval --metric fd,frame_fd` needs no such file"
#: Channels of each mixed block: 1x1; 1x1 and 3x3; 1x1 and 3x3; after the pooling.
_MIXED: Mapping[str, tuple[int, ...]] = {
    "3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64), "4b": (192, 96, 208, 16, 48, 64),
    "4c": (160, 112, 224, 24, 64, 64), "4d": (128, 128, 256, 24, 64, 64), "4e": (112, 144, 288, 32, 64, 64),
    "4f": (256, 160, 320, 32, 128, 128), "5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128),
}  # fmt: skip


def _same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around x as TensorFlow's SAME padding has them."""
    sides: list[int] = []
    for size, width, step in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        whole = max(width - (step if size % step == 0 else size % step), 0)
        sides += [whole // 2, whole - whole // 2]
    return pad(x, sides)


class _Unit(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int = 1, step: int = 1, *, last: bool = False) -> None:
        super().__init__()
        self.kernel, self.step, self.last = (size,) * 3, (step,) * 3, last
        self.conv3d = nn.Conv3d(inputs, outputs, size, step, bias=last)
        if not last:
            self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_same(x, self.kernel, self.step))
        return x if self.last else relu(self.bn(x))


class _Mixed(nn.Module):
    def __init__(self, inputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.b0, self.b1a, self.b1b = _Unit(inputs, widths[0]), _Unit(inputs, widths[1]), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b, self.b3b = (
            _Unit(inputs, widths[3]),
            _Unit(widths[3], widths[4], 3),
            _Unit(inputs, widths[5]),
        )

    def forward(self, x: Tensor) -> Tensor:
        pooled = _pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


def _pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    return max_pool3d(_same(x, kernel, stride), kernel, stride)


class InceptionI3D(nn.Module):
    """Carreira and Zisserman, Quo Vadis, Action Recognition?, 2017: clips (n, 3, t, 224, 224) in [-1, 1] to the logits
    of Kinetics-400, (n, 400), a mean over time; with the names that weights for PyTorch have."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7, self.Conv3d_2b_1x1 = _Unit(3, 64, 7, 2), _Unit(64, 64)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        inputs = 192
        for name, widths in _MIXED.items():
            self.add_module(f"Mixed_{name}", _Mixed(inputs, widths))
            inputs = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = _Unit(inputs, 400, last=True)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, t, 224, 224) to (n, 400)."""
        x = _pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = _pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in _MIXED:
            if name == "4b":
                x = _pool(x, (3, 3, 3), (2, 2, 2))
            if name == "5b":
                x = _pool(x, (2, 2, 2), (2, 2, 2))
            x = self.get_submodule(f"Mixed_{name}")(x)
        found: Tensor = self.logits(nn.functional.avg_pool3d(x, (2, 7, 7), 1)).flatten(2).mean(dim=2)
        return found


@register("extractor", "i3d", PlainConfig)
class I3D:
    """The logits of I3D, which the Fréchet video distance is of."""

    canonical = True
    name = "i3d"
    batch_size = 8
    widths: ClassVar[Mapping[str, int]] = {"features": 400}

    def __init__(self, config: PlainConfig, sources: Sources) -> None:
        spec = sources.spec
        if spec is None or len(spec.raw) != 4:
            raise ConfigError("extractor=i3d looks at clips of video", "use metric=fd for the data itself")
        if sources.weights is None:
            raise DataError("the weights of I3D are not here", _HINT)
        if spec.raw[1] < _FEWEST:
            what = f"extractor=i3d needs clips of {_FEWEST} frames or more, and these have {spec.raw[1]}"
            raise ConfigError(what, "use metric=fd, or longer clips with data.frames=")
        self.checksum, state = load_weights(sources.weights, _HINT)
        network = InceptionI3D()
        try:
            network.load_state_dict(state)
        except RuntimeError as error:
            raise misfit("I3D", error, _HINT) from None
        self._network, self._device = network.eval().to(sources.device), sources.device
        self.facts: Mapping[str, Any] = {"preprocessing": "bilinear to 224x224, [-1, 1], logits"}

    def __call__(self, clips: Tensor) -> dict[str, Tensor]:
        """Features of uint8 clips (n, c, t, h, w)."""
        n, channels, frames, height, width = clips.shape
        flat = clips.to(self._device).float().transpose(1, 2).reshape(-1, channels, height, width) / 127.5 - 1
        large = interpolate(flat, (_SIDE, _SIDE), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
        with torch.inference_mode():
            found = self._network(large.view(n, frames, 3, _SIDE, _SIDE).transpose(1, 2))
        return {"features": found.cpu()}
