"""What datasets of images share: uint8 pixels, held in memory where they fit, else decoded when they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset
from aigc_cli.data.cache import digest_of, remembered
from aigc_cli.data.raw import offer
from aigc_cli.data.splits import CutConfig
from aigc_cli.errors import DataError
from aigc_cli.files import replacing
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.image_decode import Unreadable, decode_all, decode_image, pillow_errors

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 5  # how many unreadable files an error names


@typed(config=STRICT, frozen=True, kw_only=True)
class ImagesConfig:
    """The keys that all datasets of images have."""

    size: Annotated[int, Field(gt=0, le=4096)]
    flip: bool


class Images(Dataset):
    """What datasets of images share: with `flip`, half of them are mirrored in training."""

    codec: Codec = ImageCodec()

    def __init__(
        self, data: list[np.ndarray], shape: Sequence[int], classes: Sequence[str], flip: bool, problems: Sequence[str]
    ) -> None:
        """The fingerprint is a SHA-256 over `data` (content, labels), the `shape` of an image, and the classes."""
        digest = hashlib.sha256(json.dumps([list(shape), list(classes)]).encode())
        for array in data:
            digest.update(np.ascontiguousarray(array).data)
        self.spec = DataSpec("image", tuple(shape), tuple(classes), fingerprint=digest.hexdigest())
        self._flip, self._problems = flip, list(problems)

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """Mirrors left and right where an item's first draw is below one half, if `data.flip` is on."""
        if not self._flip:
            return content
        import torch

        n = len(content)
        index = torch.arange(n, device=content.device) + n * (uniform[:, 0] < 0.5)  # without a host sync
        return torch.cat([content, content.flip(-1)]).index_select(0, index)  # twice as fast as torch.where

    def problems(self) -> list[str]:
        """The files that were left out, with the reason."""
        return self._problems


class ImageDataset(Images):
    """Images that are held in memory: `content` is uint8 (n, c, h, w), `labels` int64 (n,) or None."""

    def __init__(
        self,
        content: Tensor,
        labels: Tensor | None,
        classes: Sequence[str] = (),
        *,
        flip: bool = False,
        problems: Sequence[str] = (),
    ) -> None:
        self._data = Batch(content, labels)
        arrays = [tensor.numpy() for tensor in (content, labels) if tensor is not None]
        super().__init__(arrays, content.shape[1:], classes, flip, problems)

    def __len__(self) -> int:
        return len(self._data)

    def resident(self) -> Batch | None:
        """All pixels and labels, on the CPU."""
        return self._data

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One image, uint8 (c, h, w), and its label."""
        labels = self._data.labels
        return self._data.content[index], None if labels is None else int(labels[index])


def rescale(content: Tensor, size: int) -> Tensor:
    """uint8 images (n, c, h, w) at (size, size): bilinear, with antialiasing where it shrinks."""
    import torch
    from torch.nn.functional import interpolate

    if content.shape[-2:] == (size, size):
        return content
    resized = [
        interpolate(part.float(), (size, size), mode="bilinear", antialias=size < min(part.shape[-2:]))
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
        for part in torch.split(content, 4096)  # a bound on the float copy
    ]
    return torch.cat(resized)


@typed(config=STRICT, frozen=True, kw_only=True)
class ImageFilesConfig(ImagesConfig, CutConfig):
    """The keys of a person's own images, in files of any layout."""

    root: str | None
    channels: Literal[1, 3]
    max_bad: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) that images are brought to."""
        return self.channels, self.size, self.size


@dataclass(frozen=True)
class EncodedImages:
    """Image files that are not decoded yet."""

    read: Callable[[Any], bytes | Path]  # what is in a file, by its key; picklable, raises Unreadable
    keys: Sequence[Any]  # one for each file, such as its name
    shape: tuple[int, int, int]  # (channels, height, width) that they are brought to
    names: Sequence[str]  # one for each file, for messages
    identity: str  # changes when a file may have
    labels: np.ndarray | None = None  # int64 (n,)
    classes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    def decode(self, index: int) -> np.ndarray:
        """The pixels of one, uint8 (c, h, w); raises Unreadable where it is not an image that can be used."""
        return decode_image(self.read(self.keys[index]), self.shape[1], self.shape[0])

    def take(self, rows: np.ndarray) -> EncodedImages:
        """Some of them."""
        return replace(
            self,
            keys=[self.keys[row] for row in rows.tolist()],
            names=[self.names[row] for row in rows.tolist()],
            identity=f"{self.identity} {hashlib.sha256(rows.tobytes()).hexdigest()}",
            labels=None if self.labels is None else self.labels[rows],
        )


class StreamedImages(Images):
    """Images that do not fit in memory, decoded each time they are asked for; `content` is a digest of their pixels."""

    def __init__(self, files: EncodedImages, content: str, *, flip: bool = False, problems: Sequence[str] = ()) -> None:
        self._files = files
        arrays = [np.frombuffer(content.encode(), dtype=np.uint8)]
        arrays += [] if files.labels is None else [files.labels]
        super().__init__(arrays, files.shape, files.classes, flip, problems)

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


def open_encoded(files: EncodedImages, config: ImageFilesConfig) -> ImageDataset | StreamedImages:
    """Decodes all `files` once, to hold them or to know which are unreadable, and leaves those out; raises DataError
    where more than ``data.max_bad`` are unreadable, or all; the message names them."""
    offer("image", files)
    flip, max_bad = config.flip, config.max_bad
    if len(files) * int(np.prod(files.shape)) > config.memory_gb * 1e9:
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


def decode_once(files: EncodedImages, memory: Path) -> np.ndarray:
    """All pixels of `files`, uint8 (n, c, h, w), remembered in the file `memory`; raises DataError where one is
    unreadable."""
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


def _accept(files: EncodedImages, failed: Mapping[int, str], max_bad: int) -> list[str]:
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


def _checked(files: EncodedImages) -> tuple[dict[int, str], str]:
    """What is unreadable among files that are not held, and a digest of all other pixels; found once."""

    def found() -> dict[str, Any]:
        digests = np.zeros((len(files), 32), dtype=np.uint8)

        def keep(index: int, pixels: np.ndarray) -> None:
            digests[index] = np.frombuffer(hashlib.sha256(pixels.data).digest(), dtype=np.uint8)

        failed = decode_all(files.decode, len(files), keep, "checking")
        return {"failed": failed, "content": hashlib.sha256(np.delete(digests, list(failed), axis=0).data).hexdigest()}

    def restored(saved: Any) -> tuple[dict[int, str], str]:  # the keys of JSON are text
        return {int(index): str(reason) for index, reason in saved["failed"].items()}, str(saved["content"])

    return remembered("checked", digest_of([files.identity, *files.shape]), found, restored)
