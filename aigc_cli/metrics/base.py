"""What a metric over features is: a ``torchmetrics.Metric`` that adds up over batches and processes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from aigc_cli.errors import DataError
from aigc_cli.metrics.extractors.base import FeatureStatistics, merge_packed


class FeatureMetric(Metric):
    """Base of the metrics over features. A subclass is built as ``build(config, width)``, width the features' d.

    Its config has a field ``extractor``, the name of a registered extractor.
    """

    is_differentiable = False
    full_state_update = False
    #: The extractor's layers that it is computed on, handed to :meth:`update` in this order; "pixels" is the images
    #: themselves, averaged to at most 32x32, uint8; "labels" is their classes, int64 (n,). Its width is that of the
    #: first.
    layers: ClassVar[tuple[str, ...]] = ("features",)
    #: Whether it compares with real features at all.
    needs_real: ClassVar[bool] = True
    #: The sides, "real" and "fake", of which it needs the mean and covariance only, through :meth:`take`.
    moments_of: ClassVar[tuple[str, ...]] = ()
    #: Whether it takes held-out real features too, through :meth:`hold_out`.
    needs_held_out: ClassVar[bool] = False
    #: The extractor that its plain name stands for in the literature; on any other its name takes a bracket.
    native: ClassVar[str | None] = None
    #: The figures that it may give, and which way is better: "lower", "higher" or "" for a spread.
    figures: ClassVar[dict[str, str]]

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    @abstractmethod
    def update(self, *layers: Tensor, real: bool) -> None:
        """Adds features (n, d), real or generated."""

    def take(self, statistics: FeatureStatistics, real: bool) -> None:
        """Adds the statistics of features, for the sides in :attr:`moments_of`."""
        raise NotImplementedError

    def hold_out(self, *layers: Tensor) -> None:
        """Takes the features (n, d) of real items that neither model nor reference has seen."""
        raise NotImplementedError

    def halve_held_out(self) -> int:
        """Puts half of the held-out items in the place of generated ones, judged by the rest; how many those are."""
        raise NotImplementedError

    @abstractmethod
    def compute(self) -> dict[str, Tensor]:
        """The figures, float64 scalars by name.

        Raises:
            DataError: too few features for the figure to mean anything.
        """

    def gallery(self) -> Tensor | None:
        """Images worth a look after :meth:`compute`, (rows, columns, C, h, w) uint8; None for most."""
        return None

    def notes(self) -> list[str]:
        """What a reader of the figures must know about how they came about, a sentence each."""
        return []


def require(count: int, least: int, whose: str, why: str, hint: str) -> None:
    """Refuses fewer than `least` images.

    Raises:
        DataError: there are too few.
    """
    if count < least:
        raise DataError(f"{count} {whose} images are too few: {why} needs at least {least}", hint)


class MomentMetric(FeatureMetric):
    """A metric that needs only the mean and covariance of either side; memory is O(d^2)."""

    moments_of = ("real", "fake")
    real: Tensor
    fake: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(width)
        for side in ("real", "fake"):
            empty = torch.zeros(width + 2, width, dtype=torch.float64)
            self.add_state(side, default=empty, dist_reduce_fx=merge_packed)

    def update(self, features: Tensor, real: bool) -> None:  # type: ignore[override]
        """Merges the statistics of features (n, d)."""
        if len(features):
            self.take(FeatureStatistics.of(features.to(self.real.device)), real)

    def take(self, statistics: FeatureStatistics, real: bool) -> None:
        """Merges statistics that were gathered elsewhere."""
        side = "real" if real else "fake"
        known = FeatureStatistics.unpacked(getattr(self, side))
        setattr(self, side, known.merge(statistics).packed())
        self._computed = None
        self._update_count = max(1, self._update_count)  # torchmetrics warns of a metric that was never updated

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

    def update(self, features: Tensor, real: bool) -> None:  # type: ignore[override]
        """Keeps features (n, d) as float32."""
        if len(features) and (self.needs_real or not real):
            getattr(self, "real" if real else "fake").append(features.detach().to(torch.float32))

    def gathered(self) -> tuple[Tensor, Tensor]:
        """What was gathered, in float32: real (n, d), generated (m, d)."""
        return joined(self.real, self.width), joined(self.fake, self.width)


def joined(parts: Tensor | list[Tensor], width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A state that is a list of (n, width) tensors as one tensor, whether or not torchmetrics has joined it."""
    if isinstance(parts, Tensor):  # of several processes
        return parts
    return torch.cat(parts) if parts else torch.zeros(0, width, dtype=dtype)
