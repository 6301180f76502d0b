"""What datasets of images share: uint8 pixels, held in memory where they fit, else decoded when they are asked for."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass as typed

from aigc_cli.config.schema import STRICT
from aigc_cli.data.augment import Augmentation, augmented
from aigc_cli.data.base import Attributes, Dataset, Resident, Split
from aigc_cli.data.own import EncodedFiles
from aigc_cli.data.splits import CutConfig
from aigc_cli.errors import DataError
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.image import ImageCodec
from aigc_cli.modalities.image_decode import decode_image, pillow_errors
from aigc_cli.modalities.unreadable import Unreadable

if TYPE_CHECKING:
    from torch import Tensor


@typed(config=STRICT, frozen=True, kw_only=True)
class ImagesConfig:
    """The keys that all datasets of images have."""

    size: Annotated[int, Field(gt=0, le=4096)]
    flip: bool
    augment: list[Augmentation] = field(default_factory=list)  # runs from before it was there have none

    @property
    def views(self) -> frozenset[str]:
        """How an image is changed each time that it is trained on."""
        return frozenset(self.augment) | ({"flip"} if self.flip else set())


class Images(Dataset):
    """What datasets of images share: they may be changed in training, see :mod:`aigc_cli.data.augment`."""

    codec: Codec = ImageCodec()

    def __init__(
        self, data: list[np.ndarray], shape: Sequence[int], classes: Sequence[str], *, views: Collection[str] = (),
        usual: Collection[str] = (), problems: Sequence[str] = (), notes: Sequence[str] = (),
        untrained: Sequence[str] = (), attributes: Attributes = (),
    ) -> None:  # fmt: skip
        """The fingerprint is a SHA-256 over `data` (content, labels), the `shape` of an image, and the classes.

        `views` are names of augmentations, and `usual` those that such images have anyway; `problems`, `notes`,
        `attributes` and `untrained` classes are for a person to know.
        """
        digest = hashlib.sha256(json.dumps([list(shape), list(classes)]).encode())
        for array in data:
            digest.update(np.ascontiguousarray(array).data)
        self.spec = DataSpec(
            "image", tuple(shape), tuple(classes), fingerprint=digest.hexdigest(), untrained=tuple(untrained),
            attributes=tuple(attributes),
        )  # fmt: skip
        self._views, self._usual = frozenset(views), frozenset(usual)
        self._problems, self._notes = list(problems), list(notes)

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """The images as ``data.augment`` and ``data.flip`` change them, by the draws of each."""
        return augmented(content, uniform, self._views)

    def as_usual(self) -> Self:
        """The same images without the changes that a run's words ask for."""
        other = copy.copy(self)
        other._views = self._usual
        return other

    def problems(self) -> list[str]:
        """The files that were left out, with the reason."""
        return self._problems

    def describe(self) -> list[str]:
        """How many images each split has, and what might be changed."""
        return self._notes


class ImageDataset(Resident, Images):
    """Images that are held in memory: `content` is uint8 (n, c, h, w), `labels` int64 (n,) or None."""

    def __init__(self, content: Tensor, labels: Tensor | None, classes: Sequence[str] = (), **about: Any) -> None:
        """`about` are the other arguments of :class:`Images`."""
        self._data = Batch(content, labels)
        arrays = [tensor.numpy() for tensor in (content, labels) if tensor is not None]
        super().__init__(arrays, content.shape[1:], classes, **about)


def counted(counts: Mapping[Split, int]) -> str:
    """How many images each split has, for a person."""
    return ", ".join(f"{split} {count:,}" for split, count in counts.items())


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
    labels: bool = True  # runs from before it was there used them
    label_column: str | None = None  # runs from before it was there knew no metadata
    max_bad: Annotated[int, Field(ge=0)]
    memory_gb: Annotated[float, Field(gt=0)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) that images are brought to."""
        return self.channels, self.size, self.size


@dataclass(frozen=True, kw_only=True)
class EncodedImages(EncodedFiles):
    """Image files that are not decoded yet."""

    shape: tuple[int, int, int]  # (channels, height, width) that they are brought to

    def decode(self, index: int) -> np.ndarray:
        """The pixels of one, uint8 (c, h, w); raises Unreadable where it is not an image that can be used."""
        return decode_image(self.read(self.keys[index]), self.shape[1], self.shape[0])


class StreamedImages(Images):
    """Images that do not fit in memory, decoded each time they are asked for; `content` is a digest of their pixels."""

    def __init__(self, files: EncodedImages, content: str, **about: Any) -> None:
        """`about` are the other arguments of :class:`Images`."""
        self._files = files
        arrays = [np.frombuffer(content.encode(), dtype=np.uint8)]
        arrays += [] if files.labels is None else [files.labels]
        super().__init__(arrays, files.shape, files.classes, **about)

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
