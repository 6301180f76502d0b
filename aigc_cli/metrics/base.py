"""What a metric over features is: a ``torchmetrics.Metric`` that adds up over batches and processes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from aigc_cli.errors import DataError
from aigc_cli.metrics.features import FeatureStatistics, merge_packed


class FeatureMetric(Metric):
    """Base of the metrics over features. A subclass is built as ``build(config, width)``, width the features' d.

    Its config has a field ``extractor``, the name of a registered extractor.
    """

    is_differentiable = False
    full_state_update = False
    #: The extractor's layer that it is computed on.
    layer: ClassVar[str] = "features"
    #: Whether it compares with real features at all.
    needs_real: ClassVar[bool] = True
    #: The extractor that its plain name stands for in the literature; on any other its name takes a bracket.
    native: ClassVar[str | None] = None
    #: Its figures, and which way is better: "lower", "higher" or "" for a spread.
    figures: ClassVar[dict[str, str]]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def update(self, features: Tensor, real: bool) -> None:
        """Adds features (n, d), real or generated."""

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The figures, float64 scalars by name.

        Raises:
            DataError: too few features for the figure to mean anything.
        """

    def notes(self) -> list[str]:
        """What a reader of the figures must know about how they came about, a sentence each."""
        return []


def require(count: int, least: int, whose: str, why: str, mend: str) -> None:
    """Refuses fewer than `least` images.

    Raises:
        DataError: there are too few.
    """
    if count < least:
        raise DataError(f"{count} {whose} images are too few: {why} needs at least {least}", mend)


class MomentMetric(FeatureMetric):
    """A metric that needs only the mean and covariance of either side; memory is O(d^2)."""

    real: Tensor
    fake: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for side in ("real", "fake"):
            empty = torch.zeros(width + 2, width, dtype=torch.float64)
            self.add_state(side, default=empty, dist_reduce_fx=merge_packed)

    def update(self, features: Tensor, real: bool) -> None:
        """Merges the statistics of features (n, d)."""
        if not len(features):
            return
        side = "real" if real else "fake"
        known = FeatureStatistics.unpacked(getattr(self, side))
        setattr(self, side, known.merge(FeatureStatistics.of(features.to(known.mean.device))).packed())

    def statistics(self) -> tuple[FeatureStatistics, FeatureStatistics]:
        """What was gathered: real, generated."""
        return FeatureStatistics.unpacked(self.real), FeatureStatistics.unpacked(self.fake)


class SampleMetric(FeatureMetric):
    """A metric that needs every feature; memory is O(n d).

    Processes are joined in rank order: with each rank holding a contiguous share, the order is that of one process.
    """

    real: Any
    fake: Any

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:
        """Keeps features (n, d) as float32."""
        if len(features) and (self.needs_real or not real):
            getattr(self, "real" if real else "fake").append(features.detach().to(torch.float32))

    def gathered(self) -> tuple[Tensor, Tensor]:
        """What was gathered, in float64: real (n, d), generated (m, d)."""
        return self._joined(self.real), self._joined(self.fake)

    def _joined(self, parts: Tensor | list[Tensor]) -> Tensor:
        if isinstance(parts, Tensor):  # torchmetrics joined the lists of several processes
            return parts.to(torch.float64)
        return torch.cat(parts).to(torch.float64) if parts else torch.zeros(0, self.width, dtype=torch.float64)
