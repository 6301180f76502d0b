"""Features (n, d): what extractors make of items, the statistics that summarise many, and the cache that keeps both.

Mean and scatter accumulate in float64 and merge pairwise, so that batches and processes give the scores of one pass.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic.dataclasses import dataclass as typed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aigc_cli.config.schema import STRICT
from aigc_cli.data.cache import cache_dir
from aigc_cli.data.open import Splits
from aigc_cli.errors import DataError, warn
from aigc_cli.files import write_atomically
from aigc_cli.modalities.base import DataSpec, Items

_SUMMED = 4096  # rows at a time, because each is copied to float64
#: No entry of the cache is larger, and all together are not much.
MOST_BYTES_EACH, MOST_BYTES = 2**30, 4 * 2**30
_VERSION = 3  # of the layout of an entry, and of how it is computed


@typed(config=STRICT, frozen=True, kw_only=True)
class PlainConfig:
    """Of an extractor or a metric without choices: any would make its scores other ones."""

    name: str


@typed(config=STRICT, frozen=True, kw_only=True)
class FeatureConfig(PlainConfig):
    """Of a metric on the features of any extractor."""

    extractor: str


class Extractor(Protocol):
    """Maps raw images to features. Built as ``build(config, sources)`` with its own typed config."""

    #: Shown in brackets after the metric, as in ``fd[digits-cnn]``.
    name: str
    #: SHA-256 of the weights, hexadecimal.
    checksum: str
    #: Whether figures on it are the literature's own, so that the metric needs no bracket.
    canonical: bool
    #: The width d of each layer it gives; ``"features"`` always, ``"logits"`` where it classifies.
    widths: Mapping[str, int]
    #: What else a reader must know: preprocessing, held-out accuracy, ...; features kept on disk are told apart by
    #: its "preprocessing".
    facts: Mapping[str, Any]

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Layers of raw uint8 images (n, C, H, W), each (n, d) float32 on the CPU."""
        ...


@dataclass(frozen=True)
class Sources:
    """What an extractor may build itself from."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    #: A file of weights that the user named.
    weights: Path | None = None
    #: Of the dataset; None where items come from files alone.
    splits: Splits | None = None
    #: Real ones, such as those of files; what is learnt without labels may be learnt from them.
    items: Items | None = None
    #: How images are brought to the Inception network's size; None is as FID's reference does it.
    resize: str | None = None
    #: Which of torchvision's networks, for the extractor of that name.
    backbone: str | None = None
    #: Whether what learns may do so where it has not yet.
    learns: bool = True

    @property
    def spec(self) -> DataSpec | None:
        """What the items are, of the dataset or else of files; None where there are neither."""
        if self.splits is not None:
            return self.splits["train"].spec
        return None if self.items is None else self.items.spec


def check_finite(features: Tensor, what: str) -> Tensor:
    """The features themselves, if all are finite.

    Raises:
        DataError: some are NaN or infinite; no figure can be drawn from them.
    """
    bad = int((~torch.isfinite(features)).any(dim=1).sum())
    if bad:
        hint = "the weights that computed them are broken: choose another step= or weights="
        raise DataError(f"{bad} of {len(features)} rows of {what} are NaN or infinite", hint)
    return features


@dataclass(frozen=True)
class FeatureStatistics:
    """Count, mean (d,) and scatter (d, d) of features; the scatter is the sum of outer products about the mean.

    Merging is exact up to rounding: Chan, Golub & LeVeque, Updating Formulae and a Pairwise Algorithm for Computing
    Sample Variances, 1979, equation 2.1.
    """

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> FeatureStatistics:
        """The statistics of features (n, d), n > 0, in float64."""
        rows = features.to(torch.float64)
        mean = rows.mean(dim=0)
        centred = rows - mean
        return cls(len(rows), mean, centred.T @ centred)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """The statistics of both sets together."""
        if not self.n or not other.n:
            return other if not self.n else self
        n = self.n + other.n
        delta = other.mean - self.mean
        scatter = self.scatter + other.scatter + torch.outer(delta, delta) * (self.n * other.n / n)
        return FeatureStatistics(n, self.mean + delta * (other.n / n), scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (d, d), as in ``numpy.cov``; needs n of at least 2."""
        return self.scatter / (self.n - 1)

    def packed(self) -> Tensor:
        """All of it as one tensor (d + 2, d), so that a process can hand it to another."""
        count = torch.full_like(self.mean, self.n)
        return torch.cat([count[None], self.mean[None], self.scatter])

    @classmethod
    def unpacked(cls, packed: Tensor) -> FeatureStatistics:
        """The statistics that :meth:`packed` made a tensor of."""
        return cls(int(packed[0, 0]), packed[1], packed[2:])


