"""Figures of a model that is still being trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.base import Split
from aigc_cli.data.open import Splits
from aigc_cli.metrics.evaluation import Evaluator
from aigc_cli.metrics.extractors.base import Sources
from aigc_cli.metrics.images import DatasetImages, GeneratedImages


def validator(
    metrics: Mapping[str, Mapping[str, Any]],
    splits: Splits,
    stream: Callable[[int], Iterator[Tensor]],
    n: int,
    *,
    device: torch.device,
    split: Split = "val",
    batch_size: int = 128,
) -> Callable[[], dict[str, float]]:
    """A function that measures `n` fresh samples against a split of the data, whose features are computed once.

    Args:
        metrics: The configuration of each metric by its name, such as ``{"fd": {"name": "fd", "extractor":
            "classifier"}}``.
        splits: The run's data.
        stream: Maps a batch size to batches of generated raw uint8 images, `n` in all; called at each validation.
        n: The number of samples.
        device: Where features are computed.
        split: The reference.
        batch_size: Images at a time.

    Returns:
        A function that gives the figures by their full names, such as ``{"fd[digits-cnn]": 12.3}``.

    Raises:
        ConfigError: a metric or extractor that cannot serve this data.
        DataError: data or weights that are missing or cannot be trusted.
    """
    sources = Sources(device=device, data=splits.name, open_split=splits.__getitem__)
    real = DatasetImages(splits[split], split, splits.name)
    evaluator = Evaluator(metrics, sources, real, batch_size=batch_size)

    def measure() -> dict[str, float]:
        fake = GeneratedImages(stream, n, real.shape)
        return {label: value for result in evaluator.evaluate(fake) for label, value in result.labelled().items()}

    return measure
