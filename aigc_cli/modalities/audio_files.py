"""Clips that a user names: a folder of sound files, an ``.npz`` file, or a single file as a prompt."""

from __future__ import annotations

import io
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import checksum, kinds_of, listing_of, passed_over
from aigc_cli.modalities.arrays import array_names, read_arrays
from aigc_cli.modalities.audio_codecs import AudioCodec
from aigc_cli.modalities.audio_config import FULL, MULTIPLE
from aigc_cli.modalities.audio_decode import (
    DECODED,
    NAMED,
    Normalize,
    decode_sound,
    is_sound,
    missing_packages,
    mix,
    quiet,
)
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.file_items import FileItems, files_below
from aigc_cli.modalities.mp3 import is_mp3, with_length
from aigc_cli.modalities.samples import read_record
from aigc_cli.modalities.text_files import printable
from aigc_cli.modalities.unreadable import Unreadable

_LONGEST = 30.0  # seconds of a clip, where nothing else says how long clips are


class FileClips(FileItems):
    """Clips that can be had in any order, each brought to the rate, the channels and the length of `spec`."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Read as they are asked for, int16 (n, channels, samples); raises DataError where one cannot be read."""
        for start in range(0, len(self), size):
            waves = (self.read(one) for one in self.held[start : start + size])
            yield Batch(torch.stack([_fitted(wave, self.spec.raw[1]) for wave in waves]))

    def like(self, spec: DataSpec) -> FileClips:
        """At the rate, with the channels and of the length of others: cut, or followed by silence."""
        form = clips_spec(spec.raw, spec.rate, spec.level)
        own = clips_spec(self.spec.raw, self.spec.rate, self.spec.level)
        if spec.modality != "audio" or form == own:
            return self
        return self.changed(f"as {form.raw} at {form.rate}, {form.level}", spec=form)

    @abstractmethod
    def read(self, one: Any) -> np.ndarray:
        """One of those that are `held` at the rate and with the channels of `spec`, int16 (n, channels)."""


class ArrayClips(FileClips):
    """Clips of one ``.npz`` file: an array (n, samples) or (n, channels, samples), int16 or floating in [-1, 1], and
    ``rate``, how many samples a second has."""

    def __init__(self, path: Path, like: DataSpec | None = None) -> None:
        names, hint = array_names(path), "give an .npz with `clips`, int16 (n, channels, samples), and `rate`"
        name = next((name for name in ("clips", "samples", "arr_0") if name in names), "clips")
        found = read_arrays(path, [name, "rate"], "clips", hint)
        if name not in found:
            raise DataError(f"{path} holds no clips", hint)
        array = found[name][:, None] if found[name].ndim == 2 else found[name]
        if array.ndim != 3 or array.shape[1] not in (1, 2) or 0 in array.shape:
            raise DataError(f"{path} holds an array of shape {array.shape}", hint)
        if array.dtype.kind == "f" and np.isfinite(array).all():
            array = np.rint(array.clip(-1, 1) * FULL).astype(np.int16)
        if array.dtype != np.int16:
            raise DataError(f"{path} holds {array.dtype} values, or such as are not numbers", hint)
        known = None if like is None else like.rate
        if (rate := found.get("rate")) is not None:
            number = rate.size == 1 and rate.dtype.kind in "iuf" and bool(np.isfinite(rate).all())
            known = int(rate.item()) if number else None
        if known is None or not 1000 <= known <= 384_000:
            raise DataError(f"{path} does not say how many samples a second has", hint)
        self.held, self._rate = array, known
        self.spec = clips_spec(array.shape[1:], known)
        self.key = f"npz/{checksum(path)}"
        self.facts = {"file": str(path), "sha256": self.key.removeprefix("npz/")}

    def read(self, one: np.ndarray) -> np.ndarray:
        """A row of the array, resampled where it has another rate."""
        return _resampled(one.T, self._rate, self.spec)


class FolderClips(FileClips):
    """The sound files below a folder, by name; of a sample folder the samples alone, without the originals.

    They have the rate and the channels of the first and the length of the longest, unless `like` says otherwise. What
    ``aigc sample`` wrote is taken as it is; other files are made as loud as the data makes its own, or brought to one
    peak.
    """

    def __init__(self, folder: Path, like: DataSpec | None = None) -> None:
        found, own = files_below(folder)
        paths = [path for path in own if is_sound(path.name)]
        if not paths:
            raise DataError(f"there is no sound in {folder}; {kinds_of(map(str, found))}", f"give {NAMED} files")
        self._ours = {parent for parent in {path.parent for path in found} if read_record(parent) is not None}
        self.notes = tuple(passed_over((path.name for path in own if not is_sound(path.name)), missing_packages()))
        self.held = paths
        self.spec = _form(paths) if like is None else clips_spec(like.raw, like.rate, like.level)
        listing, form = listing_of(folder, paths), f"{self.spec.raw} at {self.spec.rate}, {self.spec.level}"
        self.key = f"sounds-{DECODED}/{printable(folder.resolve())}/{listing}/{form}"
        self.facts = {"folder": printable(folder), "listing": listing}

    def read(self, one: Path) -> np.ndarray:
        """A file, decoded."""
        return _decoded(one, self.spec, as_it_is=one.parent in self._ours)


