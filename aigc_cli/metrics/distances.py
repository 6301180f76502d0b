"""Distances between the features of real and generated items: of Gaussians fitted to them, ``fd``, ``fid`` and
``fd_infinity`` (Fréchet), and under a cubic kernel, unbiased in n, ``kid`` and ``kd``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import FeatureMetric, Figures, Takes, require
from aigc_cli.metrics.extractors.base import FeatureConfig, FeatureStatistics, PlainConfig
from aigc_cli.randomness import permutation
from aigc_cli.registry import register

PUBLISHED = 50_000  # generated images behind the FID of papers since Heusel et al.


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


@register("metric", "fd", FeatureConfig)
class FD(FeatureMetric):
    """``fd``, always shown with its extractor and never called FID."""

    takes: ClassVar[Takes] = {"real": ("moments",), "fake": ("moments",)}
    figures: ClassVar[Figures] = {"fd": "lower"}
    usual_for: ClassVar[Mapping[str, int]] = {"*": 0}

    def compute(self) -> dict[str, Tensor]:
        """The distance; 0 is best."""
        real, fake = self.moments("real"), self.moments("fake")
        for statistics, whose in ((real, "real"), (fake, "generated")):
            require(statistics.n, 2, whose, "a covariance", "give more items, n= for generated ones")
        return dict.fromkeys(self.figures, frechet_distance(real, fake))

    def notes(self) -> list[str]:
        """Says so where a covariance is estimated from fewer items than it has dimensions."""
        n = min(self.moments("real").n, self.moments("fake").n)
        few = f"{n:,} items are fewer than the {self.width} features: the distance is biased upwards"
        return [few] if n <= self.width else []


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FIDConfig(PlainConfig):
    """The Fréchet Inception distance: the same on the features of the TensorFlow Inception network."""

    extractor: Literal["inception"] = "inception"


@register("metric", "fid", FIDConfig)
class FID(FD):
    """``fid``."""

    native = "inception"
    figures: ClassVar[Figures] = {"fid": "lower"}
    usual_for: ClassVar[Mapping[str, int]] = {}

    def notes(self) -> list[str]:
        """Says so where fewer images were generated than published scores are of."""
        n = self.moments("fake").n
        few = f"FID of {n:,} images does not compare with published scores, which are of {PUBLISHED:,}"
        return [*super().notes(), *([few] if n < PUBLISHED else [])]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class FDInfinityConfig(FeatureConfig):
    """Through which points the line goes."""

    points: Annotated[int, Field(ge=3)]
    smallest: Annotated[float, Field(gt=0, lt=1)]
    seed: Annotated[int, Field(ge=0)]


def intercept(sizes: np.ndarray, values: np.ndarray) -> float:
    """Where the least-squares line through ``values`` over ``1 / sizes`` meets 0."""
    return float(np.polynomial.Polynomial.fit(1 / sizes, values, 1)(0.0))


@register("metric", "fd_infinity", FDInfinityConfig)
class FDInfinity(FeatureMetric):
    """``fd_infinity``: Chong and Forsyth, Effectively Unbiased FID and Inception Score and where to find them, 2020.

    The distance of n samples exceeds that of infinitely many by about c/n, with a c that differs between models. A
    line through the distances of several n, each of a fresh random subset, meets 1/n = 0 at the latter (section 4).
    Only the number of generated items is extrapolated; the reference stays as it is.
    """

    takes: ClassVar[Takes] = {"real": ("moments",), "fake": ("features",)}
    figures: ClassVar[Figures] = {"fd_infinity": "lower"}

    def compute(self) -> dict[str, Tensor]:
        """The distance; 0 is best, and chance puts it a little to either side."""
        real, fake = self.moments("real"), self.rows("fake")
        require(real.n, 2, "real", "a covariance", "give more items")
        hint = "give more items, n= for generated ones"
        require(len(fake), 10 * self.config.points, "generated", f"a line through {self.config.points} sizes", hint)
        root = factor(real.covariance)
        sizes = self._sizes(len(fake))
        values = []
        for point, size in enumerate(sizes):
            order = permutation(len(fake), "fd_infinity", self.config.seed, point)[:size]
            subset = FeatureStatistics.of(fake[torch.from_numpy(order).to(fake.device)])
            covariance = subset.covariance
            # Eigenvalues lose digits that singular values keep, but cost a third; the line's own error is far larger.
            roots = torch.linalg.eigvalsh(root.T @ covariance @ root).clamp_min(0).sqrt()
            traces = real.covariance.trace() + covariance.trace() - 2 * roots.sum()
            values.append(float((real.mean - subset.mean).square().sum() + traces))
        return {"fd_infinity": torch.tensor(intercept(sizes, np.array(values)), dtype=torch.float64)}

    def _sizes(self, n: int) -> np.ndarray:
        least = max(2, round(self.config.smallest * n))
        return np.linspace(least, n, self.config.points).round().astype(int)

    def notes(self) -> list[str]:
        """Says so where the smallest subset has fewer items than features."""
        smallest = int(self._sizes(len(self.rows("fake")))[0])
        few = f"fd_infinity draws its line from {smallest:,} items on, fewer than the {self.width} features"
        why = "there the distance is not linear in 1/n, and n= should be larger"
        return [f"{few}: {why}"] if smallest < self.width else []


@dataclass(config=STRICT, frozen=True, kw_only=True)
class KIDConfig(FeatureConfig):
    """How the kernel distance is drawn."""

    subsets: Annotated[int, Field(ge=1)]
    subset_size: Annotated[int, Field(ge=2)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


def polynomial_mmd(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased squared MMD between float64 features (m, d) and (m, d), a scalar that may fall below 0.

    Gretton et al., A Kernel Two-Sample Test, 2012, equation 3, with the kernel ``(x.y / d + 1)^3`` of Bińkowski et
    al., Demystifying MMD GANs, 2018, section 4.
    """
    m, d = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / d + 1).pow(3)

    xx, yy = kernel(x, x), kernel(y, y)
    within = xx.sum() - xx.trace() + yy.sum() - yy.trace()
    return within / (m * (m - 1)) - 2 * kernel(x, y).mean()


