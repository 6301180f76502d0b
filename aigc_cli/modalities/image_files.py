"""Images that a user names: a folder of pictures, or an ``.npz`` file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from aigc_cli.errors import DataError
from aigc_cli.files import checksum, kinds_of, listing_of, passed_over
from aigc_cli.modalities.arrays import array_names, read_arrays
from aigc_cli.modalities.base import Batch, DataSpec
from aigc_cli.modalities.file_items import FileItems, files_below
from aigc_cli.modalities.image_decode import (
    DECODED,
    MODES,
    NAMED,
    is_picture,
    is_turned,
    missing_packages,
    opened,
    pillow_errors,
    plain,
    planes,
    upright,
)
from aigc_cli.modalities.samples import not_samples
from aigc_cli.modalities.text_files import printable
from aigc_cli.modalities.unreadable import Unreadable

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage


class FileImages(FileItems):
    """Images that can be had in any order: all of a file or folder, or some of them, as they are or as RGB."""

    _grey_as_rgb = False

    def batches(self, size: int) -> Iterator[Batch]:
        """Read as they are asked for, uint8 (n, C, H, W); raises DataError as :meth:`read`."""
        for start in range(0, len(self), size):
            content = self.read(self.held[start : start + size])
            yield Batch(content.expand(-1, 3, -1, -1) if self._grey_as_rgb else content)

    def like(self, spec: DataSpec) -> FileImages:
        """As RGB, each grey value repeated, beside others that have colour."""
        if spec.modality != self.spec.modality or (self.spec.raw[0], spec.raw[0]) != (1, 3):
            return self
        return self.changed("rgb", spec=replace(self.spec, shape=(3, *self.spec.shape[1:])), _grey_as_rgb=True)

    @abstractmethod
    def read(self, some: Iterable[Any]) -> Tensor:
        """Some of those that are `held`, uint8 (n, C, H, W), as they are; raises DataError where one cannot be read, or
        is of another size."""


class ArrayImages(FileImages):
    """Images of one ``.npz`` file: a single array (n, H, W), (n, H, W, C) or (n, C, H, W) of uint8."""

    def __init__(self, path: Path) -> None:
        array = _array_of(path)
        if array.ndim == 3:
            array = array[:, None]
        elif array.ndim == 4 and array.shape[-1] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
            hint = "give images as (n, H, W, C) with 1 or 3 channels"
            raise DataError(f"{path} holds an array of shape {array.shape}", hint)
        if array.dtype != np.uint8:
            raise DataError(f"{path} holds {array.dtype} values, and images are uint8", "save them as uint8, 0 to 255")
        self.held = array
        self.spec = DataSpec("image", array.shape[1:])
        self.key = f"npz/{checksum(path)}"
        self.facts = {"file": str(path), "sha256": self.key.removeprefix("npz/")}

    def read(self, some: Iterable[np.ndarray]) -> Tensor:
        """Rows of the array."""
        return torch.from_numpy(np.stack(list(some)))


def _array_of(path: Path) -> np.ndarray:
    names, hint = array_names(path), "give an .npz with one uint8 array"
    if {"mu", "sigma"} <= set(names):
        raise DataError(f"{path} holds statistics, not images", hint)
    name = next((name for name in ("images", "samples", "arr_0") if name in names), names[0] if names else "images")
    found = read_arrays(path, [name], "images", hint)
    if name not in found:
        raise DataError(f"{path} holds no array", hint)
    return found[name]


class FolderImages(FileImages):
    """The pictures below a folder, by name; of a sample folder the samples alone, without its grid and originals.

    They are RGB as soon as one has colour, as reference implementations read all of them; where all are grey they stay
    so, and extractors repeat them. `channels` decides it otherwise.
    """

    def __init__(self, folder: Path, channels: int | None = None) -> None:
        found, own = files_below(folder)
        paths = [path for path in own if is_picture(path.name)]
        if not paths:
            raise DataError(
                f"there are no pictures in {folder}; {kinds_of(map(str, found))}", f"give a folder of {NAMED} files"
            )
        self.notes = tuple(passed_over((path.name for path in own if not is_picture(path.name)), missing_packages()))
        if turned := sum(map(_is_turned, paths)):
            self.notes += (
                f"{turned} pictures are turned as their EXIF says, which torch-fidelity and pytorch-fid do not do",
            )
        self.held, self._name = paths, printable(paths[0].name)
        self._channels = channels or (3 if any(map(_has_colour, paths)) else 1)
        self._first = self._decoded(paths[0]).shape
        self.spec = DataSpec("image", tuple(self._first))
        listing = listing_of(folder, paths)
        self.key = f"folder-{DECODED}/{printable(folder.resolve())}/{listing}/{self._channels}"
        self.facts = {"folder": printable(folder), "listing": listing}

    def read(self, some: Iterable[Path]) -> Tensor:
        """Decoded one by one; raises DataError where a picture cannot be read, or is not of the size of the first."""
        images = []
        for path in some:
            images.append(self._decoded(path))
            if images[-1].shape != self._first:
                raise DataError(
                    f"{printable(path)} is {size_of(images[-1].shape)}, and {self._name} is {size_of(self._first)}",
                    "resize all pictures to one size first; how that is done changes the scores",
                )
        return torch.stack(images)

    def _decoded(self, path: Path) -> Tensor:
        with _picture(path) as picture:
            return torch.from_numpy(planes(plain(upright(picture), MODES[self._channels])))


def _has_colour(path: Path) -> bool:
    with _picture(path) as picture:  # what is not grey for sure, such as a palette, may have colour
        return not (picture.mode in ("1", "L") or picture.mode.startswith("I"))  # I is grey of 16 bits


def _is_turned(path: Path) -> bool:
    if path.suffix.lower() in (".png", ".bmp", ".gif"):  # which no camera writes: a glance at each would take long
        return False
    with _picture(path) as picture:
        return is_turned(picture)


@contextmanager
def _picture(path: Path) -> Iterator[PillowImage]:
    """An open picture, whose pixels are not decoded yet; raises DataError where it cannot be read, there or by what is
    done within the context."""
    try:
        with pillow_errors(), opened(path) as picture:
            yield picture
    except Unreadable as reason:
        raise DataError(f"{printable(path)} cannot be read as a picture: {reason}", "remove or replace it") from None


def open_images(path: Path, channels: int | None = None) -> FileImages:
    """The images that a user named: a folder of pictures, or an ``.npz`` file; raises DataError where there is nothing
    at `path`, or it cannot be read as images."""
    if path.is_dir():
        archives = [file for file in sorted(path.glob("*.npz")) if not file.name.startswith(".")]
        left_out, pictures = not_samples(path), (entry.name for entry in path.iterdir() if is_picture(entry.name))
        if len(archives) == 1 and left_out.issuperset(pictures):
            return ArrayImages(archives[0])
        return FolderImages(path, channels)
    if path.is_file():
        return ArrayImages(path)
    raise DataError(f"there is nothing at {path}", "give a folder of pictures, or an .npz file of images")


def size_of(shape: Sequence[int]) -> str:
    """A shape in words, such as 3x32x32."""
    return "x".join(map(str, shape))
