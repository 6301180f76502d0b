"""Metrics of features that look at no real item. What a classifier says: ``class_accuracy``, whether items are of the
class that was asked for; the Inception score ``is`` and the classifier score ``cs``, whether it is sure of each, and of
different things over all. And ``vendi``, how many clearly different items there are, as an effective number."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import FeatureMetric, Figures, Metric, Stream, Takes, require
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
        return {"class_accuracy": self.right.sum().double() / self.count.sum(), "worst_class_accuracy": shares.min()}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ISConfig(FeatureConfig):
    """How the Inception score is sliced."""

    splits: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


@register("metric", "cs", ISConfig)
class ClassifierScore(FeatureMetric):
    """``cs``: the formula of ``is`` on the data's own classifier, always shown with it."""

    takes: ClassVar[Takes] = {"fake": ("logits",)}
    figures: ClassVar[Figures] = {"cs": "higher", "cs_std": ""}

    def compute(self) -> dict[str, Tensor]:
        """Mean and spread over the slices of a seeded permutation; 1 is worst, the number of classes best."""
        _, logits = self.gathered()
        splits = self.config.splits
        score, spread = self.figures
        require(len(logits), splits, "generated", f"{score} with {splits} splits", "give more items with n=")
        # The permutation and the slices are torch-fidelity's, so that scores agree.
        order = np.random.RandomState(self.config.seed).permutation(len(logits))
        log_p = logits[torch.from_numpy(order).to(logits.device)].double().log_softmax(dim=1)
        edges = [i * len(logits) // splits for i in range(splits + 1)]
        scores = []
        for start, stop in pairwise(edges):
            part = log_p[start:stop]
            marginal = part.exp().mean(dim=0, keepdim=True)
            scores.append((part.exp() * (part - marginal.log())).sum(dim=1).mean().exp())
        values = torch.stack(scores)
        return {score: values.mean(), spread: values.std(correction=0)}


@register("metric", "is", ISConfig)
class InceptionScore(ClassifierScore):
    """``is``: Salimans et al., Improved Techniques for Training GANs, 2016, section 4. Looks at no real image."""

    native = "inception"
    figures: ClassVar[Figures] = {"is": "higher", "is_std": ""}


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
