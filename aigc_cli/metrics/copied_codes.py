"""Whether a model of codes writes what it has learnt by heart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, require
from aigc_cli.metrics.extractors.base import PlainConfig
from aigc_cli.registry import register


@register("metric", "copied_codes", PlainConfig)
class CopiedCodes(Metric):
    """``copied_codes``: the share of samples whose codes are all those of one training item. Held-out items beside it
    say how often that comes about by itself."""

    takes: ClassVar[Takes] = {"items": ("written",)}
    usual_for: ClassVar[Mapping[str, int]] = {"audio from text": 2}
    needs = frozenset({"sample"})
    figures: ClassVar[Figures] = {"copied_codes": "lower"}
    copied: Tensor
    count: Tensor

    def __init__(self, config: PlainConfig, width: int = 0) -> None:
        super().__init__(config, width)
        for state in ("copied", "count"):
            self.add_state(state, default=torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, known: Tensor) -> None:
        """Adds which of some samples a training item is equal to, bool (n,)."""
        self.copied += int(known.sum())
        self.count += len(known)

    def compute(self) -> dict[str, Tensor]:
        """The share, a float64 scalar."""
        require(int(self.count), 1, "generated", "copied_codes", "give more with n=")
        return {"copied_codes": self.copied.double() / self.count}

    def facts(self) -> dict[str, Any]:
        """What it is a share of."""
        return {"signature": "samples whose codes are all equal to those of a training item, in any of its views"}
