"""Precision, recall, density and coverage: how much of either set lies among the other's nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures, SampleMetric, require
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PRDCConfig(FeatureConfig):
    """Which neighbours count, and how much memory finding them may take."""

    k: Annotated[int, Field(ge=1)]
    memory_mb: Annotated[int, Field(ge=1)]


def distances(x: Tensor, y: Tensor, memory_mb: int) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances from rows of x (n, d) to all of y (m, d), a block of rows at a time."""
    rows = max(1, memory_mb * 2**20 // (8 * max(1, len(y)) * 2))
    lengths = y.square().sum(dim=1)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        squares = torch.addmm(lengths, part, y.T, alpha=-2).add_(part.square().sum(dim=1, keepdim=True))
        yield slice(start, start + len(part)), squares.clamp_min_(0).sqrt_()


def radii(features: Tensor, k: int, memory_mb: int) -> Tensor:
    """The distance of each row (n, d) to its k-th nearest other row, (n,)."""
    found = torch.empty(len(features), dtype=features.dtype, device=features.device)
    for rows, block in distances(features, features, memory_mb):
        own = torch.arange(rows.start, rows.stop, device=features.device)
        block[torch.arange(len(own)), own] = 0  # exactly, so that an item is its own nearest, which k does not count
        found[rows] = block.topk(k + 1, dim=1, largest=False).values[:, -1]
    return found


@register("metric", "prdc", PRDCConfig)
class PRDC(SampleMetric):
    """``prdc``.

    Precision and recall: Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models,
    2019. Density and coverage: Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020.
    Precision and density do not depend, on average, on the number of generated items; recall and coverage grow with
    it, so that they compare only at the same number.
    """

    usual_for: ClassVar[Mapping[str, int]] = {"*": 1}
    figures: ClassVar[Figures] = dict.fromkeys(("precision", "recall", "density", "coverage"), "higher")

    def compute(self) -> dict[str, Tensor]:
        """The four figures, in [0, 1] except density, which may exceed 1; 1 is what the real data would give."""
        real, fake = self.gathered()
        k, memory = self.config.k, self.config.memory_mb
        for features, whose in ((real, "real"), (fake, "generated")):
            require(len(features), k + 1, whose, f"prdc with k={k}", "give more items, or a smaller metric.prdc.k")
        centre = real.double().mean(dim=0)  # distances from inner products lose digits far from the origin
        real, fake = real - centre, fake - centre
        real_radii, fake_radii = radii(real, k, memory), radii(fake, k, memory)
        neighbours, recalled, covered = torch.zeros(len(fake), dtype=torch.int64, device=fake.device), 0, 0
        for rows, block in distances(real, fake, memory):
            within = block < real_radii[rows, None]
            neighbours += within.sum(dim=0)
            covered += int(within.any(dim=1).sum())
            recalled += int((block < fake_radii).any(dim=1).sum())
        return {
            "precision": (neighbours > 0).double().mean(),
            "recall": torch.tensor(recalled / len(real), dtype=torch.float64),
            "density": neighbours.double().mean() / k,
            "coverage": torch.tensor(covered / len(real), dtype=torch.float64),
        }
