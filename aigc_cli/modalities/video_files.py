"""Clips of video that a user names: a folder of video files, an ``.npz`` file, or a single file as a prompt."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.files import checksum, kinds_of, listing_of, passed_over
from aigc_cli.modalities.arrays import array_names, read_arrays
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.file_items import FileItems, files_below
from aigc_cli.modalities.samples import not_samples, read_record
from aigc_cli.modalities.text_files import printable
from aigc_cli.modalities.unreadable import Unreadable
from aigc_cli.modalities.video_codec import USUAL_RATE, VideoCodec
from aigc_cli.modalities.video_decode import DECODED, NAMED, first_frames, is_video, missing_packages

_USUAL = (3, 16, 64, 64)  # of a clip, where nothing else says how large it is
_LOSSY = ("gif", "mp4")


class FileFilms(FileItems):
    """Clips that can be had in any order, each of the shape and the rate of `spec`."""

    def batches(self, size: int) -> Iterator[Batch]:
        """Read as they are asked for, uint8 (n, c, t, h, w); raises DataError where one cannot be read."""
        for start in range(0, len(self), size):
            yield Batch(torch.from_numpy(np.stack([self.read(one) for one in self.held[start : start + size]])))

    @abstractmethod
    def read(self, one: Any) -> np.ndarray:
        """One of those that are `held`, uint8 (c, t, h, w)."""


class ArrayFilms(FileFilms):
    """Clips of one ``.npz`` file: an array uint8 (n, frames, H, W, C), and ``rate``, how many frames a second has."""

    def __init__(self, path: Path, like: DataSpec | None = None) -> None:
        hint = "give an .npz with `clips`, uint8 (n, frames, H, W, C), as `aigc sample format=npz` writes it"
        names = array_names(path)
        name = next((name for name in ("clips", "arr_0") if name in names), "clips")
        found = read_arrays(path, [name, "rate"], "clips", hint)
        if name not in found:
            raise DataError(f"{path} holds no clips", hint)
        array = found[name]
        if array.ndim != 5 or array.dtype != np.uint8 or 0 in array.shape:
            raise DataError(f"{path} holds an array of {array.dtype} of shape {array.shape}", hint)
        rate = found.get("rate", np.array((like and like.rate) or USUAL_RATE))
        if rate.size != 1 or rate.dtype.kind not in "iuf" or not 1 <= (known := rate.item()) == round(known) <= 1000:
            raise DataError(f"{path} does not say how many frames a second has: `rate` is {rate}", hint)
        self.held = array
        self.spec = DataSpec("video", (array.shape[4], *array.shape[1:4]), rate=round(known))
        self.key = f"npz/{checksum(path)}"
        self.facts = {"file": str(path), "sha256": self.key.removeprefix("npz/")}

    def read(self, one: np.ndarray) -> np.ndarray:
        """A row of the array."""
        return np.ascontiguousarray(one.transpose(3, 0, 1, 2))


class FolderFilms(FileFilms):
    """The first clip of each video file below a folder, by name, of the shape and the rate of `like`.

    Raises:
        DataError: there is none, or they are GIF or MP4 files that ``aigc sample`` wrote: what these lost would be
            measured, and not what a model made.
    """

    def __init__(self, folder: Path, like: DataSpec | None = None) -> None:
        found, own = files_below(folder)
        for parent in sorted({path.parent for path in found}):
            if (record := read_record(parent)) is not None and record.get("format") in _LOSSY:
                what = f"{printable(parent)} holds clips as {record['format']}, which is not what the model made"
                raise DataError(what, "measure the run itself with run=, or write them with `aigc sample format=npz`")
        self.held = paths = [path for path in own if is_video(path.name)]
        if not paths:
            raise DataError(f"there is no video in {folder}; {kinds_of(map(str, found))}", f"give {NAMED} files")
        others = passed_over((path.name for path in own if not is_video(path.name)), missing_packages())
        self.notes = (*others, "scores of video files are also of what their compression lost")
        self.spec = DataSpec("video", like.raw if like else _USUAL, rate=(like and like.rate) or USUAL_RATE)
        listing = listing_of(folder, paths)
        form = f"{self.spec.raw} at {self.spec.rate}"
        self.key = f"films-{DECODED}/{printable(folder.resolve())}/{listing}/{form}"
        self.facts = {"folder": printable(folder), "listing": listing}

    def read(self, one: Path) -> np.ndarray:
        """The beginning of a file."""
        clip, own = _beginning(one, self.spec.rate or USUAL_RATE, self.spec.raw)
        if own < clip.shape[1]:
            what = f"{printable(one)} has {own} frames at {self.spec.rate} a second, and a clip has {clip.shape[1]}"
            raise DataError(what, "remove it")
        return clip


def _beginning(path: Path, rate: int, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    try:
        return first_frames(path, rate, shape)
    except (OSError, Unreadable) as reason:
        what = f"{printable(path)} cannot be read as video: {reason}"
        raise DataError(what, "remove or replace it") from None


def open_films(path: Path, like: DataSpec | None = None) -> FileFilms:
    """The clips that a user named: a folder of video files, or an ``.npz`` file; raises DataError where there is
    nothing at `path`, or it cannot be read as video."""
    if path.is_dir():
        archives = [file for file in sorted(path.glob("*.npz")) if not file.name.startswith(".")]
        films = {entry.name for entry in path.iterdir() if is_video(entry.name)}
        if len(archives) != 1 or films - not_samples(path):
            return FolderFilms(path, like)
        path = archives[0]
    if not path.is_file():
        raise DataError(f"there is nothing at {path}", "give a folder of video files, or an .npz file of clips")
    return ArrayFilms(path, like)


def read_film(path: Path, codec: VideoCodec) -> Batch:
    """The beginning of a file, uint8 (1, c, t, h, w), as the data of a codec has its clips, with its last frame
    repeated where it is shorter; raises ConfigError where it cannot be read."""
    if not path.is_file():
        raise ConfigError(f"there is no file {printable(path)}", f"give a {NAMED} file")
    try:
        clip, own = _beginning(path, codec.rate, codec.shape)
    except DataError as error:
        raise ConfigError(error.message, error.hint) from None
    if own < clip.shape[1]:
        of = f"{own} of {clip.shape[1]} frames at {codec.rate} a second"
        warn(f"{printable(path)} has {of}: its last one is repeated")
    return Batch(torch.from_numpy(clip)[None])
