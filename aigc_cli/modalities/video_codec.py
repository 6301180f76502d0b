"""Pixels of clips as a model sees them, and how many frames a second they have."""

from __future__ import annotations

from aigc_cli.modalities.base import Codec
from aigc_cli.modalities.image import ImageCodec

USUAL_RATE = 10  # frames a second, where nothing says


class VideoCodec(ImageCodec):
    """Pixels of clips of one `shape` (channels, frames, height, width) to float32 in [-1, 1], and back; `rate` is how
    many frames a second they have."""

    def __init__(self, shape: tuple[int, ...], rate: int) -> None:
        self.shape, self.rate = shape, rate


def codec_of_clips(codec: Codec) -> VideoCodec:
    """The codec of clips that is within another, such as that of a tokenizer."""
    while not isinstance(codec, VideoCodec):
        codec = codec.inner  # type: ignore[attr-defined]
    return codec
