"""What all image datasets share: uint8 pixels, a codec and a horizontal flip."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Dataset
from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.modalities.image import ImageCodec

if TYPE_CHECKING:
    from torch import Tensor

Size = Annotated[int, Field(gt=0, le=4096)]
Channels = Literal[1, 3]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ImagesConfig:
    """The keys that all datasets of images have."""

    size: Size
    flip: bool


class Images(Dataset):
    """What datasets of images share.

    Args:
        spec: of the images.
        flip: whether half of them are mirrored in training.
        problems: the files that were left out, with the reason.
    """

    codec: Codec = ImageCodec()

    def __init__(self, spec: DataSpec, *, flip: bool = False, problems: Sequence[str] = ()) -> None:
        self.spec = spec
        self._flip = flip
        self._problems = list(problems)

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """Mirrors left and right where an item's first draw is below one half, if `data.flip` is on."""
        return mirror(content, uniform[:, 0] < 0.5) if self._flip else content

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
        super().__init__(spec_of(arrays, content.shape[1:], classes), flip=flip, problems=problems)

    def __len__(self) -> int:
        return len(self._data)

    def resident(self) -> Batch | None:
        """All pixels and labels, on the CPU."""
        return self._data

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One image, uint8 (c, h, w), and its label."""
        labels = self._data.labels
        return self._data.content[index], None if labels is None else int(labels[index])


def mirror(content: Tensor, where: Tensor) -> Tensor:
    """Images (n, c, h, w) with left and right exchanged for those that `where` (n,) marks."""
    import torch

    n = len(content)
    index = torch.arange(n, device=content.device) + n * where  # no host sync, and twice as fast as torch.where
    return torch.cat([content, content.flip(-1)]).index_select(0, index)


def spec_of(arrays: Sequence[np.ndarray], shape: Sequence[int], classes: Sequence[str]) -> DataSpec:
    """The spec of images, whose fingerprint is a SHA-256 over `arrays` (content, labels), geometry and classes."""
    digest = hashlib.sha256(json.dumps([list(shape), list(classes)]).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return DataSpec("image", tuple(shape), tuple(classes), fingerprint=digest.hexdigest())


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
