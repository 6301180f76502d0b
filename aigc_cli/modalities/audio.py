"""Sound: int16 waveforms (channels, samples) of one length, of which a model sees a spectrogram, or the waveform.

A clip that is shorter than the length is followed by zeros: how long it is can be seen from its content alone
(:func:`lengths`), so that losses, metrics and writers agree on it, and nothing has to carry it beside the clip.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from aigc_cli.files import path_of
from aigc_cli.modalities.audio_config import CODEC_FILE
from aigc_cli.modalities.audio_config import lengths as lengths
from aigc_cli.modalities.base import Batch, Codec, DataSpec, Items, Modality, Writer
from aigc_cli.registry import register

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


@register("modality", "audio")
class AudioModality(Modality):
    """Clips of sound."""

    name = "audio"
    axes = ("channels", "samples")
    noun = ("clip", "clips")

    def codec(self, spec: DataSpec, folder: Path | None = None) -> Codec:
        """The one that the run in `folder` keeps; without a folder, waveforms as they are."""
        from aigc_cli.modalities.audio_codecs import WaveformCodec, read_codec

        channels, samples = spec.raw
        rate = spec.rate or 8000
        codec = WaveformCodec(rate, channels, samples) if folder is None else read_codec(folder / CODEC_FILE)
        codec.level = "none" if spec.level == "none" else "rms" if spec.level == "rms" else "peak"
        return codec

    @cached_property
    def writers(self) -> dict[str, type[Writer]]:
        """WAV or FLAC files, or one array; each with a picture of the first."""
        from aigc_cli.modalities.audio_writers import ClipArrayWriter, FlacWriter, WavWriter

        return {"wav": WavWriter, "flac": FlacWriter, "npz": ClipArrayWriter}

    def read(self, path: Path, like: DataSpec | None = None) -> Items:
        """A folder of sound files, or an ``.npz`` file, at the rate and of the length of what they are held against."""
        from aigc_cli.modalities.audio_files import open_clips

        return open_clips(path, like)

    def parse(self, word: str, codec: Codec) -> Batch:
        """The clip in a file that a person names, as the data of the codec has them."""
        from aigc_cli.modalities.audio_files import read_clip

        return read_clip(path_of(word), codec)

    def network(self, spec: DataSpec) -> nn.Module:
        """A convolutional network that looks at a log-mel spectrogram, whatever a model sees."""
        from aigc_cli.modalities.audio_network import AudioNetwork

        return AudioNetwork(spec)

    @property
    def memory_format(self) -> torch.memory_format:
        """Channels last, for which convolutions over spectrograms have their fastest kernels, on CPUs and GPUs."""
        import torch

        return torch.channels_last

    def glance(self, content: Tensor) -> Tensor:
        """Clips (n, channels, samples) as small log-mel spectrograms, in which copies are sought."""
        from aigc_cli.modalities.audio_network import glance

        return glance(content)
