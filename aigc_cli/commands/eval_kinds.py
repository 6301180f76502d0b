"""What each metric looks at: features of images, reconstructions, a model's own scores, latents, fillings, or text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aigc_cli.registry import find

Configs = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Kinds:
    """The configurations of metrics by their names, apart by what they look at."""

    features: Configs = field(default_factory=dict)
    pairs: Configs = field(default_factory=dict)
    scores: Configs = field(default_factory=dict)
    latents: Configs = field(default_factory=dict)
    fills: Configs = field(default_factory=dict)
    text: Configs = field(default_factory=dict)

    @property
    def others(self) -> list[str]:
        """The metrics that are of images, or of a model of them."""
        return [*self.features, *self.of_model]

    @property
    def of_model(self) -> Configs:
        """The metrics that ask a model of images itself."""
        return {**self.pairs, **self.scores, **self.latents}


def by_kind(metrics: Mapping[str, Mapping[str, Any]]) -> Kinds:
    """The metrics apart by what they look at.

    Raises:
        ConfigError: there is no such metric.
    """
    from aigc_cli.metrics.infill import Infill
    from aigc_cli.metrics.latents import ActiveUnits
    from aigc_cli.metrics.likelihood import HeldOutLikelihood
    from aigc_cli.metrics.reconstruction import PairMetric
    from aigc_cli.metrics.text import TextMetric

    kinds = Kinds()
    for name, values in metrics.items():
        build: Any = find("metric", name).build
        if issubclass(build, TextMetric):
            kinds.text[name] = dict(values)
        elif issubclass(build, PairMetric):
            kinds.pairs[name] = dict(values)
        elif issubclass(build, HeldOutLikelihood):
            kinds.scores[name] = dict(values)
        elif issubclass(build, ActiveUnits):
            kinds.latents[name] = dict(values)
        elif issubclass(build, Infill):
            kinds.fills[name] = dict(values)
        else:
            kinds.features[name] = dict(values)
    return kinds
