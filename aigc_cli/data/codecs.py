"""Codecs: between raw content and what a model sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from aigc_cli.data.base import Codec, DataSpec

if TYPE_CHECKING:
    from torch import Tensor


class ImageCodec(Codec):
    """uint8 pixels (n, c, h, w) to float32 in [-1, 1], the range of a tanh, and back.

    Exact in float32: every one of the 256 values comes back as itself. Encoded values outside of [-1, 1] are clamped.
    """

    def encode(self, content: Tensor) -> Tensor:
        """uint8 (n, c, h, w) to float32 (n, c, h, w) in [-1, 1]."""
        return content.float().div_(127.5).sub_(1.0)

    def decode(self, encoded: Tensor) -> Tensor:
        """Floating (n, c, h, w) to uint8 (n, c, h, w), rounded to the nearest."""
        import torch

        return encoded.float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


#: The codec of each modality.
CODECS: dict[str, Callable[[DataSpec], Codec]] = {"image": lambda spec: ImageCodec()}


def codec_for(spec: DataSpec) -> Codec:
    """The codec of what `spec` describes, made without the data itself, so that a run can be sampled on its own."""
    return CODECS[spec.modality](spec)
