"""What a dataset is: raw items of one modality, a :class:`DataSpec`, and the codec between them and what a model sees.

One that fits in memory hands itself over whole, so that batches are gathered by index on the device: copying batches
there one by one would keep a GPU waiting. One that does not fit is read item by item. And one whose batches are made in
another way, such as windows of a text, brings its own :class:`Gatherer` and :class:`Order`. Orders are here too: one
permutation an epoch, in memory or worked out as it is needed, and sequences by their length.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, Self

import numpy as np

from aigc_cli.modalities.base import Batch, Codec, DataSpec
from aigc_cli.randomness import generator, permutation, scattered, uniform_at

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
AHEAD = 4096  # entries that are worked out at a time
#: What classes are combinations of, see :attr:`DataSpec.attributes`.
Attributes = Sequence[tuple[str, tuple[str, ...]]]
DRAWS = 8  # uniform draws for the augmentation of an item, per epoch


def combined(values: Sequence[str]) -> str:
    """The class of what has one label or several, such as "seven-theo"."""
    # A comma stands between classes where several are asked for.
    return values[0] if len(values) == 1 else "-".join(values).replace(",", " ")


def attributes_of(names: Sequence[str], values: Iterable[Iterable[str]]) -> Attributes:
    """The attributes of those `names` where each class in turn has such `values`."""
    return tuple(zip(names, zip(*values, strict=True), strict=True))


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
    mixed: bool = False  # of sequences, whether a batch holds short and long ones, padded, and not ones of like length


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

    @property
    def plain(self) -> Dataset:
        """The same items as their own codec encodes them, where this one encodes them further, such as to tokens."""
        return self

    def kept(self, device: torch.device | str) -> Gatherer | None:
        """Makes batches of training views that are encoded already; None where each batch is still to be encoded."""
        return None

    def augment(self, content: Tensor, uniform: Tensor) -> Tensor:
        """A training view of raw content (n, ...); `uniform` is (n, 8), float32 in [0, 1), each item's own draws."""
        return content

    def as_usual(self) -> Self:
        """The same items, changed in training as they always are, and not as a run's words ask for: what is learnt of
        them to measure by is then the same for every run."""
        return self

    def problems(self) -> list[str]:
        """What was left out while reading, a line each, such as files that cannot be read."""
        return []

    def describe(self) -> list[str]:
        """What else a person should know at the start, a line each, such as the size of a vocabulary."""
        return []


class Resident(Dataset):
    """Items that are all held in memory, on the CPU; a base that comes before the one that says what they are."""

    _data: Batch

    def __len__(self) -> int:
        return len(self._data)

    def resident(self) -> Batch | None:
        """All of them, with their labels."""
        return self._data

    def read(self, index: int) -> tuple[Tensor, int | None]:
        """One item, with its label where there is one."""
        labels = self._data.labels
        return self._data.content[index], None if labels is None else int(labels[index])


class _Permutations:
    """One permutation of `n` items after the other, with entries on `device`."""

    def __init__(self, n: int, plan: BatchPlan, device: torch.device | str) -> None:
        self.n, self.plan, self.device = n, plan, device

    def epoch(self, k: int) -> float:
        """How many passes over the data lie before micro-batch `k`."""
        return k * self.plan.batch_size * self.plan.world_size / self.n


class PermutedOrder(_Permutations):
    """A permutation in memory for each epoch; `draws` says whether each item comes with some."""

    def __init__(self, n: int, plan: BatchPlan, device: torch.device | str, draws: bool) -> None:
        super().__init__(n, plan, device)
        self.draws = draws
        self._table = lru_cache(maxsize=2)(self._of_epoch)  # a batch may reach into the next epoch

    def entries(self, k: int) -> tuple[Tensor, Tensor | None]:
        """Item numbers (batch_size,) and augmentation draws (batch_size, 8) of micro-batch `k`."""
        import torch

        plan = self.plan
        first = (k * plan.world_size + plan.rank) * plan.batch_size
        left, indices, uniforms = plan.batch_size, [], []
        while left:
            epoch, start = divmod(first, self.n)
            stop = min(self.n, start + left)
            order, draws = self._table(epoch)
            indices.append(order[start:stop])
            if draws is not None:
                uniforms.append(draws[start:stop])
            first, left = first + stop - start, left - (stop - start)
        if len(indices) == 1:
            return indices[0], uniforms[0] if uniforms else None  # a view, where torch.cat would copy
        return torch.cat(indices), torch.cat(uniforms) if uniforms else None

    def _of_epoch(self, epoch: int) -> tuple[Tensor, Tensor | None]:
        import torch

        order = permutation(self.n, "order", self.plan.seed, epoch)
        draws = None
        if self.draws:
            uniform = generator("augment", self.plan.seed, epoch).random((self.n, DRAWS), dtype=np.float32)
            draws = torch.from_numpy(uniform[order]).to(self.device)  # an item's draws do not depend on its place
        return torch.from_numpy(order).to(self.device), draws


