"""The two sides of a comparison: sets of raw images, from a dataset, a model, a folder or an ``.npz`` file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import reference_rows
from aigc_cli.errors import ConfigError, DataError, NonFiniteError


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

    def few(self, n: int) -> Tensor:
        """Which `n` of them stand for all, int64 (n,) in ascending order: the first, where their order says nothing."""
        return torch.arange(n)


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
        self._rows = None if count is None or count >= total else reference_rows(dataset, split, count)
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
            raise DataError(error.message, error.hint) from None

    def labels(self) -> Tensor | None:
        """As they are given."""
        return None if self._labels is None else self._labels()


def size_of(shape: Sequence[int]) -> str:
    """A shape in words, such as 3x32x32."""
    return "x".join(map(str, shape))


def same_shape(images: Images, real: Images, what: str = "generated") -> None:
    """Refuses to compare images of different sizes.

    Args:
        images: What takes the place of generated images.
        real: The reference.
        what: `images` are called.

    Raises:
        DataError: the shapes differ.
    """
    if images.shape != real.shape:
        sizes = f"{size_of(images.shape)} and real ones {size_of(real.shape)}"
        hint = "bring both to one size: how they are resized changes the figures"
        if images.shape[1:] == real.shape[1:]:
            hint = "bring both to as many channels, 1 for grey and 3 for colour"
        raise DataError(f"{what} images are {sizes} (channels x height x width)", hint)
