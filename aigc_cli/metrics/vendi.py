"""``vendi``: how many clearly different items there are, as an effective number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Better, Metric, Stream, View, require
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class VendiConfig:
    """The Vendi score on the features of any extractor."""

    name: Literal["vendi"]
    extractor: str


@register("metric", "vendi", VendiConfig)
class Vendi(Metric):
    """``vendi``: Friedman and Dieng, The Vendi Score: A Diversity Evaluation Metric for Machine Learning, 2023.

    The exponential of the Shannon entropy of the eigenvalues of K/n, K the cosine similarities of all pairs (definition
    3.1). Those are the eigenvalues of the features' own second moment (section 3.3), so that memory is O(d^2). Looks at
    no real item: noise is diverse too, so that it means something beside a measure of quality only.
    """

    takes: ClassVar[Mapping[Stream, tuple[View, ...]]] = {"fake": ("features",)}
    figures: ClassVar[Mapping[str, Better]] = {"vendi": "higher"}
    moment: Tensor
    count: Tensor

    def __init__(self, config: VendiConfig, width: int) -> None:
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