class WindowOrder(_Permutations):
    """A permutation an epoch and a draw for each item, in memory that does not grow with the number of items.

    A text of a billion tokens has many millions of windows, of which a table would take longer than a short training.
    """

    def __init__(self, n: int, plan: BatchPlan, device: torch.device | str) -> None:
        super().__init__(n, plan, device)
        # As many micro-batches at a time as make numpy's overhead small; what is kept is the block that is in use.
        self._block = lru_cache(maxsize=1)(self._work_out)

    def entries(self, k: int) -> tuple[Tensor, Tensor | None]:
        """The item numbers (batch_size,) of micro-batch `k`, and a draw (batch_size, 1) of each."""
        size = max(1, AHEAD // self.plan.batch_size)
        block, place = divmod(k, size)
        index, uniform = self._block(block * size, size)
        return index[place], uniform[place]

    def _work_out(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        import torch

        plan = self.plan
        starts = (np.arange(first, first + count) * plan.world_size + plan.rank) * plan.batch_size
        entries = (starts[:, None] + np.arange(plan.batch_size)).ravel()
        epochs, places = np.divmod(entries, self.n)
        index, uniform = np.empty_like(places), np.empty(len(places), dtype=np.float32)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            index[here] = scattered(places[here], self.n, "order", plan.seed, epoch)
            uniform[here] = uniform_at(index[here], "augment", plan.seed, epoch)
        rows, draws = index.reshape(count, -1), uniform.reshape(count, -1, 1)
        return torch.from_numpy(rows).to(self.device), torch.from_numpy(draws).to(self.device)


class BucketOrder:
    """Sequences of similar length together, so that little of a batch is padding.

    Each epoch permutes the items, deals them out to `buckets` by their length, cuts every bucket into batches, and
    permutes those. What is left over in a bucket joins the next longer one, so that only one batch of an epoch is
    short. All epochs have the same number of batches, and ranks share each of them.
    """

    def __init__(self, lengths: np.ndarray, plan: BatchPlan, *, batch_tokens: int | None, buckets: int) -> None:
        """`lengths` (n,) are of the longer side of each item.

        `batch_tokens` bounds the tokens of a batch of all ranks on that side, padding counted; it takes the place of
        the batch size, which is what bounds batches where it is None. Either way the batches are the same whatever the
        number of ranks, unless one would have fewer items than there are ranks.
        """
        self.plan = plan
        self.n = len(lengths)
        # Each bucket has about as many tokens; lengths that many items share make some larger.
        shares = np.cumsum(np.sort(lengths)) / max(1, int(lengths.sum()))
        edges = np.sort(lengths)[np.minimum(np.searchsorted(shares, np.arange(1, buckets + 1) / buckets), self.n - 1)]
        self._edges = np.unique(edges)
        self._bucket = np.searchsorted(self._edges, lengths)
        whole = plan.batch_size * plan.world_size
        sizes = [whole if batch_tokens is None else batch_tokens // int(edge) for edge in self._edges]
        self._sizes = [max(plan.world_size, size) for size in sizes]
        self._planned = lru_cache(maxsize=2)(self._plan_epoch)

    def entries(self, k: int) -> tuple[Tensor, None]:
        """The item numbers (n,) of micro-batch `k`; n depends on their lengths."""
        import torch

        epoch, place = divmod(k, self.batches)
        items = self._planned(epoch)[place]
        first, stop = (len(items) * rank // self.plan.world_size for rank in (self.plan.rank, self.plan.rank + 1))
        return torch.from_numpy(items[first:stop]), None

    def epoch(self, k: int) -> float:
        """How many passes over the data lie before micro-batch `k`."""
        epoch, place = divmod(k, self.batches)
        return epoch + sum(map(len, self._planned(epoch)[:place])) / sum(map(len, self._planned(epoch)))

    @cached_property
    def batches(self) -> int:
        """Micro-batches an epoch."""
        return len(self._planned(0))

    def _plan_epoch(self, epoch: int) -> list[np.ndarray]:
        order = permutation(self.n, "order", self.plan.seed, epoch)
        bucket = self._bucket[order]
        batches: list[np.ndarray] = []
        left = order[:0]
        for number, size in enumerate(self._sizes):
            items = np.concatenate([left, order[bucket == number]])
            whole = len(items) // size * size
            batches += np.split(items[:whole], whole // size) if whole else []
            left = items[whole:]
        if len(left):
            # Every rank gets one item at least, if some come twice.
            batches.append(np.resize(left, max(len(left), self.plan.world_size)))
        return [batches[place] for place in permutation(len(batches), "batches", self.plan.seed, epoch)]
