"""``memorization``: whether samples are copies of training images."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import FeatureMetric, joined, require
from aigc_cli.metrics.neighbours import nearest
from aigc_cli.registry import register

_SIDES = ("real", "held", "fake")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class MemorizationConfig:
    """How near is too near, and how much memory finding neighbours may take."""

    name: Literal["memorization"]
    extractor: str
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
class Memorization(FeatureMetric):
    """``memorization``, in feature space and, averaged to at most 32x32, in pixel space.

    - ``closer``: the chance that a sample is nearer to its nearest training image than a held-out image is to its own
      (the statistic of Meehan, Chaudhuri and Dasgupta, A Non-Parametric Test to Detect Data-Copying in Generative
      Models, 2020, over the whole space). One half is what fresh data gives, 1 what copies give.
    - ``copies``: the share of samples nearer to a training image than all but the nearest `quantile` of held-out
      images, which is what fresh data gives, or equal to one; it sees a few copies among many samples.
    - ``authenticity``: the share of samples farther from their nearest training image than that is from its own nearest
      other (Alaa et al., How Faithful is your Synthetic Data?, 2022, section 3.3); features only.
    """

    layers = ("features", "pixels")
    needs_held_out = True
    figures: ClassVar[dict[str, str]] = {
        "closer": "", "closer_pixels": "", "copies": "lower", "copies_pixels": "lower", "authenticity": "higher"
    }  # fmt: skip

    def __init__(self, config: MemorizationConfig, width: int) -> None:
        super().__init__(width)
        self.config = config
        self._found: dict[str, tuple[Tensor, Tensor]] = {}
        for side in _SIDES:
            for space in self.layers:
                self.add_state(f"{side}_{space}", default=[], dist_reduce_fx="cat")

    def update(self, features: Tensor, pixels: Tensor, real: bool) -> None:  # type: ignore[override]
        """Keeps features (n, d) as float32 and pixels (n, C, h, w) as uint8."""
        self._keep("real" if real else "fake", features, pixels)

    def hold_out(self, features: Tensor, pixels: Tensor) -> None:  # type: ignore[override]
        """Keeps the same of held-out images."""
        self._keep("held", features, pixels)

    def halve_held_out(self) -> int:
        """Every second held-out image takes the place of a sample, judged by the others; how many do."""
        rows = {space: torch.cat(getattr(self, f"held_{space}")) for space in self.layers}
        for space, kept in rows.items():
            setattr(self, f"fake_{space}", [kept[::2]])
            setattr(self, f"held_{space}", [kept[1::2]])
        return len(rows["features"][::2])

    def _keep(self, side: str, features: Tensor, pixels: Tensor) -> None:
        if len(features):
            getattr(self, f"{side}_features").append(features.detach().to(torch.float32))
            getattr(self, f"{side}_pixels").append(pixels)

    def _rows(self, side: str, space: str) -> Tensor:
        return joined(getattr(self, f"{side}_{space}"), self.width).flatten(1)

    def compute(self) -> dict[str, Tensor]:
        """The figures, all in [0, 1]."""
        for side, whose in zip(_SIDES, ("real", "held-out", "generated"), strict=True):
            require(len(self._rows(side, "features")), 2, whose, "memorization", "give more images")
        values: dict[str, float] = {}
        for space, suffix in (("features", ""), ("pixels", "_pixels")):
            real = self._rows("real", space)
            distance, index = nearest(self._rows("fake", space), real, self.config.memory_mb)
            held_out, _ = nearest(self._rows("held", space), real, self.config.memory_mb)
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

    def gallery(self) -> Tensor | None:
        """The samples nearest to a training image: (k, 3, C, h, w) uint8, each with its nearest by features and by
        pixels. To be called after :meth:`compute`."""
        real, fake = (self._images(side) for side in ("real", "fake"))
        if not self._found or not self.config.pairs:
            return None
        closest = self._found["features"][0].argsort(stable=True)[: self.config.pairs]
        return torch.stack(
            [fake[closest], *(real[self._found[space][1][closest]] for space in ("features", "pixels"))], dim=1
        )

    def _images(self, side: str) -> Tensor:
        kept: Any = getattr(self, f"{side}_pixels")
        return kept if isinstance(kept, Tensor) else torch.cat(kept)
