"""``active_units``: how many latent dimensions of a variational autoencoder say something about an item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from aigc_cli.errors import DataError
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.models.variational import ACTIVE
from aigc_cli.registry import register


@register("metric", "active_units", PlainConfig)
class ActiveUnits(Metric):
    """``active_units``: the latent dimensions whose posterior mean has a variance above 0.01 over items.

    Burda, Grosse and Salakhutdinov, Importance Weighted Autoencoders, 2016, section 5.2. Sums are in float64.
    """

    takes: ClassVar[Takes] = {"items": ("codes",)}
    usual_for: ClassVar[Mapping[str, int]] = {"text": 6}
    needs = frozenset({"posterior"})
    figures: ClassVar[Figures] = {"active_units": ""}
    total: Tensor
    squares: Tensor
    count: Tensor

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        for state in ("total", "squares"):  # of each dimension, once it is known how many there are
            self.add_state(state, default=torch.zeros(1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, means: Tensor) -> None:
        """Adds the posterior means (n, d) of items."""
        means = means.double().cpu()
        self.total = self.total + means.sum(0)
        self.squares = self.squares + means.square().sum(0)
        self.count = self.count + len(means)

    def compute(self) -> dict[str, Tensor]:
        """The number, a float64 scalar.

        Raises:
            DataError: there are fewer than two items, or means that are not finite.
        """
        if self.count < 2:
            raise DataError("active_units needs at least two items", "give more with n=")
        variance = (self.squares - self.total.square() / self.count) / (self.count - 1)
        if not bool(variance.isfinite().all()):
            raise DataError("active_units: posterior means are not finite", "choose an earlier checkpoint with step=")
        return {"active_units": (variance > ACTIVE).sum().double()}

    def facts(self) -> dict[str, Any]:
        """Of how many dimensions, and what counts."""
        says = f"of {len(self.total)} latent dimensions, those whose posterior mean has a variance above {ACTIVE}"
        return {"signature": says}
