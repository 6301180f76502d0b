"""The kernel distance, ``kid`` and ``kd``: squared maximum mean discrepancy under a cubic kernel, unbiased in n."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures, SampleMetric, require
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.registry import register


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
class KD(SampleMetric):
    """``kd``, on the features of any extractor, always shown with it and never called KID."""

    figures: ClassVar[Figures] = {"kd": "lower", "kd_std": ""}

    def compute(self) -> dict[str, Tensor]:
        """Mean and spread of the distance over the subsets; 0 is best, and chance puts it a little to either side.

        Without a spread where no two subsets differ: what rounding makes of it then says nothing.
        """
        score, std = self.figures
        real, fake = self.gathered()
        for features, whose in ((real, "real"), (fake, "generated")):
            require(len(features), 2, whose, score, "give more items, n= for generated ones")
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
