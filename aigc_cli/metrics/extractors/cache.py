"""The cache of what extractors made of reference images: features, or the statistics that summarise them.

An entry is named by the sum of all that it depends on, so that nothing stale is ever read; it is written whole or not
at all, and one that is broken all the same is computed again. The oldest go once the cache has grown large.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from aigc_cli.data.cache import cache_dir
from aigc_cli.errors import warn
from aigc_cli.files import write_atomically
from aigc_cli.metrics.extractors.base import Extractor, FeatureStatistics

#: No entry is larger, and all together are not much.
MOST_BYTES_EACH, MOST_BYTES = 2**30, 4 * 2**30
_VERSION = 3  # of the layout of an entry, and of how it is computed
_STALE_S = 3600  # what an interrupted write left behind is removed after so long


def entry(kind: str, key: str, extractor: Extractor, layer: str, dtype: str, device: str) -> Path:
    """Where the `kind` ("features" or "statistics") of a layer of the images named `key` is, or would be, kept."""
    facts = [extractor.checksum, str(extractor.facts.get("preprocessing", "")), layer, dtype, device]
    digest = hashlib.sha256("\0".join([str(_VERSION), kind, key, *facts]).encode()).hexdigest()
    return cache_dir() / "features" / f"{kind}-{digest[:40]}.safetensors"


def load_features(path: Path, n: int) -> Tensor | None:
    """Features (n, d) kept at `path`; None where there are none, or they are broken."""
    kept = _load(path)
    return kept if kept is not None and kept.ndim == 2 and len(kept) == n else None


def load_statistics(path: Path, n: int) -> FeatureStatistics | None:
    """The statistics of `n` features kept at `path`; None where there are none, or they are broken."""
    kept = _load(path)
    if kept is None or kept.ndim != 2 or kept.shape[0] != kept.shape[1] + 2:
        return None
    statistics = FeatureStatistics.unpacked(kept)
    return statistics if statistics.n == n else None


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


def _load(path: Path) -> Tensor | None:
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            wanted = (file.metadata() or {})["sha256"]
            kept: Tensor = file.get_tensor("kept")
        if _sum(kept) != wanted:
            raise ValueError("its content does not match its sum")
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        warn(f"{path} is broken ({reason}); computing it again")
        return None
    with suppress(OSError):
        os.utime(path)  # what was used last is removed last
    return kept


def _sum(tensor: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([str(tensor.dtype), list(tensor.shape)]).encode())
    digest.update(tensor.view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


def _make_room(folder: Path, wanted: int) -> None:
    """Removes what was used longest ago until `wanted` bytes fit, and what interrupted writes left behind."""
    for part in folder.glob(".*.part"):
        if time.time() - part.stat().st_mtime > _STALE_S:
            part.unlink(missing_ok=True)
    entries = sorted(
        ((path.stat(), path) for path in folder.glob("*.safetensors")), key=lambda known: known[0].st_mtime
    )
    total = sum(stat.st_size for stat, _ in entries) + wanted
    for stat, path in entries:
        if total <= MOST_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
