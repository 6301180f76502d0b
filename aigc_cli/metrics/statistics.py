"""Statistics of features in a ``.npz`` file as pytorch-fid writes them: ``mu`` and ``sigma``.

Ours hold two entries more, plain numbers and text: ``n``, and ``stamp``, a JSON object that says of what they are.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aigc_cli.data.base import Split
from aigc_cli.data.open import Splits
from aigc_cli.errors import DataError
from aigc_cli.files import checksum, write_atomically
from aigc_cli.metrics.extractors.base import Extractor, FeatureStatistics
from aigc_cli.modalities.arrays import array_names, read_arrays
from aigc_cli.modalities.base import DataSpec, Items

#: Stands for the number of images where a file does not say it; only a covariance's divisor depends on it, and that is
#: taken out again.
_UNKNOWN_N = 2**31


class Statistics(Items):
    """The statistics of one side.

    Raises:
        DataError: the file cannot be read as such, or what it holds is no mean and covariance.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = read_arrays(path, ("mu", "sigma", "n", "stamp"), "statistics", "give an .npz with mu and sigma")
        reason = _wrong(entries)
        if reason is not None:
            raise DataError(f"{path} holds no mean and covariance: {reason}", "write it again, or name the images")
        mean, covariance = (entries[name].astype(np.float64) for name in ("mu", "sigma"))
        self.n = int(entries["n"]) if "n" in entries else None
        try:
            self.stamp: Any = json.loads(str(entries.get("stamp", "{}")))
        except ValueError:
            self.stamp = None
        if not isinstance(self.stamp, dict):
            raise DataError(f"{path} holds a stamp that cannot be read", "write it again with `aigc eval stats`")
        used = self.n if self.n is not None else _UNKNOWN_N
        scatter = torch.from_numpy((covariance + covariance.T) / 2) * (used - 1)
        self._statistics = FeatureStatistics(used, torch.from_numpy(mean), scatter)
        self.facts = {"file": str(path), "sha256": checksum(path), "statistics_of": self.stamp or None}
        self.called = f"{f'{self.n:,} ' if self.n else ''}items summed up in {path}"

    def __len__(self) -> int:
        return self.n or 0

    def moments(self, extractor: Extractor, dtype: str) -> FeatureStatistics:
        """The statistics, if they may be of this extractor's features.

        Raises:
            DataError: they are of another extractor, preprocessing or precision, or of another width.
        """
        width = extractor.widths["features"]
        if len(self._statistics.mean) != width:
            found = len(self._statistics.mean)
            raise DataError(f"{self.path} is of {found} features, and {extractor.name} has {width}", _HINT)
        own = {"extractor": extractor.checksum, "preprocessing": extractor.facts.get("preprocessing"), "dtype": dtype}
        for what, value in own.items():
            known = self.stamp.get("extractor_sha256" if what == "extractor" else what, value)
            if known != value:
                raise DataError(f"{self.path} is of another {what}: {known}, not {value}", _HINT)
        return self._statistics

    def are_of(self, splits: Splits | None, split: Split) -> bool:
        """Whether the stamp says that they are of that very split."""
        images = self.stamp.get("images")
        if splits is None or not isinstance(images, dict) or images.get("split") != split:
            return False
        return bool(images.get("fingerprint") == splits[split].spec.fingerprint)


def alike(sides: list[Items | None], like: DataSpec | None) -> list[Items | None]:
    """Several sides, each brought to the form of the others, and of `like`, where that loses nothing."""
    specs = [side.spec for side in sides if side is not None and not isinstance(side, Statistics)]
    for spec in [*specs, *([] if like is None else [like])]:
        sides = [side if side is None or isinstance(side, Statistics) else side.like(spec) for side in sides]
    return sides


_HINT = "make statistics that fit with `aigc eval stats data=NAME out=FILE.npz`, with the same metric= and weights="


def is_statistics(path: Path) -> bool:
    """Whether a file is a ``.npz`` with ``mu`` and ``sigma``."""
    return path.suffix == ".npz" and path.is_file() and {"mu", "sigma"} <= set(array_names(path))


def write_statistics(path: Path, statistics: FeatureStatistics, stamp: Mapping[str, Any]) -> None:
    """Writes ``mu``, ``sigma``, ``n`` and ``stamp``, atomically; every reader of pytorch-fid's format reads it."""
    buffer, mean, covariance = io.BytesIO(), statistics.mean.numpy(), statistics.covariance.numpy()
    text = np.array(json.dumps(dict(stamp), ensure_ascii=False, sort_keys=True))
    np.savez(buffer, mu=mean, sigma=covariance, n=np.array(statistics.n), stamp=text)
    write_atomically(path, buffer.getvalue())


def _wrong(entries: Mapping[str, np.ndarray]) -> str | None:
    """Why arrays are no mean and covariance, with or without a number of images; None where they are."""
    if not {"mu", "sigma"} <= set(entries):
        return "it has no mu and sigma"
    mean, covariance, n = entries["mu"], entries["sigma"], entries.get("n", np.array(_UNKNOWN_N))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        return f"mu is {mean.shape} and sigma {covariance.shape}, not (d,) and (d, d)"
    if not {mean.dtype.kind, covariance.dtype.kind} <= set("fiu"):
        return f"mu is of {mean.dtype} and sigma of {covariance.dtype}, not of numbers"
    if n.ndim or n.dtype.kind not in "iu" or n < 0:
        return "n is not a number of images"
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        return "some of it is NaN or infinite"
    matrix = covariance.astype(np.float64)
    largest = float(np.abs(matrix).max())
    if not np.allclose(matrix, matrix.T, rtol=1e-4, atol=1e-6 * largest):
        return "sigma is not symmetric"
    slack = max(1e-4 * largest, np.finfo(np.float64).tiny)  # more than what rounding leaves below zero
    try:
        np.linalg.cholesky((matrix + matrix.T) / 2 + slack * np.eye(len(matrix)))
    except np.linalg.LinAlgError:
        return "sigma has negative variances"
    return None
