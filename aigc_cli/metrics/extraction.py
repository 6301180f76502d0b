"""One pass over images: every layer of every extractor that some metric asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError, ResourceError
from aigc_cli.metrics.ahead import ahead
from aigc_cli.metrics.extractors import cache as feature_cache
from aigc_cli.metrics.extractors.base import Extractor, FeatureStatistics, Sources, check_finite
from aigc_cli.metrics.images import Images
from aigc_cli.progress import progress
from aigc_cli.registry import find

PIXELS, LABELS = "pixels", "labels"
_PIXELS_SIDE = 32  # what pixel space is averaged to, so that all of a training set fits in memory
_BATCH = 128
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Key(NamedTuple):
    """A layer of an extractor; the extractor of :data:`PIXELS` and of :data:`LABELS` is ""."""

    extractor: str
    layer: str


#: A layer's rows, (n, d) float32 on the CPU; pixels are (n, C, h, w) uint8, labels (n,) int64.
Layers = dict[Key, Tensor]


def build_extractor(name: str, sources: Sources) -> Extractor:
    """The registered extractor `name`; a run that validates keeps its random state."""
    component = find("extractor", name)
    config = check("extractor", component.config, {"name": name})
    with torch.random.fork_rng(devices=[]):
        extractor: Extractor = component.build(config, sources)
    return extractor


class Extraction:
    """Extractors at work.

    Args:
        extractors: By the names that metrics call them.
        device: Where they compute.
        batch_size: Images at a time; None suits each extractor, and is halved where memory runs out.
        dtype: "float32", or "bfloat16" for automatic mixed precision.
    """

    def __init__(
        self, extractors: Mapping[str, Extractor], device: torch.device, batch_size: int | None, dtype: str
    ) -> None:
        self.extractors, self.device, self.dtype = extractors, device, dtype
        self._given = batch_size
        self._sizes: dict[str, int] = {}

    def layers(self, images: Images, what: str, wanted: Iterable[Key]) -> Iterator[Layers]:
        """The wanted layers, a batch at a time; images are drawn or read beside the work on those before them.

        Raises:
            ConfigError: labels of images that have none.
            DataError: features that are not finite, or images that cannot be had.
        """
        keys = sorted(set(wanted))
        labels = labels_of(images, what) if Key("", LABELS) in keys else None
        seen = 0
        with _whole_float32(), progress(len(images), f"{what} images", "images") as bar:
            for batch in ahead(lambda: images.batches(self._given or _BATCH)):
                found: Layers = {}
                for name in dict.fromkeys(key.extractor for key in keys if key.extractor):
                    found |= self._features(name, batch, [key for key in keys if key.extractor == name], what)
                if Key("", PIXELS) in keys:
                    found[Key("", PIXELS)] = to_pixels(batch)
                if labels is not None:
                    found[Key("", LABELS)] = labels[seen : seen + len(batch)]
                seen += len(batch)
                yield found
                bar.advance(len(batch))

    def _features(self, name: str, batch: Tensor, keys: Iterable[Key], what: str) -> Layers:
        extractor = self.extractors[name]
        usual: int = getattr(extractor, "batch_size", _BATCH)
        size = self._given or self._sizes.get(name) or usual
        while True:
            try:
                parts = [self._extract(extractor, part) for part in torch.split(batch, size)]
                break
            except torch.OutOfMemoryError:
                if self._given is not None or size == 1:
                    hint = "choose a smaller batch_size=, or device=cpu"
                    raise ResourceError(f"{size} images do not fit in the memory of {self.device}", hint) from None
                size = self._sizes[name] = size // 2
        whole = f"the features of {what} images"
        return {key: check_finite(torch.cat([part[key.layer] for part in parts]), whole) for key in keys}

    def _extract(self, extractor: Extractor, batch: Tensor) -> dict[str, Tensor]:
        lower = self.dtype != "float32"
        with torch.autocast(self.device.type, DTYPES[self.dtype]) if lower else nullcontext():
            found = extractor(batch)
        return {layer: rows.float() for layer, rows in found.items()} if lower else found

    def reference(self, images: Images, what: str, wanted: Mapping[Key, bool]) -> dict[Key, Tensor | FeatureStatistics]:
        """Each layer of images that are used again and again, from the cache where they were computed before.

        Args:
            images: All of one side.
            what: They are called.
            wanted: For each layer whether its rows are needed, or their statistics serve.

        Raises:
            DataError: there are no images, or they cannot be trusted.
        """
        known = {key: kept for key in wanted if (kept := self._kept(images, key, wanted[key])) is not None}
        missing = {key: rows for key, rows in wanted.items() if key not in known}
        gathered: dict[Key, list[Tensor]] = {key: [] for key, rows in missing.items() if rows}
        summed: dict[Key, FeatureStatistics] = {}
        count = 0
        for layers in self.layers(images, what, missing) if missing else ():
            for key, found in layers.items():
                if key in gathered:
                    gathered[key].append(found)
                else:
                    fresh = FeatureStatistics.of(found)
                    summed[key] = summed[key].merge(fresh) if key in summed else fresh
            count += len(next(iter(layers.values())))
        if missing and not count:
            raise DataError(f"there are no {what} images", "give at least two")
        computed: dict[Key, Tensor | FeatureStatistics] = {key: torch.cat(rows) for key, rows in gathered.items()}
        computed |= summed
        self._keep(images, computed)
        return {**known, **computed}

    def _entry(self, kind: str, images: Images, key: Key) -> Path:
        assert images.key is not None
        extractor = self.extractors[key.extractor]
        return feature_cache.entry(kind, images.key, extractor, key.layer, self.dtype, self.device.type)

    def _kept(self, images: Images, key: Key, rows: bool) -> Tensor | FeatureStatistics | None:
        if images.key is None or not key.extractor:
            return None
        if not rows:
            statistics = feature_cache.load_statistics(self._entry("statistics", images, key), len(images))
            if statistics is not None:
                return statistics
        return feature_cache.load_features(self._entry("features", images, key), len(images))

    def _keep(self, images: Images, computed: Mapping[Key, Tensor | FeatureStatistics]) -> None:
        for key, kept in computed.items():
            if images.key is not None and key.extractor:
                kind = "statistics" if isinstance(kept, FeatureStatistics) else "features"
                feature_cache.store(self._entry(kind, images, key), kept)


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Within the context a GPU multiplies float32 in full: training allows TF32, and features outlive it.

    The flags are those of the whole process, so this goes around a pass, whose images are drawn in another thread.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def labels_of(images: Images, what: str) -> Tensor:
    """The classes that images should be of, int64 (n,).

    Raises:
        ConfigError: they have none.
    """
    labels = images.labels()
    if labels is None:
        raise ConfigError(
            f"{what} images are of no class that could be right or wrong",
            "evaluate a run that was trained with model.conditional=true on data with labels, or mode=reconstruct",
        )
    return labels


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images (n, C, H, W), averaged to at most 32x32, on the CPU."""
    height, width = (min(side, _PIXELS_SIDE) for side in images.shape[-2:])
    if (height, width) == tuple(images.shape[-2:]):
        return images.cpu()
    averaged: Callable[..., Tensor] = torch.nn.functional.adaptive_avg_pool2d
    return averaged(images.float(), (height, width)).round_().to(torch.uint8).cpu()
