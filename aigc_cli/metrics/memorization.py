"""``memorization``: whether samples are copies of training items."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import Figures, Metric, Stream, Takes, joined, require
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.metrics.neighbours import nearest
from aigc_cli.registry import register

_SPACES = {"features": "", "pixels": "_pixels"}


@dataclass(config=STRICT, frozen=True, kw_only=True)
class MemorizationConfig(FeatureConfig):
    """How near is too near, and how much memory finding neighbours may take."""

    quantile: Annotated[float, Field(gt=0, lt=1)]
    pairs: Annotated[int, Field(ge=0)]
    memory_mb: Annotated[int, Field(ge=1)]


def above(lower: Tensor, upper: Tensor) -> float:
    """The chance that a draw from `lower` (n,) is below one from `upper` (m,); ties count half (Mann-Whitney)."""
    ordered = upper.sort().values
    below = torch.searchsorted(ordered, lower, right=False)
    tied = torch.searchsorted(ordered, lower, right=True) - below
    return float((len(upper) - below - tied / 2).mean() / len(upper))


@register("metric", "memorization", MemorizationConfig)
class Memorization(Metric):
    """``memorization``, in feature space and in that of the items themselves, made small by :meth:`Modality.glance`.

    - ``closer``: the chance that a sample is nearer to its nearest training item than a held-out item is to its own
      (the statistic of Meehan, Chaudhuri and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative
      Models, 2020, over the whole space). One half is what fresh data gives, 1 what copies give.
    - ``copies``: the share of samples nearer to a training item than all but the nearest `quantile` of held-out
      items, which is what fresh data gives, or equal to one; it sees a few copies among many samples.
    - ``authenticity``: the share of samples farther from their nearest training item than that is from its own nearest
      other (Alaa et al., How Faithful is your Synthetic Data?, 2022, section 3.3); features only.
    """

    takes: ClassVar[Takes] = dict.fromkeys(("real", "held_out", "fake"), ("features", "glance"))
    figures: ClassVar[Figures] = {
        "closer": "", "closer_pixels": "", "copies": "lower", "copies_pixels": "lower", "authenticity": "higher"
    }  # fmt: skip

    def __init__(self, config: MemorizationConfig, width: int) -> None:
        super().__init__(config, width)
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        for stream in self.takes:
            for space in _SPACES:
                self.add_state(f"{stream}_{space}", default=[], dist_reduce_fx="cat")

    def update(self, stream: Stream, features: Tensor, glance: Tensor) -> None:
        """Keeps features (n, d) as float32, and a glance at each item (n, ...) as it is."""
        getattr(self, f"{stream}_features").append(features.detach().to(torch.float32))
        getattr(self, f"{stream}_pixels").append(glance)

    def halve_held_out(self) -> int:
        """Every second held-out item takes the place of a sample, judged by the others; how many do."""
        rows = {space: torch.cat(getattr(self, f"held_out_{space}")) for space in _SPACES}
        for space, kept in rows.items():
            setattr(self, f"fake_{space}", [kept[::2]])
            setattr(self, f"held_out_{space}", [kept[1::2]])
        return len(rows["features"][::2])

    def _rows(self, side: str, space: str) -> Tensor:
        return joined(getattr(self, f"{side}_{space}"), self.width).flatten(1)

    def compute(self) -> dict[str, Tensor]:
        """The figures, all in [0, 1]."""
        for side, whose in (("real", "real"), ("held_out", "held-out"), ("fake", "generated")):
            require(len(self._rows(side, "features")), 2, whose, "memorization", "give more items")
        values: dict[str, float] = {}
        for space, suffix in _SPACES.items():
            real = self._rows("real", space)
            distance, index = nearest(self._rows("fake", space), real, self.config.memory_mb)
            held_out, _ = nearest(self._rows("held_out", space), real, self.config.memory_mb)
            self._found[space] = distance, index
            values[f"closer{suffix}"] = above(distance, held_out)
            near = held_out.quantile(self.config.quantile)
            # Where enough held-out images are in the training set themselves, nothing is nearer than that.
            values[f"copies{suffix}"] = float(((distance < near) | (distance == 0)).double().mean())
        values["authenticity"] = self._authenticity()
        return {name: torch.tensor(values[name], dtype=torch.float64) for name in self.figures}

    def _authenticity(self) -> float:
        distance, index = self._found["features"]
        real = self._rows("real", "features")
        wanted, place = torch.unique(index, return_inverse=True)
        between, _ = nearest(real[wanted], real, self.config.memory_mb, own=wanted)
        return float((distance > between[place]).double().mean())

    def facts(self) -> dict[str, Any]:
        """What its baseline is."""
        return {"floor": "every second held-out item against the others"}

    def gallery(self) -> Tensor | None:
        """The samples nearest to a training item: (k, 3, ...), each with its nearest by features and by
        pixels. To be called after :meth:`compute`."""
        real, fake = (self._glances(side) for side in ("real", "fake"))
        if not self._found or not self.config.pairs:
            return None
        closest = self._found["features"][0].argsort(stable=True)[: self.config.pairs]
        return torch.stack(
            [fake[closest], *(real[self._found[space][1][closest]] for space in ("features", "pixels"))], dim=1
        )

    def _glances(self, side: str) -> Tensor:
        kept: Any = getattr(self, f"{side}_pixels")
        return kept if isinstance(kept, Tensor) else torch.cat(kept)
