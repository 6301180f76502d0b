"""The two sides of a comparison: sets of raw images, from a dataset, a model, a folder or an ``.npz`` file."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aigc_cli.data.base import Dataset
from aigc_cli.data.decode import FORMATS, pillow_errors, plain, reason_of
from aigc_cli.data.image_folder import SUFFIXES
from aigc_cli.data.text_files import printable
from aigc_cli.errors import ConfigError, DataError, NonFiniteError
from aigc_cli.files import checksum
from aigc_cli.metrics.npz import array_names, read_arrays
from aigc_cli.randomness import permutation
from aigc_cli.sampling.provenance import not_samples


class Images(ABC):
    """An ordered set of raw images of one size."""

    #: (channels, height, width).
    shape: tuple[int, int, int]
    #: What it is, for the stamp on a figure.
    facts: dict[str, Any]
    #: Names the content, so that features of it may be kept; None where they may not.
    key: str | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """All of them in order, uint8 (n, C, H, W)."""

    def labels(self) -> Tensor | None:
        """The class that each should be of, int64 (n,), in the same order; None where there are no classes."""
        return None


class DatasetImages(Images):
    """Images of a dataset: all of them, or `count` drawn by a permutation that depends on the dataset alone."""

    def __init__(self, dataset: Dataset, split: str, name: str, count: int | None = None) -> None:
        if dataset.spec.modality != "image":
            raise ConfigError(
                f"the metrics here judge images, and {name} is {dataset.spec.modality} data",
                "name a run on images with run=, or images with fake= and real=",
            )
        self.dataset = dataset
        channels, height, width = dataset.spec.shape
        self.shape = (channels, height, width)
        total = len(dataset)
        self._rows: Sequence[int] | None = None
        if count is not None and count < total:
            self._rows = sorted(permutation(total, "reference", split, count)[:count].tolist())
        self._count = total if self._rows is None else len(self._rows)
        self.key = f"{dataset.spec.fingerprint}/{split}/{self._count}"
        fingerprint, original = dataset.spec.fingerprint, dataset.original
        self.facts = {"data": name, "split": split, "fingerprint": fingerprint, "original": original}

    def __len__(self) -> int:
        return self._count

    def rows(self) -> list[int]:
        """Which items of the dataset they are."""
        return list(range(self._count)) if self._rows is None else list(self._rows)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Gathered from memory where the dataset is there, else read one by one."""
        resident = self.dataset.resident()
        for start in range(0, len(self), batch_size):
            stop = min(start + batch_size, len(self))
            rows = list(range(start, stop)) if self._rows is None else list(self._rows[start:stop])
            if resident is not None:
                yield resident.content[torch.as_tensor(rows, device=resident.content.device)]
            else:
                yield torch.stack([self.dataset.read(row)[0] for row in rows])

    def labels(self) -> Tensor | None:
        """Those of the dataset."""
        if not self.dataset.spec.classes:
            return None
        resident = self.dataset.resident()
        if resident is not None:
            return None if resident.labels is None else resident.labels[torch.as_tensor(self.rows())]
        return torch.tensor([self.dataset.read(row)[1] for row in self.rows()])


class GeneratedImages(Images):
    """`n` samples of a model, drawn as they are asked for.

    Args:
        stream: Maps a batch size to batches of raw uint8 images, `n` in all.
        n: How many there are.
        shape: (channels, height, width).
        facts: Where they come from, for the stamp.
        labels: Finds the class that each should be of, (n,); None where they are of no class.
    """

    def __init__(
        self,
        stream: Callable[[int], Iterator[Tensor]],
        n: int,
        shape: Sequence[int],
        facts: Mapping[str, Any] | None = None,
        labels: Callable[[], Tensor | None] | None = None,
    ) -> None:
        self._stream, self._n, self._labels = stream, n, labels
        channels, height, width = shape
        self.shape = (channels, height, width)
        self.facts = dict(facts or {})

    def __len__(self) -> int:
        return self._n

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Drawn in order.

        Raises:
            DataError: the model draws NaN or infinite values; no figure can be given of them.
        """
        try:
            yield from self._stream(batch_size)
        except NonFiniteError as error:
            raise DataError(error.message, error.mend) from None

    def labels(self) -> Tensor | None:
        """As they are given."""
        return None if self._labels is None else self._labels()


class First(Images):
    """The first `n` of other images.

    Raises:
        DataError: there are fewer.
    """

    def __init__(self, images: Images, n: int) -> None:
        if n > len(images):
            raise DataError(f"n={n} was asked, and there are {len(images)} images", f"use n={len(images)}, or no n=")
        self.images, self.n = images, n
        self.shape, self.facts = images.shape, images.facts
        self.key = None if images.key is None else f"{images.key}/first {n}"

    def __len__(self) -> int:
        return self.n

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """As the others', but for the end."""
        left = self.n
        for batch in self.images.batches(batch_size):
            yield batch[:left]
            left -= len(batch)
            if left <= 0:
                return

    def labels(self) -> Tensor | None:
        """As the others', but for the end."""
        labels = self.images.labels()
        return None if labels is None else labels[: self.n]


