"""``vendi``: how many clearly different items there are, as an effective number."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, require
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.registry import register


@register("metric", "vendi", FeatureConfig)
class Vendi(Metric):
    """``vendi``: Friedman and Dieng, The Vendi Score: A Diversity Evaluation Metric for Machine Learning, 2023.

    The exponential of the Shannon entropy of the eigenvalues of K/n, K the cosine similarities of all pairs (definition
    3.1). Those are the eigenvalues of the features' own second moment (section 3.3), so that memory is O(d^2). Looks at
    no real item: noise is diverse too, so that it means something beside a measure of quality only.
    """

    takes: ClassVar[Takes] = {"fake": ("features",)}
    figures: ClassVar[Figures] = {"vendi": "higher"}
    moment: Tensor
    count: Tensor

    def __init__(self, config: FeatureConfig, width: int) -> None:
        super().__init__(config, width)
        self.add_state("moment", default=torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, features: Tensor) -> None:
        """Adds the second moment of generated features (n, d), each brought to length 1."""
        rows = torch.nn.functional.normalize(features.to(self.moment), dim=1)
        self.moment = self.moment + rows.T @ rows
        self.count = self.count + len(rows)

    def compute(self) -> dict[str, Tensor]:
        """Between 1, where all are alike, and the number of items."""
        n = int(self.count)
        require(n, 2, "generated", "vendi", "give more items with n=")
        shares = torch.linalg.eigvalsh(self.moment / n).clamp_min(0)
        shares = shares / shares.sum().clamp_min(torch.finfo(shares.dtype).tiny)
        return {"vendi": torch.special.entr(shares).sum().exp()}
