"""``class_accuracy``: whether items are of the class that was asked for, as the data's own classifier sees it."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from aigc_cli.metrics.base import Figures, Metric, Stream, Takes
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.registry import register


@register("metric", "class_accuracy", FeatureConfig)
class ClassAccuracy(Metric):
    """The share of items whose largest logit is that of their class, over all and in the class where it is least.

    A sample's class is the one that the model was told to draw, a reconstruction's that of its original. It does not
    see a lack of variety: one good item a class is always right.
    """

    takes: ClassVar[Takes] = {"fake": ("logits", "labels")}
    figures: ClassVar[Figures] = {"class_accuracy": "higher", "worst_class_accuracy": "higher"}
    right: Tensor  # (classes,)
    count: Tensor  # (classes,)

    def __init__(self, config: FeatureConfig, width: int) -> None:
        super().__init__(config, width)
        for state in ("right", "count"):
            self.add_state(state, default=torch.zeros(width, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, stream: Stream, logits: Tensor, labels: Tensor) -> None:
        """Counts logits (n, classes) against labels (n,), int64."""
        own = logits.argmax(dim=1) == labels
        self.right = self.right + torch.bincount(labels[own], minlength=self.width)
        self.count = self.count + torch.bincount(labels, minlength=self.width)

    def compute(self) -> dict[str, Tensor]:
        """Shares, of all items and of the worst class's; a class without items is none."""
        asked = self.count > 0
        shares = self.right[asked].double() / self.count[asked]
        return {
            "class_accuracy": self.right.sum().double() / self.count.sum(),
            "worst_class_accuracy": shares.min(),
        }