class ArrayImages(Images):
    """Images of one ``.npz`` file: a single array (n, H, W), (n, H, W, C) or (n, C, H, W) of uint8."""

    def __init__(self, path: Path) -> None:
        array = _array_of(path)
        if array.ndim == 3:
            array = array[:, None]
        elif array.ndim == 4 and array.shape[-1] in (1, 3):
            array = array.transpose(0, 3, 1, 2)
        if array.ndim != 4 or array.shape[1] not in (1, 3) or 0 in array.shape:
            raise DataError(
                f"{path} holds an array of shape {array.shape}", "give images as (n, H, W, C) with 1 or 3 channels"
            )
        if array.dtype != np.uint8:
            raise DataError(f"{path} holds {array.dtype} values, and images are uint8", "save them as uint8, 0 to 255")
        self._array = array
        self.shape = (array.shape[1], array.shape[2], array.shape[3])
        self.key = f"npz/{checksum(path)}"
        self.facts = {"file": str(path), "sha256": self.key.removeprefix("npz/")}

    def __len__(self) -> int:
        return len(self._array)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Slices of the array."""
        for start in range(0, len(self), batch_size):
            yield torch.from_numpy(np.ascontiguousarray(self._array[start : start + batch_size]))


def _array_of(path: Path) -> np.ndarray:
    names, mend = array_names(path), "give an .npz with one uint8 array"
    if {"mu", "sigma"} <= set(names):
        raise DataError(f"{path} holds statistics, not images", mend)
    name = next((name for name in ("images", "samples", "arr_0") if name in names), names[0] if names else "images")
    found = read_arrays(path, [name], "images", mend)
    if name not in found:
        raise DataError(f"{path} holds no array", mend)
    return found[name]


class FolderImages(Images):
    """The pictures below a folder, by name; of a sample folder the samples alone, without its grid and originals."""

    def __init__(self, folder: Path, channels: int | None = None) -> None:
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        left_out = {parent: not_samples(parent) for parent in {path.parent for path in found}}
        self.paths = [path for path in found if path.name not in left_out[path.parent]]
        if not self.paths:
            raise DataError(f"there are no pictures in {folder}", f"give a folder of {', '.join(SUFFIXES)} files")
        self.folder, self._channels = folder, channels
        first = self._read(self.paths[0])
        self._channels = channels or int(first.shape[0])
        self.shape = (int(first.shape[0]), int(first.shape[1]), int(first.shape[2]))
        listing = hashlib.sha256()
        for path in self.paths:
            stat = path.stat()
            listing.update(os.fsencode(path.relative_to(folder)) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        self.key = f"folder/{printable(folder.resolve())}/{listing.hexdigest()}/{self._channels}"
        self.facts = {"folder": printable(folder), "listing": listing.hexdigest()}

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, batch_size: int) -> Iterator[Tensor]:
        """Read one by one.

        Raises:
            DataError: a picture cannot be read, or is not of the size of the first.
        """
        for start in range(0, len(self), batch_size):
            yield torch.stack([self._of_size(path) for path in self.paths[start : start + batch_size]])

    def _of_size(self, path: Path) -> Tensor:
        image = self._read(path)
        if tuple(image.shape) != self.shape:
            raise DataError(
                f"{printable(path)} is {_size(tuple(image.shape))}, "
                f"and {printable(self.paths[0].name)} is {_size(self.shape)}",
                "bring all pictures to one size first: how they are resized changes the figures",
            )
        return image

    def _read(self, path: Path) -> Tensor:
        from PIL import Image

        try:
            with pillow_errors(), Image.open(path, formats=FORMATS) as picture:
                own = picture.mode in ("1", "L") or picture.mode.startswith("I")  # I is grey of 16 bits
                grey = own if self._channels is None else self._channels == 1
                pixels = np.array(plain(picture, "L" if grey else "RGB"))
        except MemoryError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever a broken file makes them trip over
            what = f"{printable(path)} cannot be read as a picture: {reason_of(error)}"
            raise DataError(what, "remove or replace it") from None
        return torch.from_numpy(pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _size(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def open_images(path: Path, channels: int | None = None) -> Images:
    """The images that a user named: a folder of pictures, or an ``.npz`` file.

    Raises:
        ConfigError: there is nothing at `path`.
        DataError: what is there cannot be read as images.
    """
    if path.is_dir():
        archives, left_out = sorted(path.glob("*.npz")), not_samples(path)
        pictures = (entry.name for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES)
        if len(archives) == 1 and left_out.issuperset(pictures):
            return ArrayImages(archives[0])
        return FolderImages(path, channels)
    if path.is_file():
        return ArrayImages(path)
    raise ConfigError(f"there is nothing at {path}", "give a folder of pictures, or an .npz file of images")


def same_shape(fake: Images, real: Images) -> None:
    """Refuses to compare images of different sizes.

    Raises:
        DataError: the shapes differ.
    """
    if fake.shape != real.shape:
        raise DataError(
            f"generated images are {_size(fake.shape)} and real ones {_size(real.shape)} (channels x height x width)",
            "bring both to one size: how they are resized changes the figures",
        )