def merge_packed(stacked: Tensor) -> Tensor:
    """Packed statistics of several processes (w, d + 2, d) merged into one (d + 2, d)."""
    merged = FeatureStatistics.unpacked(stacked[0])
    for packed in stacked[1:]:
        merged = merged.merge(FeatureStatistics.unpacked(packed))
    return merged.packed()


def summed(rows: Tensor) -> FeatureStatistics:
    """The statistics of rows (n, d), a part at a time."""
    whole = FeatureStatistics.of(rows[:_SUMMED])
    for start in range(_SUMMED, len(rows), _SUMMED):
        whole = whole.merge(FeatureStatistics.of(rows[start : start + _SUMMED]))
    return whole


# the cache


def entry(kind: str, key: str, extractor: Extractor, layer: str, dtype: str, device: str) -> Path:
    """Where the `kind` ("features" or "statistics") of a layer of the items named `key` is, or would be, kept.

    Its name is the sum of all that it depends on, so that nothing stale is ever read.
    """
    facts = [extractor.checksum, str(extractor.facts.get("preprocessing", "")), layer, dtype, device]
    digest = hashlib.sha256("\0".join([str(_VERSION), kind, key, *facts]).encode()).hexdigest()
    return cache_dir() / "features" / f"{kind}-{digest[:40]}.safetensors"


def store(path: Path, kept: Tensor | FeatureStatistics) -> None:
    """Keeps features or statistics; a full disk costs time at the next evaluation, nothing else."""
    tensor = (kept.packed() if isinstance(kept, FeatureStatistics) else kept).contiguous()
    if tensor.nbytes > MOST_BYTES_EACH:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _make_room(path.parent, tensor.nbytes)
        # One note, because several are written in no fixed order.
        write_atomically(path, save({"kept": tensor}, {"sha256": _sum(tensor)}))


def load(path: Path, n: int) -> Tensor | FeatureStatistics | None:
    """What is kept at `path` of `n` items; None where that is nothing, or broken."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            wanted = (file.metadata() or {})["sha256"]
            kept: Tensor = file.get_tensor("kept")
        if _sum(kept) != wanted:
            raise ValueError("its content does not match its sum")
        packed = path.name.startswith("statistics-")
        if kept.ndim != 2 or (packed and kept.shape[0] != kept.shape[1] + 2):
            raise ValueError(f"it has the shape {tuple(kept.shape)}")
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        warn(f"{path} is broken ({reason}); computing it again")
        return None
    with suppress(OSError):
        os.utime(path)  # what was used last is removed last
    if packed:
        statistics = FeatureStatistics.unpacked(kept)
        return statistics if statistics.n == n else None
    return kept if len(kept) == n else None


def _sum(tensor: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
    digest.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _make_room(folder: Path, wanted: int) -> None:
    """Removes what was used longest ago until `wanted` bytes fit."""
    entries = [(path.stat(), path) for path in folder.glob("*.safetensors")]
    total = sum(stat.st_size for stat, _ in entries) + wanted
    for stat, path in sorted(entries, key=lambda known: known[0].st_mtime):
        if total <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
