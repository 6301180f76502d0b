"""How the codec of sound is chosen, where a run keeps it, and how long a clip is; torch is imported where that is
asked, as a configuration is checked without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT

if TYPE_CHECKING:
    from torch import Tensor

CODEC_FILE = "codec.json"  # in a run's folder
FULL = 32767  # int16 samples reach from -FULL to FULL
MULTIPLE = 1024  # clips have a multiple of so many samples, which suits all networks


@dataclass(config=STRICT, frozen=True, kw_only=True)
class AudioCodecConfig:
    """The section ``data.codec``."""

    kind: Literal["mel", "spectrogram", "waveform"]
    bins: Annotated[int, Field(ge=8, le=512)] | None = None  # None: 64 of mel, 128 of a spectrogram
    hop: Annotated[int, Field(ge=16, le=4096)] | None = None  # samples from frame to frame; None has as many frames
    depth: Annotated[float, Field(ge=20, le=140)] | None = None  # dB below full scale that are silence, of mel
    path: str | None = None  # of a run's folder, or of a codec.json, whose codec is used as it is


def lengths(content: Tensor) -> Tensor:
    """Of clips (n, channels, samples), the number of samples up to the last that is not zero, int64 (n,)."""
    import torch

    heard = (content != 0).any(dim=1)
    after = heard.flip(-1).to(torch.uint8).argmax(dim=-1)  # how many zeros are at the end
    return torch.where(heard.any(dim=-1), content.shape[-1] - after, 0)
