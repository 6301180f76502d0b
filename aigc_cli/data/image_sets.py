"""Datasets of encoded image files, held in memory as pixels where they fit and decoded on demand where they do not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aigc_cli.data.base import Dataset
from aigc_cli.data.cache import cache_dir
from aigc_cli.data.images import ImageDataset, fingerprint, mirror
from aigc_cli.errors import DataError
from aigc_cli.files import replacing, write_atomically
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.image_decode import Unreadable, decode_all, pillow_errors

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 5  # how many unreadable files an error names


@dataclass(frozen=True)
class Encoded:
    """Image files that are not decoded yet."""

    decode: Callable[[int], np.ndarray]  # item number to uint8 (c, h, w); picklable, raises Unreadable
    shape: tuple[int, int, int]
    names: Sequence[str]  # one for each item, for messages
    identity: str  # changes when a file may have
    labels: np.ndarray | None = None  # int64 (n,)
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> Encoded:
        """Some of them."""
        return replace(
            self,
            decode=_Some(self.decode, rows),
            names=[self.names[row] for row in rows.tolist()],
            identity=f"{self.identity} {hashlib.sha256(rows.tobytes()).hexdigest()}",
            labels=None if self.labels is None else self.labels[rows],
        )


@dataclass(frozen=True)
class _Some:
    decode: Callable[[int], np.ndarray]
    rows: np.ndarray

    def __call__(self, index: int) -> np.ndarray:
        return self.decode(int(self.rows[index]))


class StreamedImages(Dataset):
    """Images that do not fit in memory: `files`, decoded each time they are asked for.

    Args:
        files: All of them readable.
        content: A digest of their pixels.
        flip: Whether half of them are mirrored.
        problems: The files that were left out, with the reason.
    """

    codec: Codec = ImageCodec()

    def __init__(self, files: Encoded, content: str, *, flip: bool = False, problems: Sequence[str] = ()) -> None:
        self._files = files
        self._flip = flip
        self._problems = list(problems)
        arrays = [np.frombuffer(content.encode(), dtype=np.uint8)]
        arrays += [] if files.labels is None else [files.labels]
        whole = fingerprint(arrays, files.shape, files.classes)
        self.spec = DataSpec("image", files.shape, tuple(files.classes), fingerprint=whole)

    def __len__(self) -> int:
        return len(self._files)

    def resident(self) -> Batch | None:
        """None: too large."""
        return None

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One image, uint8 (c, h, w), and its label."""
        import torch

        files = self._files
        try:
            with pillow_errors():
                pixels = files.decode(index)
        except Unreadable as reason:
            raise DataError(
                f"{files.names[index]} can no longer be read: {reason}", "start again to have all files checked"
            ) from reason
        return torch.from_numpy(pixels), None if files.labels is None else int(files.labels[index])

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """As in :class:`ImageDataset`."""
        return mirror(content, uniform[:, 0] < 0.5) if self._flip else content

    def problems(self) -> list[str]:
        """The files that were left out, with the reason."""
        return self._problems


def open_encoded(files: Encoded, *, flip: bool, memory_gb: float, max_bad: int) -> ImageDataset | StreamedImages:
    """Decodes all `files` once, to hold them or to know which are unreadable, and leaves those out.

    Raises:
        DataError: more than `max_bad` are unreadable, or all; the message names them.
    """
    if len(files) * int(np.prod(files.shape)) > memory_gb * 1e9:
        failed, content = _checked(files)
        problems = _accept(files, failed, max_bad)
        readable = files.take(np.delete(np.arange(len(files)), list(failed))) if failed else files
        return StreamedImages(readable, content, flip=flip, problems=problems)
    import torch

    pixels = np.empty((len(files), *files.shape), dtype=np.uint8)
    failed = decode_all(files.decode, len(files), pixels.__setitem__, "decoding")
    problems = _accept(files, failed, max_bad)
    labels = files.labels
    if failed:
        pixels = np.delete(pixels, list(failed), axis=0)
        labels = None if labels is None else np.delete(labels, list(failed))
    held = None if labels is None else torch.from_numpy(labels)
    return ImageDataset(torch.from_numpy(pixels), held, files.classes, flip=flip, problems=problems)


def decode_once(files: Encoded, memory: Path) -> np.ndarray:
    """All pixels of `files`, uint8 (n, c, h, w), remembered in the file `memory`.

    Raises:
        DataError: one is unreadable.
    """
    shape = (len(files), *files.shape)
    try:
        pixels: np.ndarray = np.load(memory, mmap_mode="r", allow_pickle=False)
        if pixels.shape == shape and pixels.dtype == np.uint8:
            return pixels
    except (OSError, ValueError, EOFError):
        pass
    pixels = np.empty(shape, dtype=np.uint8)
    _accept(files, decode_all(files.decode, len(files), pixels.__setitem__, "decoding"), 0)
    with suppress(OSError):  # a full disk costs time at the next start, nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        with replacing(memory) as part, part.open("wb") as file:
            np.save(file, pixels, allow_pickle=False)
    return pixels


def _accept(files: Encoded, failed: Mapping[int, str], max_bad: int) -> list[str]:
    """The line for each unreadable file, where there are not too many."""
    lines = [f"{files.names[index]}: {reason}" for index, reason in failed.items()]
    named = "; ".join(lines[:NAMED]) + (f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else "")
    if failed and len(failed) == len(files):
        raise DataError(f"none of {len(files)} images can be read: {named}", "point data.root= at images that open")
    if len(failed) > max_bad:
        raise DataError(
            f"{len(failed)} of {len(files)} images cannot be read: {named}",
            f"replace or remove them, or leave them out with data.max_bad={len(failed)}",
        )
    return lines


def _checked(files: Encoded) -> tuple[dict[int, str], str]:
    """What is unreadable among files that are not held, and a digest of the pixels of all others.

    Found once, and remembered while none of them changes.
    """
    key = hashlib.sha256(json.dumps([files.identity, *files.shape]).encode()).hexdigest()
    memory = cache_dir() / "checked" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError, LookupError, AttributeError):
        found = json.loads(memory.read_text())
        return {int(index): str(reason) for index, reason in found["failed"].items()}, str(found["content"])
    digests = np.zeros((len(files), 32), dtype=np.uint8)

    def keep(index: int, pixels: np.ndarray) -> None:
        digests[index] = np.frombuffer(hashlib.sha256(pixels.data).digest(), dtype=np.uint8)

    failed = decode_all(files.decode, len(files), keep, "checking")
    content = hashlib.sha256(np.delete(digests, list(failed), axis=0).data).hexdigest()
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps({"failed": failed, "content": content}))
    return failed, content
