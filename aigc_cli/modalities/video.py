"""Video: uint8 clips (channels, frames, height, width) of so many frames a second, of which a model sees floats."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.files import path_of
from aigc_cli.modalities.base import Batch, Codec, DataSpec, Items, Modality, Writer
from aigc_cli.modalities.video_codec import USUAL_RATE, VideoCodec, codec_of_clips
from aigc_cli.registry import register

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

_GLANCE = (4, 16, 16)  # frames, and pixels of a side, at most


@register("modality", "video")
class VideoModality(Modality):
    """Clips of frames."""

    name = "video"
    axes = ("channels", "frames", "height", "width")
    noun = ("clip", "clips")

    def codec(self, spec: DataSpec, folder: Path | None = None) -> Codec:
        """The same for all clips of one shape and rate."""
        return VideoCodec(spec.raw, spec.rate or USUAL_RATE)

    @cached_property
    def writers(self) -> dict[str, type[Writer]]:
        """GIF, WebP or MP4 files, or one array; each with a sheet of their frames."""
        from aigc_cli.modalities.video_writers import FilmArrayWriter, GifWriter, MP4Writer, WebPWriter

        return {"gif": GifWriter, "webp": WebPWriter, "mp4": MP4Writer, "npz": FilmArrayWriter}

    def read(self, path: Path, like: DataSpec | None = None) -> Items:
        """A folder of video files, or an ``.npz`` file, at the rate and of the size of what they are held against."""
        from aigc_cli.modalities.video_files import open_films

        return open_films(path, like)

    def parse(self, word: str, codec: Codec) -> Batch:
        """The first frames of a file that a person names, as the data of the codec has them."""
        from aigc_cli.modalities.video_files import read_film

        return read_film(path_of(word), codec_of_clips(codec))

    def network(self, spec: DataSpec) -> nn.Module:
        """A small network of convolutions over frames and pixels."""
        from aigc_cli.modalities.video_network import VideoNetwork

        return VideoNetwork(spec.raw, len(spec.classes))

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, for which convolutions have their fastest kernels, on CPUs and GPUs."""
        import torch

        return torch.channels_last_3d

    def glance(self, content: Tensor) -> Tensor:
        """uint8 (n, c, t, h, w), averaged to at most 4 frames of 16x16."""
        import torch

        sides: Any = tuple(map(min, content.shape[-3:], _GLANCE))
        averaged: Tensor = torch.nn.functional.adaptive_avg_pool3d(content.float(), sides)
        return averaged.round_().to(torch.uint8)
