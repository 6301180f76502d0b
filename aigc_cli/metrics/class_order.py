"""The classes of samples that are held against real data: as often as they are there, where some are rarer than others.

A model that is told the class draws each as often as it is asked to. All in turn are what one looks at; beside data in
which one class is ten times as frequent as another, such a set would be far off however good each sample is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import chosen_rows, items_at
from aigc_cli.models.base import Model

#: Items whose classes stand for those of all, where not all are in memory; and how many are read at a time.
_SEEN, _TOGETHER = 2048, 256
#: Classes are even where less than this share of the items would have to change theirs to make them so.
_EVEN = 0.05


def class_order(train: Dataset, n: int) -> tuple[int, ...]:
    """The classes of samples 0 to `n`, each as often among the first few as in a training split; none where its classes
    are even, for then all can take turns. Raises DataError where an item cannot be read."""
    labels = _labels(train)
    counts = np.bincount(labels, minlength=len(train.spec.classes))
    shares = counts / counts.sum()
    even = (counts > 0) / np.count_nonzero(counts)
    chance = math.sqrt(len(counts) / (2 * math.pi * len(labels)))  # by which shares of so few differ, on average
    if np.abs(shares - even).sum() / 2 < _EVEN + chance:
        return ()
    order, owed = [], np.zeros(len(shares))
    for _ in range(n):
        owed += shares
        order.append(int(owed.argmax()))
        owed[order[-1]] -= 1
    return tuple(order)


@contextmanager
def in_class_order(model: Model, classes: Sequence[int]) -> Iterator[None]:
    """A model draws these classes meanwhile; with none, as it always does."""
    usual, model.class_order = model.class_order, classes
    try:
        yield
    finally:
        model.class_order = usual


def _labels(train: Dataset) -> np.ndarray:
    held = train.resident()
    if held is not None and held.labels is not None:
        return held.labels.numpy()
    rows = sorted(chosen_rows(train, "classes")[:_SEEN])
    parts = [items_at(train, rows[start : start + _TOGETHER]).labels for start in range(0, len(rows), _TOGETHER)]
    return np.concatenate([part.numpy() for part in parts if part is not None])
