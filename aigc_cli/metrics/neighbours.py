"""What nearest neighbours tell: ``prdc``, how much of either set lies among the other's (precision, recall, density,
coverage), and ``memorization``, whether samples are copies of training items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.metrics.base import FEW, FeatureMetric, Figures, Metric, Stream, Takes, joined, require
from aigc_cli.metrics.extractors.base import FeatureConfig
from aigc_cli.registry import register

_ROWS = 1024


def nearest(x: Tensor, y: Tensor, memory_mb: int, *, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each row of x (n, d) the Euclidean distance to the nearest row of y (m, d), float64 (n,), and its index (n,).

    Rows may be of any type; they are compared in float32 about y's mean, and the distance to the one found is then
    taken in float64, so that a copy is at 0.

    Args:
        x: Rows that look for a neighbour.
        y: Rows among which they look.
        memory_mb: For a block of distances.
        own: (n,) the index in y of each row of x itself, which is passed over.
    """
    few = y if len(y) * y.shape[1] < 2**24 else y[:: max(1, len(y) // 4096)]
    centre = few.double().mean(dim=0)

    def centred(rows: Tensor) -> Tensor:
        return (rows.double() - centre).float()

    columns = max(1, memory_mb * 2**20 // (4 * _ROWS))
    least = torch.full((len(x),), float("inf"), device=x.device)
    found = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for start in range(0, len(y), columns):
        part = centred(y[start : start + columns])
        lengths = part.square().sum(dim=1)
        for first in range(0, len(x), _ROWS):
            rows = slice(first, min(first + _ROWS, len(x)))
            # Without the row's own length, which changes nothing about which is nearest to it.
            block = torch.addmm(lengths, centred(x[rows]), part.T, alpha=-2)
            if own is not None:
                place = own[rows] - start
                inside = (place >= 0) & (place < block.shape[1])
                block[inside, place[inside]] = float("inf")
            values, index = block.min(dim=1)
            closer = values < least[rows]
            least[rows] = torch.where(closer, values, least[rows])
            found[rows] = torch.where(closer, index + start, found[rows])
    pairs = zip(torch.split(x, _ROWS), torch.split(found, _ROWS), strict=True)
    return torch.cat([(part.double() - y[index].double()).norm(dim=1) for part, index in pairs]), found


@dataclass(config=STRICT, frozen=True, kw_only=True)
class PRDCConfig(FeatureConfig):
    """Which neighbours count, and how much memory finding them may take."""

    k: Annotated[int, Field(ge=1)]
    memory_mb: Annotated[int, Field(ge=1)]


def distances(x: Tensor, y: Tensor, memory_mb: int) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances from rows of x (n, d) to all of y (m, d), a block of rows at a time."""
    rows = max(1, memory_mb * 2**20 // (8 * max(1, len(y)) * 2))
    lengths = y.square().sum(dim=1)
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        squares = torch.addmm(lengths, part, y.T, alpha=-2).add_(part.square().sum(dim=1, keepdim=True))
        yield slice(start, start + len(part)), squares.clamp_min_(0).sqrt_()


def radii(features: Tensor, k: int, memory_mb: int) -> Tensor:
    """The distance of each row (n, d) to its k-th nearest other row, (n,)."""
    found = torch.empty(len(features), dtype=features.dtype, device=features.device)
    for rows, block in distances(features, features, memory_mb):
        own = torch.arange(rows.start, rows.stop, device=features.device)
        block[torch.arange(len(own)), own] = 0  # exactly, so that an item is its own nearest, which k does not count
        found[rows] = block.topk(k + 1, dim=1, largest=False).values[:, -1]
    return found


@register("metric", "prdc", PRDCConfig)
class PRDC(FeatureMetric):
    """``prdc``.

    Precision and recall: Kynkäänniemi et al., Improved Precision and Recall Metric for Assessing Generative Models,
    2019. Density and coverage: Naeem et al., Reliable Fidelity and Diversity Metrics for Generative Models, 2020.
    Precision and density do not depend, on average, on the number of generated items; recall and coverage grow with
    it, so that they compare only at the same number.
    """

    usual_for: ClassVar[Mapping[str, int]] = {"*": 1}
    figures: ClassVar[Figures] = dict.fromkeys(("precision", "recall", "density", "coverage"), "higher")

    def compute(self) -> dict[str, Tensor]:
        """The four figures, in [0, 1] except density, which may exceed 1; 1 is what the real data would give."""
        k, memory = self.config.k, self.config.memory_mb
        real, fake = self.gathered(k + 1, f"prdc with k={k}", "give more items, or a smaller metric.prdc.k")
        centre = real.double().mean(dim=0)  # distances from inner products lose digits far from the origin
        real, fake = real - centre, fake - centre
        real_radii, fake_radii = radii(real, k, memory), radii(fake, k, memory)
        neighbours, recalled, covered = torch.zeros(len(fake), dtype=torch.int64, device=fake.device), 0, 0
        for rows, block in distances(real, fake, memory):
            within = block < real_radii[rows, None]
            neighbours += within.sum(dim=0)
            covered += int(within.any(dim=1).sum())
            recalled += int((block < fake_radii).any(dim=1).sum())
        return {
            "precision": (neighbours > 0).double().mean(),
            "recall": torch.tensor(recalled / len(real), dtype=torch.float64),
            "density": neighbours.double().mean() / k,
            "coverage": torch.tensor(covered / len(real), dtype=torch.float64),
        }


#: Samples of which pixels deviate by less than this share of what those of real items do may be blurry.
_VARIED = 0.8
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
        "closer": "near",
        "closer_pixels": "near",
        "copies": "lower",
        "copies_pixels": "lower",
        "authenticity": "higher",
    }

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
        distance, index = self._found["features"]
        real = self._rows("real", "features")
        wanted, place = torch.unique(index, return_inverse=True)
        between, _ = nearest(real[wanted], real, self.config.memory_mb, own=wanted)
        values["authenticity"] = float((distance > between[place]).double().mean())
        return {name: torch.tensor(values[name], dtype=torch.float64) for name in self.figures}

    def facts(self) -> dict[str, Any]:
        """What its baseline is."""
        return {"floor": "every second held-out item against the others"}

    def notes(self) -> list[str]:
        """Says which way copies lie, and where near in pixels need not mean copied: a blur is near all."""
        others = f"{1 - self.config.quantile:.0%} of held-out ones are"
        means = "closer is one half of new items and 1 of copies"
        means = f"{means}; copies is the share nearer to a training item than {others}"
        real, held_out, fake = (self._rows(side, "pixels") for side in ("real", "held_out", "fake"))
        some = [rows[:: max(1, len(rows) // 4096)].float() for rows in (fake, real)]
        spread, usual = (float(rows.std(dim=0).mean()) for rows in some)
        halves = f"in their own column {(len(held_out) + 1) // 2} against the others"
        why = [f"{len(held_out)} held-out items are few ({halves})"] if len(held_out) < FEW else []
        why += ["samples vary less than real items"] if len(fake) >= FEW and spread < _VARIED * usual else []
        if not why:
            return [means]
        what = f"copies_pixels and closer_pixels cannot tell copies from blur: {' and '.join(why)}"
        gallery = self.gallery()
        if gallery is None or gallery.ndim < 5:  # which is drawn of pictures alone
            return [means, what]
        return [means, f"{what}; look at the .png beside the record, a sample in each row with what it is nearest to"]

    def gallery(self) -> Tensor | None:
        """The samples nearest to a training item: (k, 3, ...), each with its nearest by features and by
        pixels. To be called after :meth:`compute`."""
        real, fake = (joined(getattr(self, f"{side}_pixels"), self.width) for side in ("real", "fake"))
        if not self._found or not self.config.pairs:
            return None
        closest = self._found["features"][0].argsort(stable=True)[: self.config.pairs]
        return torch.stack([fake[closest], *(real[self._found[space][1][closest]] for space in _SPACES)], dim=1)
