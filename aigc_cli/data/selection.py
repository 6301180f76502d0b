"""A few items out of a dataset, and the splits to take them from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aigc_cli.data.base import Dataset, Split
from aigc_cli.errors import ConfigError
from aigc_cli.modalities.base import Batch
from aigc_cli.randomness import permutation

if TYPE_CHECKING:
    from aigc_cli.modalities.base import Codec

#: Opens a split of some data.
Opener = Callable[[Split], Dataset]


def items_at(dataset: Dataset, indices: Sequence[int]) -> Batch:
    """The raw items at `indices`, on the CPU, without augmentation.

    Raises:
        DataError: one cannot be read.
    """
    import torch

    gatherer = dataset.gatherer("cpu")
    if gatherer is not None:
        return gatherer(torch.as_tensor(indices, dtype=torch.int64))
    resident = dataset.resident()
    if resident is not None:
        return resident.take(torch.as_tensor(indices, dtype=torch.int64))
    contents, labels = zip(*(dataset.read(index) for index in indices), strict=True)
    known = [label for label in labels if label is not None]
    return Batch(torch.stack(contents), torch.tensor(known) if known else None)


def encoded(batch: Batch, codec: Codec) -> Batch:
    """A raw batch as a model sees it."""
    return batch.with_content(codec.encode(batch.content))


def chosen_rows(dataset: Dataset, *key: int | str) -> list[int]:
    """All rows of a dataset in an order that `key` alone decides, so that the first few are of every kind."""
    rows: list[int] = permutation(len(dataset), "rows", *key).tolist()
    return rows


def held_out_split(open_split: Opener, order: Sequence[Split] = ("test", "val", "train")) -> tuple[Split, Dataset]:
    """The first of some splits that holds anything, with its name.

    Raises:
        ConfigError, DataError: the last of them cannot be opened either.
    """
    for split in order[:-1]:
        try:
            dataset = open_split(split)
        except ConfigError:  # a dataset without such a split
            continue
        if len(dataset):
            return split, dataset
    return order[-1], open_split(order[-1])
