"""How the codec of sound is chosen, and where a run keeps it; without torch, as a configuration is checked without."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT

CODEC_FILE = "codec.json"  # in a run's folder


@dataclass(config=STRICT, frozen=True, kw_only=True)
class AudioCodecConfig:
    """The section ``data.codec``."""

    kind: Literal["mel", "spectrogram", "waveform"]
    bins: Annotated[int, Field(ge=8, le=512)] | None = None  # None: 64 of mel, 128 of a spectrogram
    hop: Annotated[int, Field(ge=16, le=4096)] | None = None  # samples from frame to frame; None has as many frames
    path: str | None = None  # of a run's folder, or of a codec.json, whose codec is used as it is