def clips_spec(raw: Sequence[int], rate: int | None, level: str | None = None) -> DataSpec:
    """Of clips (channels, samples) as waveforms."""
    return DataSpec("audio", tuple(raw), content=tuple(raw), rate=rate, level=level)


def _form(paths: Sequence[Path]) -> DataSpec:
    """The rate and channels of the first file, and the length of the longest."""
    rate, channels, seconds = 0, 1, 0.0
    for path in paths:
        with suppress(soundfile.LibsndfileError, OSError), quiet():  # what cannot be read is named when it is
            with path.open("rb") as file:
                mp3 = is_mp3(file.read(16))
            info = soundfile.info(io.BytesIO(with_length(path.read_bytes())) if mp3 else path)
            rate, channels = (rate, channels) if rate else (info.samplerate, min(2, info.channels))
            seconds = max(seconds, info.frames / info.samplerate)
    samples = math.ceil(min(max(seconds, 0.05), _LONGEST) * (rate or 16_000) / MULTIPLE) * MULTIPLE
    return clips_spec((channels, samples), rate or 16_000)


def _decoded(path: Path, spec: DataSpec, *, as_it_is: bool = False) -> np.ndarray:
    """A file as int16 (n, channels) at the rate of `spec`, as loud as that says unless it is taken `as_it_is`."""
    try:
        if as_it_is:
            wave, own = soundfile.read(path, dtype="int16", always_2d=True)
            return _resampled(wave, own, spec)
        with quiet():
            level: Normalize = spec.level if spec.level in ("rms", "none") else "peak"  # type: ignore[assignment]
            return decode_sound(path, spec.rate or 8000, spec.raw[0], level).samples
    except (OSError, RuntimeError, Unreadable) as reason:
        what = f"{printable(path)} cannot be read as sound: {reason}"
        raise DataError(what, "remove or replace it") from None


def _resampled(wave: np.ndarray, rate: int, spec: DataSpec) -> np.ndarray:
    """A waveform, int16 (n, any channels), at the rate and with the channels of `spec`; itself where it has both."""
    if (rate, wave.shape[1]) == (spec.rate, spec.raw[0]):
        return wave
    mixed = mix(wave.astype(np.float32), spec.raw[0])
    found: np.ndarray = soxr.resample(mixed, rate, spec.rate, quality="HQ") if rate != spec.rate else mixed
    rounded: np.ndarray = np.rint(found).clip(-FULL, FULL).astype(np.int16)
    return rounded


def _fitted(wave: np.ndarray, samples: int) -> Tensor:
    """A waveform (n, channels) as a clip (channels, samples): cut, or followed by zeros."""
    clip = torch.zeros(wave.shape[1], samples, dtype=torch.int16)
    kept = torch.from_numpy(np.ascontiguousarray(wave[:samples].T))
    clip[:, : kept.shape[1]] = kept
    return clip


def open_clips(path: Path, like: DataSpec | None = None) -> FileClips:
    """The clips that a user named: a folder of sound files, or an ``.npz`` file; raises DataError where there is
    nothing at `path`, or it cannot be read as sound."""
    if path.is_dir():
        archives = [file for file in sorted(path.glob("*.npz")) if not file.name.startswith(".")]
        if len(archives) != 1 or any(is_sound(entry.name) for entry in path.iterdir()):
            return FolderClips(path, like)
        path = archives[0]
    if not path.is_file():
        raise DataError(f"there is nothing at {path}", "give a folder of sound files, or an .npz file of clips")
    clips = ArrayClips(path, like)
    return clips if like is None else clips.like(like)


def read_clip(path: Path, codec: Codec) -> Batch:
    """The clip in a file, int16 (1, channels, samples), as the data of a codec of sound has them: at its rate, cut or
    followed by silence, and as loud as these; raises ConfigError where it cannot be read."""
    while not isinstance(codec, AudioCodec):
        codec = codec.inner  # type: ignore[attr-defined]  # of a tokenizer
    if not path.is_file():
        raise ConfigError(f"there is no file {printable(path)}", f"give a {NAMED} file")
    spec = clips_spec((codec.channels, codec.samples), codec.rate, codec.level)
    try:
        wave = _decoded(path, spec)
    except DataError as error:
        raise ConfigError(error.message, error.hint) from None
    return Batch(_fitted(wave, codec.samples)[None])
