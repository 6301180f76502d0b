"""What datasets of sound share: int16 clips of one length, and the codec that a model sees them through."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Attributes, Dataset, Resident
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.audio_config import MULTIPLE, AudioCodecConfig
from aigc_cli.modalities.base import Batch, DataSpec

if TYPE_CHECKING:
    from torch import Tensor

    from aigc_cli.modalities.audio_codecs import AudioCodec

_FITTED = 256  # clips that a codec is shown at a time


@dataclass(config=STRICT, frozen=True, kw_only=True)
class SoundsConfig:
    """The keys that all datasets of sound have."""

    sample_rate: Annotated[int, Field(ge=4000, le=96000)]
    seconds: Annotated[float, Field(gt=0, le=600)]
    channels: Literal[1, 2]
    normalize: Literal["peak", "rms", "none"]
    codec: AudioCodecConfig

    @property
    def samples(self) -> int:
        """How long each clip is made."""
        return math.ceil(self.sample_rate * self.seconds / MULTIPLE) * MULTIPLE


class Sounds(Dataset):
    """Base of what gives int16 clips (channels, samples) of one length."""

    codec: AudioCodec

    def __init__(
        self, config: SoundsConfig, identity: str, clips: Callable[[], Iterator[Tensor]], *,
        labels: np.ndarray | None = None, classes: Sequence[str] = (), untrained: Sequence[str] = (),
        attributes: Attributes = (), problems: Sequence[str] = (), notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """The fingerprint is a SHA-256 over the `identity` of the content, its form, its `labels` and `classes`.

        `clips` gives those of the *training* split, some at a time, for a codec that learns from them. `problems`,
        `notes`, `attributes` and `untrained` classes are for a person to know.
        """
        content = (config.channels, config.samples)
        digest = hashlib.sha256(json.dumps([identity, content, config.sample_rate, list(classes)]).encode())
        digest.update(b"" if labels is None else np.ascontiguousarray(labels).data)
        self.codec = _codec(config, clips)
        self.spec = DataSpec(
            "audio", self.codec.shape, tuple(classes), fingerprint=digest.hexdigest(), untrained=tuple(untrained),
            content=content, rate=config.sample_rate, padding=self.codec.padding,
            level=config.normalize, attributes=tuple(attributes),
        )  # fmt: skip
        self._problems, self._notes = list(problems), list(notes)

    def problems(self) -> list[str]:
        """The files that were left out, with the reason."""
        return self._problems

    def describe(self) -> list[str]:
        """How many clips each split has, how long they are, and what became of shorter and longer ones."""
        return self._notes


class SoundDataset(Resident, Sounds):
    """Clips that are held in memory: `content` is int16 (n, channels, samples), `labels` int64 (n,) or None."""

    def __init__(
        self, config: SoundsConfig, content: np.ndarray, labels: np.ndarray | None = None, *,
        train: Callable[[], np.ndarray] | None = None, identity: str | None = None, **about: Any,
    ) -> None:  # fmt: skip
        """`train` gives the clips of the training split, where these are of another; `identity` stands for the content
        in the fingerprint, where what makes it is known; `about` are the other arguments of :class:`Sounds`."""
        import torch

        clips = train or (lambda: content)
        known = identity or hashlib.sha256(np.ascontiguousarray(content).data).hexdigest()
        super().__init__(config, known, lambda: _some_at_a_time(clips()), labels=labels, **about)
        self._data = Batch(torch.from_numpy(content), None if labels is None else torch.from_numpy(labels))


def _some_at_a_time(content: np.ndarray) -> Iterator[Tensor]:
    import torch

    for start in range(0, len(content), _FITTED):
        yield torch.from_numpy(content[start : start + _FITTED])


def _codec(config: SoundsConfig, clips: Callable[[], Iterator[Tensor]]) -> AudioCodec:
    """The codec that a configuration describes, fitted on clips unless it is one that is kept somewhere; raises
    ConfigError where that is of other clips."""
    from aigc_cli.modalities.audio_codecs import make_codec

    codec = make_codec(config.codec, config.sample_rate, config.channels, config.samples)
    if config.codec.path is None:
        codec.fit(_when_asked(clips))
    found = (codec.rate, codec.channels, codec.samples)
    if found != (config.sample_rate, config.channels, config.samples):
        raise ConfigError(
            f"the codec in {config.codec.path} is of clips at {found[0]} Hz with {found[1]} channel(s) and "
            f"{found[2]:,} samples, and the data's are at {config.sample_rate} Hz with {config.channels} and "
            f"{config.samples:,}",
            "use the same data.sample_rate=, data.channels= and data.seconds=, or leave data.codec.path= out; "
            "model.init_from= keeps the codec of its run unless model.init_tokenizer=new",
        )
    return codec


def _when_asked(clips: Callable[[], Iterator[Tensor]]) -> Iterator[Tensor]:
    """The same clips, which nobody makes where nothing is learnt of them."""
    yield from clips()
