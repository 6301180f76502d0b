"""Images: uint8 pixels (channels, height, width), of which a model sees floats in [-1, 1]."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_cli.errors import ConfigError
from aigc_cli.files import path_of
from aigc_cli.modalities.base import Batch, Codec, DataSpec, Items, Modality, Writer
from aigc_cli.registry import register

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_GLANCE = 32  # pixels of a side, at most


class ImageCodec(Codec):
    """uint8 pixels (n, c, h, w) to float32 in [-1, 1], the range of a tanh, and back.

    Exact in float32: every one of the 256 values comes back as itself. Encoded values outside of [-1, 1] are clamped.
    """

    preprocessing = "uint8 to [-1, 1], not resized"
    spec: DataSpec | None = None  # of the run or the data that it is of
    traceable = True

    def encode(self, content: Tensor) -> Tensor:
        """uint8 (n, c, h, w) to float32 (n, c, h, w) in [-1, 1]."""
        return content.float().div_(127.5).sub_(1.0)

    def decode(self, encoded: Tensor) -> Tensor:
        """Floating (n, c, h, w) to uint8 (n, c, h, w), rounded to the nearest."""
        import torch

        return encoded.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


@register("modality", "image")
class ImageModality(Modality):
    """Pictures of one size."""

    name = "image"
    axes = ("channels", "height", "width")
    noun = ("image", "images")

    def codec(self, spec: DataSpec, folder: Path | None = None) -> Codec:
        """The same for all images; it knows their shape, for pictures that a person names."""
        codec = ImageCodec()
        codec.spec = spec
        return codec

    @cached_property
    def writers(self) -> dict[str, type[Writer]]:
        """PNG, JPEG or WebP files, or one array."""
        from aigc_cli.modalities.image_writers import JPEGWriter, NPZWriter, PNGWriter, WebPWriter

        return {"png": PNGWriter, "jpeg": JPEGWriter, "webp": WebPWriter, "npz": NPZWriter}

    def read(self, path: Path, like: DataSpec | None = None) -> Items:
        """A folder of pictures, or an ``.npz`` file; with as many channels as those that they are held against."""
        from aigc_cli.modalities.image_files import open_images

        return open_images(path, None if like is None else like.raw[0])

    def parse(self, word: str, codec: Codec) -> Batch:
        """A file with a picture, brought to the size that the codec takes."""
        import torch

        from aigc_cli.modalities.image_decode import decode_image, pillow_errors
        from aigc_cli.modalities.unreadable import Unreadable

        shape: tuple[int, ...] = getattr(getattr(codec, "spec", None), "raw", ())
        if len(shape) != 3 or shape[1] != shape[2]:
            return super().parse(word, codec)
        path = path_of(word)
        if not path.is_file():
            raise ConfigError("there is no such file", "name a picture")
        try:
            with pillow_errors():
                return Batch(torch.from_numpy(decode_image(path, shape[1], shape[0]))[None])
        except Unreadable as reason:
            raise ConfigError(f"it cannot be read: {reason}", "name a picture") from None

    def network(self, spec: DataSpec) -> nn.Module:
        """A plain convolutional network."""
        from aigc_cli.modalities.image_network import ImageNetwork

        channels, height, width = spec.raw
        return ImageNetwork(channels, min(height, width), len(spec.classes))

    def glance(self, content: Tensor) -> Tensor:
        """uint8 (n, C, H, W), averaged to at most 32x32."""
        import torch

        height, width = (min(side, _GLANCE) for side in content.shape[-2:])
        if (height, width) == tuple(content.shape[-2:]):
            return content
        averaged: Tensor = torch.nn.functional.adaptive_avg_pool2d(content.float(), (height, width))
        return averaged.round_().to(torch.uint8)

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, for which convolutions have their fastest kernels, on CPUs and GPUs."""
        import torch

        return torch.channels_last
