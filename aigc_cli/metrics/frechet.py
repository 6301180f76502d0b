"""The Fréchet distance between Gaussians fitted to real and generated features: ``fid`` and ``fd``."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import MomentMetric, require
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.registry import register

PUBLISHED = 50_000  # generated images behind the FID figures of papers since Heusel et al.


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> Tensor:
    """The squared 2-Wasserstein distance of two Gaussians, a float64 scalar of at least 0.

    Heusel et al., GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, 2017, equation 6
    (Dowson & Landau, 1982): ``|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))``. With ``S = L L^T`` the trace of the root
    is the nuclear norm of ``L1^T L2``, which stays accurate where eigenvalues of the product do not: with fewer
    items than dimensions, and between equal sets.
    """
    s1, s2 = a.covariance, b.covariance
    root: Tensor = torch.linalg.svdvals(factor(s1).T @ factor(s2)).sum()
    distance: Tensor = (a.mean - b.mean).square().sum() + s1.trace() + s2.trace() - 2 * root
    return distance.clamp_min(0)


def factor(covariance: Tensor) -> Tensor:
    """L (d, r) with ``L L^T`` the covariance; directions that are zero but for rounding are left out."""
    values: Tensor
    vectors: Tensor
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, kept] * values[kept].sqrt()


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FDConfig:
    """The Fréchet distance on the features of any extractor."""

    name: Literal["fd"]
    extractor: str


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FIDConfig:
    """The Fréchet Inception distance: the same on the features of the TensorFlow Inception network."""

    name: Literal["fid"]
    extractor: Literal["inception"] = "inception"


class _Frechet(MomentMetric):
    figure: ClassVar[str]

    def __init__(self, config: FDConfig | FIDConfig, width: int) -> None:
        super().__init__(width)

    def compute(self) -> dict[str, Tensor]:
        """The distance; 0 is best."""
        real, fake = self.statistics()
        for statistics, whose in ((real, "real"), (fake, "generated")):
            require(statistics.n, 2, whose, "a covariance", "give more images, n= for generated ones")
        return {self.figure: frechet_distance(real, fake)}

    def notes(self) -> list[str]:
        """Says so where a covariance is estimated from fewer images than it has dimensions."""
        n = min(statistics.n for statistics in self.statistics())
        few = f"{n:,} images are fewer than the {self.width} features: the distance is biased upwards"
        return [few] if n <= self.width else []


@register("metric", "fd", FDConfig)
class FrechetDistance(_Frechet):
    """``fd``, always shown with its extractor and never called FID."""

    figure = "fd"
    figures: ClassVar[dict[str, str]] = {"fd": "lower"}


@register("metric", "fid", FIDConfig)
class FrechetInceptionDistance(_Frechet):
    """``fid``."""

    figure = "fid"
    native = "inception"
    figures: ClassVar[dict[str, str]] = {"fid": "lower"}

    def notes(self) -> list[str]:
        """Says so where fewer images were generated than published figures are of."""
        n = self.statistics()[1].n
        few = f"FID of {n:,} images does not compare with published figures, which are of {PUBLISHED:,}"
        return [*super().notes(), *([few] if n < PUBLISHED else [])]
