"""What data is to the rest of the house: items of one modality, a :class:`DataSpec`, and a codec.

A dataset yields raw items (for images: uint8 pixels and a label). Its codec maps a batch of them to what a model sees
and a batch of a model's samples back. A dataset that fits in memory hands itself over whole, so that batches can be
gathered by index on the device; one that does not is read item by item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class DataSpec:
    """All that a model may know about the data."""

    modality: str  # "image" | "text" | "pairs" | "audio" | "video"
    shape: tuple[int, ...]  # of one encoded item; (channels, height, width) for images, (tokens,) for text
    classes: tuple[str, ...] = ()  # () if unlabelled
    vocab_size: int | None = None  # of tokens, the special ones included
    specials: tuple[tuple[str, int], ...] = ()  # tokens that are no text: "pad", "bos", "eos", "unk"
    fingerprint: str = ""  # of the content, so that a resumed run can tell when the data changed

    def special(self, name: str) -> int | None:
        """The id of a special token; None where the vocabulary has none of that name."""
        return dict(self.specials).get(name)


@dataclass(frozen=True)
class Batch:
    """Some items, raw or encoded: (n, ...) content, (n,) int64 labels where there are any.

    Of pairs, `content` is the target and `source` what it is made from, each padded to its longest.
    """

    content: Tensor
    labels: Tensor | None = None
    source: Tensor | None = None

    def __len__(self) -> int:
        return self.content.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on a device."""
        moved = [None if part is None else part.to(device, non_blocking=True) for part in (self.labels, self.source)]
        return Batch(self.content.to(device, non_blocking=True), *moved)

    def take(self, index: Tensor) -> Batch:
        """The rows at `index` (int64, on the batch's device)."""
        taken = [None if part is None else part[index] for part in (self.labels, self.source)]
        return Batch(self.content[index], *taken)

    def with_content(self, content: Tensor) -> Batch:
        """The same labels with other content."""
        return replace(self, content=content)


class Codec(ABC):
    """Maps raw content to what a model sees, and back."""

    @abstractmethod
    def encode(self, content: Tensor) -> Tensor:
        """Raw content (n, ...) to encoded (n, ...)."""

    @abstractmethod
    def decode(self, encoded: Tensor) -> Tensor:
        """Encoded (n, ...) to raw content (n, ...)."""


class Dataset(ABC):
    """The items of one split. A subclass is built as ``build(config, split)`` with its own typed config."""

    spec: DataSpec
    codec: ClassVar[Codec]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def resident(self) -> Batch | None:
        """Everything, raw, in order; None where that does not fit in memory."""

    @abstractmethod
    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One raw item, with its label where there is one."""

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """A training view of raw content (n, ...); `uniform` is (n, 8), float32 in [0, 1), each item's own draws."""
        return content

    def problems(self) -> list[str]:
        """What was left out while reading, a line each, such as files that cannot be read."""
        return []
