"""What a model may need to see before it is sampled with some controls: the training set, encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import chosen_rows, encoded, items_at
from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Model

_BATCH = 128
_ITEMS = 20_000  # of the training set, at most, that a model is shown


def prepare(model: Model, open_train: Callable[[], Dataset], controls: Any, *, device: torch.device | str) -> None:
    """Gets a model ready to be sampled with `controls`.

    Args:
        model: in evaluation mode, on `device`.
        open_train: opens the training split; called only if the model wants to see it.
        controls: of ``model.controls``.
        device: where the model is, and where its items go.

    Raises:
        ConfigError: the model cannot serve `controls`.
        DataError: the data is missing or cannot be trusted.
    """
    with torch.no_grad():  # not in inference mode: what a model keeps of this, it may train with
        model.prepare(_items(open_train, device), controls)


def _items(open_train: Callable[[], Dataset], device: torch.device | str) -> Iterator[Batch]:
    """Items in stored order, of all kinds: where there are many, each class may have a place of its own in it."""
    dataset = open_train()
    rows = sorted(chosen_rows(dataset, "prepare")[:_ITEMS])
    for start in range(0, len(rows), _BATCH):
        yield encoded(items_at(dataset, rows[start : start + _BATCH]).to(device), dataset.codec)
