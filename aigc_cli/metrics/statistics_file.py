"""Statistics of features in a ``.npz`` file as pytorch-fid writes them: ``mu`` and ``sigma``.

Ours hold two entries more, plain numbers and text: ``n``, and ``stamp``, a JSON object that says of what they are.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aigc_cli.errors import DataError
from aigc_cli.files import checksum, write_atomically
from aigc_cli.metrics.features import Extractor, FeatureStatistics

#: Stands for the number of images where a file does not say it; only a covariance's divisor depends on it, and that is
#: taken out again.
_UNKNOWN_N = 2**31


class StatisticsFile:
    """The statistics of one side.

    Raises:
        DataError: the file cannot be read as such, or what it holds is no mean and covariance.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = _read(path)
        mean, covariance = (np.asarray(entries[name], dtype=np.float64) for name in ("mu", "sigma"))
        _check(path, mean, covariance)
        self.n = int(entries["n"]) if "n" in entries else None
        self.stamp: dict[str, Any] = _stamp(path, entries)
        used = self.n if self.n is not None else _UNKNOWN_N
        scatter = torch.from_numpy((covariance + covariance.T) / 2) * (used - 1)
        self._statistics = FeatureStatistics(used, torch.from_numpy(mean), scatter)
        self.facts: dict[str, Any] = {"file": str(path), "sha256": checksum(path), "statistics_of": self.stamp or None}

    def __len__(self) -> int:
        return self.n or 0

    def statistics_for(self, extractor: Extractor, dtype: str) -> FeatureStatistics:
        """The statistics, if they may be of this extractor's features.

        Raises:
            DataError: they are of another extractor, preprocessing or precision, or of another width.
        """
        width = extractor.widths["features"]
        if len(self._statistics.mean) != width:
            found = len(self._statistics.mean)
            raise DataError(f"{self.path} is of {found} features, and {extractor.name} has {width}", _MEND)
        own = {"extractor": extractor.checksum, "preprocessing": extractor.facts.get("preprocessing"), "dtype": dtype}
        for what, value in own.items():
            known = self.stamp.get("extractor_sha256" if what == "extractor" else what, value)
            if known != value:
                raise DataError(f"{self.path} is of another {what}: {known}, not {value}", _MEND)
        return self._statistics


_MEND = "make statistics that fit with `aigc eval stats data=NAME out=FILE.npz`, with the same metric= and weights="


def is_statistics(path: Path) -> bool:
    """Whether a file is a ``.npz`` with ``mu`` and ``sigma``."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return {"mu.npy", "sigma.npy"} <= set(file.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def write_statistics(path: Path, statistics: FeatureStatistics, stamp: Mapping[str, Any]) -> None:
    """Writes ``mu``, ``sigma``, ``n`` and ``stamp``, atomically; every reader of pytorch-fid's format reads it."""
    buffer = io.BytesIO()
    text = np.array(json.dumps(dict(stamp), ensure_ascii=False, sort_keys=True))
    np.savez(
        buffer, mu=statistics.mean.numpy(), sigma=statistics.covariance.numpy(), n=np.array(statistics.n), stamp=text
    )
    write_atomically(path, buffer.getvalue())


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in ("mu", "sigma", "n", "stamp") if name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise DataError(f"{path} cannot be read as statistics: {error}", "give an .npz with mu and sigma") from None


def _check(path: Path, mean: np.ndarray, covariance: np.ndarray) -> None:
    reason = None
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)) or not len(mean):
        reason = f"mu is {mean.shape} and sigma {covariance.shape}, not (d,) and (d, d)"
    elif not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        reason = "some of it is NaN or infinite"
    elif not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * float(np.abs(covariance).max())):
        reason = "sigma is not symmetric"
    elif (np.diagonal(covariance) < 0).any():
        reason = "sigma has negative variances"
    if reason is not None:
        raise DataError(f"{path} holds no mean and covariance: {reason}", "write it again, or name the images")


def _stamp(path: Path, entries: Mapping[str, np.ndarray]) -> dict[str, Any]:
    if "stamp" not in entries:
        return {}
    try:
        loaded = json.loads(str(entries["stamp"]))
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a stamp that cannot be read", "write it again with `aigc eval stats`")
    return loaded
