"""``fd_infinity``: the Fréchet distance that infinitely many samples would have."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import FeatureMetric, joined, require
from aigc_cli.metrics.extractors.base import FeatureStatistics, merge_packed
from aigc_cli.metrics.frechet import factor
from aigc_cli.randomness import permutation
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FDInfinityConfig:
    """Through which points the line goes."""

    name: Literal["fd_infinity"]
    extractor: str
    points: Annotated[int, Field(ge=3)]
    smallest: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


def intercept(sizes: np.ndarray, values: np.ndarray) -> float:
    """Where the least-squares line through ``values`` over ``1 / sizes`` meets 0."""
    return float(np.polynomial.Polynomial.fit(1 / sizes, values, 1)(0.0))


@register("metric", "fd_infinity", FDInfinityConfig)
class FrechetInfinity(FeatureMetric):
    """``fd_infinity``: Chong and Forsyth, Effectively Unbiased FID and Inception Score and where to find them, 2020.

    The distance of n samples exceeds that of infinitely many by about c/n, with a c that differs between models. A
    line through the distances of several n, each of a fresh random subset, meets 1/n = 0 at the latter (section 4).
    Only the number of generated images is extrapolated; the reference stays as it is.
    """

    moments_of = ("real",)
    figures: ClassVar[dict[str, str]] = {"fd_infinity": "lower"}
    real: Tensor
    fake: Any

    def __init__(self, config: FDInfinityConfig, width: int) -> None:
        super().__init__(width)
        self.config = config
        empty = torch.zeros(width + 2, width, dtype=torch.float64)
        self.add_state("real", default=empty, dist_reduce_fx=merge_packed)
        self.add_state("fake", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, real: bool) -> None:  # type: ignore[override]
        """Merges the statistics of real features (n, d), keeps generated ones as float32."""
        if real and len(features):
            self.take(FeatureStatistics.of(features.to(self.real.device)), real)
        elif len(features):
            self.fake.append(features.detach().to(torch.float32))

    def take(self, statistics: FeatureStatistics, real: bool) -> None:
        """Merges statistics of real features."""
        assert real
        self.real = FeatureStatistics.unpacked(self.real).merge(statistics).packed()
        self._computed = None
        self._update_count = max(1, self._update_count)  # torchmetrics warns of a metric that was never updated

    def compute(self) -> dict[str, Tensor]:
        """The distance; 0 is best, and chance puts it a little to either side."""
        real, fake = FeatureStatistics.unpacked(self.real), joined(self.fake, self.width)
        require(real.n, 2, "real", "a covariance", "give more images")
        hint = "give more images, n= for generated ones"
        require(len(fake), 10 * self.config.points, "generated", f"a line through {self.config.points} sizes", hint)
        root = factor(real.covariance)
        sizes = self._sizes(len(fake))
        values = []
        for point, size in enumerate(sizes):
            order = permutation(len(fake), "fd_infinity", self.config.seed, point)[:size]
            subset = FeatureStatistics.of(fake[torch.from_numpy(order).to(fake.device)])
            values.append(_distance(real, root, subset))
        return {"fd_infinity": torch.tensor(intercept(sizes, np.array(values)), dtype=torch.float64)}

    def _sizes(self, n: int) -> np.ndarray:
        least = max(2, round(self.config.smallest * n))
        return np.linspace(least, n, self.config.points).round().astype(int)

    def notes(self) -> list[str]:
        """Says so where the smallest subset has fewer images than features."""
        n = len(joined(self.fake, self.width))
        smallest = int(self._sizes(n)[0])
        few = f"fd_infinity draws its line from {smallest:,} images on, fewer than the {self.width} features"
        return (
            [f"{few}: there the distance is not linear in 1/n, and n= should be larger"]
            if smallest < self.width
            else []
        )


def _distance(real: FeatureStatistics, root: Tensor, fake: FeatureStatistics) -> float:
    # Eigenvalues lose digits that singular values keep, but cost a third, and the line's own error is larger by far.
    covariance = fake.covariance
    values = torch.linalg.eigvalsh(root.T @ covariance @ root).clamp_min(0)
    traces = real.covariance.trace() + covariance.trace() - 2 * values.sqrt().sum()
    return float((real.mean - fake.mean).square().sum() + traces)
