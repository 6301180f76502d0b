"""Whether a set of samples may leave: not where more of them are copies of training items than one allows."""

from __future__ import annotations

import torch
from torch import Tensor

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import Splits, items_at
from aigc_cli.errors import DataError
from aigc_cli.metrics.neighbours import nearest
from aigc_cli.modalities.base import modality

_QUANTILE, _MEMORY_MB = 0.01, 128  # as of metric=memorization
_HELD_OUT, _AT_ONCE = 2000, 512


def hold_copies(samples: Tensor, splits: Splits, most: float) -> float:
    """The share of copies among samples, a glance at each (n, ...), as ``copies_pixels`` of ``memorization`` has it:
    those equal to a training item, or nearer to one than all but a hundredth of held-out items are.

    Raises:
        DataError: the share is above `most`; or there is no data to compare with.
    """
    real = _glances(splits["train"])
    held_out = _glances(splits.held_out()[1], _HELD_OUT)
    near = nearest(held_out, real, _MEMORY_MB)[0].quantile(_QUANTILE)
    distance = nearest(samples.flatten(1), real, _MEMORY_MB)[0]
    share = float(((distance < near) | (distance == 0)).double().mean())
    if share > most:
        what = f"{share:.1%} of the {len(samples)} samples are copies of training items, and memorization.max={most:g}"
        raise DataError(f"{what}: nothing was written", "look at them with aigc eval --metric memorization")
    return share


def _glances(dataset: Dataset, most: int | None = None) -> Tensor:
    rows, kind = range(len(dataset) if most is None else min(most, len(dataset))), modality(dataset.spec.modality)
    parts = (rows[start : start + _AT_ONCE] for start in range(0, len(rows), _AT_ONCE))
    return torch.cat([kind.glance(items_at(dataset, part).content).flatten(1) for part in parts])
