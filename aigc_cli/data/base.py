"""What a dataset is: items of one modality, a :class:`DataSpec`, and a codec.

A dataset yields raw items (for images: uint8 pixels and a label). Its codec maps a batch of them to what a model sees,
and a batch of a model's samples back. A dataset that fits in memory hands itself over whole, so that batches are
gathered by index on the device: copying batches there one by one would keep a GPU waiting. One that does not fit is
read item by item. A dataset whose batches are made in another way, such as windows of a text, brings its own
:class:`Gatherer` and :class:`Order`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from aigc_cli.modalities.base import Batch, Codec, DataSpec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Gatherer(Protocol):
    """Makes raw batches of item numbers, where a dataset has its own way to."""

    @property
    def device(self) -> torch.device:
        """Where it takes item numbers, and where its batches are."""

    def __call__(self, index: Tensor, uniform: Tensor | None = None) -> Batch:
        """The items at `index`, int64 (n,).

        With `uniform`, float32 (n, d) in [0, 1), each item's own draws of the epoch, they are a training view; without
        it, together and in order, they are the whole split.
        """


@dataclass(frozen=True)
class BatchPlan:
    """All that decides which items a micro-batch holds."""

    batch_size: int
    seed: int
    rank: int = 0
    world_size: int = 1
    draws: bool = True  # whether items come with draws for their training view


class Order(Protocol):
    """Which items each micro-batch of a rank holds.

    It is a pure function of a :class:`BatchPlan` and the micro-batch's number, and not an iterator: so a run that is
    resumed asks for the number where it stopped, no state of a loader has to be saved, and each rank finds its own
    share without a word from the others.
    """

    def entries(self, k: int) -> tuple[Tensor, Tensor | None]:
        """The item numbers (n,) of micro-batch `k`, int64, and their draws (n, d), float32 in [0, 1), if it has any;
        both on the device that the order was made for."""

    def epoch(self, k: int) -> float:
        """How many passes over the data lie before micro-batch `k`."""


class Dataset(ABC):
    """The items of one split. A subclass is built as ``build(config, split)`` with its own typed config."""

    spec: DataSpec
    codec: Codec
    original: bool = False  # whether the publisher's own sums say that published scores were measured on this data

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def resident(self) -> Batch | None:
        """Everything, raw, in order; None where that does not fit in memory."""

    @abstractmethod
    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One raw item, with its label where there is one."""

    def gatherer(self, device: torch.device | str) -> Gatherer | None:
        """Its own way to make batches, for training on `device`; None where items are taken one by one."""
        return None

    def order(self, plan: BatchPlan, device: torch.device | str) -> Order | None:
        """Its own order of items, with entries on `device`; None for one permutation an epoch."""
        return None

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """A training view of raw content (n, ...); `uniform` is (n, 8), float32 in [0, 1), each item's own draws."""
        return content

    def problems(self) -> list[str]:
        """What was left out while reading, a line each, such as files that cannot be read."""
        return []

    def describe(self) -> list[str]:
        """What else a person should know at the start, a line each, such as the size of a vocabulary."""
        return []