@register("metric", "kd", KIDConfig)
class KD(FeatureMetric):
    """``kd``, on the features of any extractor, always shown with it and never called KID."""

    figures: ClassVar[Figures] = {"kd": "lower", "kd_std": ""}

    def compute(self) -> dict[str, Tensor]:
        """Mean and spread of the distance over the subsets; 0 is best, and chance puts it a little to either side.

        Without a spread where no two subsets differ: what rounding makes of it then says nothing.
        """
        score, std = self.figures
        real, fake = self.gathered(2, score, "give more items, n= for generated ones")
        size = self._size(real, fake)
        # NumPy's legacy generator, because the reference implementation draws its subsets from it.
        draws = np.random.RandomState(self.config.seed)

        def subset(features: Tensor) -> Tensor:
            chosen = torch.from_numpy(draws.choice(len(features), size, replace=False))
            return features[chosen.to(features.device)].double()

        values = torch.stack([polynomial_mmd(subset(fake), subset(real)) for _ in range(self.config.subsets)])
        spread = {} if self._all_alike(real, fake) else {std: values.std(correction=0)}
        return {score: values.mean(), **spread}

    def _size(self, real: Tensor, fake: Tensor) -> int:
        # The estimate is unbiased for any size, so that smaller sets may serve whole; only its spread changes.
        return int(min(self.config.subset_size, len(real), len(fake)))

    def _all_alike(self, real: Tensor, fake: Tensor) -> bool:
        return self.config.subsets == 1 or self._size(real, fake) == len(real) == len(fake)

    def notes(self) -> list[str]:
        """Says so where the subsets had to be smaller than asked, and where there is no spread over them."""
        real, fake = self.gathered()
        size = self._size(real, fake)
        notes = [f"subsets of {size}, because there are no more items"] if size < self.config.subset_size else []
        if self._all_alike(real, fake):
            std = list(self.figures)[1]
            notes.append(f"no {std}, because there is one subset: give more items, or a smaller subset_size")
        return notes


@register("metric", "kid", KIDConfig)
class KID(KD):
    """``kid``: mean and standard deviation over seeded subsets, drawn in torch-fidelity's order."""

    native = "inception"
    figures: ClassVar[Figures] = {"kid": "lower", "kid_std": ""}
