"""The Inception score ``is`` and the classifier score ``cs``: sure of each item, and of different things over all."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures, SampleMetric, Takes, require
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.registry import register


@dataclass(config=STRICT, frozen=True, kw_only=True)
class ISConfig(FeatureConfig):
    """How the Inception score is sliced."""

    splits: Annotated[int, Field(ge=1)]
    seed: Annotated[int, Field(ge=0, lt=2**32)]


@register("metric", "cs", ISConfig)
class ClassifierScore(SampleMetric):
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
