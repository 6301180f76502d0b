"""One pass over the images serves all metrics that were asked for, and tells what held-out real images would score."""

from __future__ import annotations

import copy
import hashlib
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from aigc_cli.config import check
from aigc_cli.errors import DataError
from aigc_cli.files import write_atomically
from aigc_cli.metrics.features import Extractor, Sources, check_finite
from aigc_cli.metrics.images import Images, same_shape
from aigc_cli.progress import progress
from aigc_cli.registry import Component, find

if TYPE_CHECKING:  # torchmetrics takes seconds to import
    from aigc_cli.metrics.base import FeatureMetric

Layers = dict[str, Tensor]
_KEPT_BYTES = 2**30  # features of more than that are not kept on the disk


@dataclass(frozen=True)
class Score:
    """The figures of one set of images, and how many those were."""

    figures: dict[str, float]
    n: int


@dataclass(frozen=True)
class Result:
    """What a metric says, with what it said it on."""

    metric: str
    extractor: Extractor
    #: Whether the metric's plain name stands for it, or it takes the extractor's name in brackets.
    plain: bool
    #: For each figure which way is better: "lower", "higher" or "" for a spread.
    better: Mapping[str, str]
    config: Mapping[str, Any]
    n_real: int
    generated: Score
    #: Held-out real images in the place of generated ones; None where there are none.
    floor: Score | None
    #: As many generated images as the floor has, where it has fewer: several figures depend on the number.
    at_floor_n: Score | None
    notes: tuple[str, ...] = ()

    def label(self, figure: str) -> str:
        """The figure's name as it must be shown, such as ``fd[digits-cnn]``."""
        return figure if self.plain else f"{figure}[{self.extractor.name}]"

    def labelled(self) -> dict[str, float]:
        """The figures of the generated images by their full names."""
        return {self.label(figure): value for figure, value in self.generated.figures.items()}


class Evaluator:
    """Metrics against one reference, whose features are computed once and serve any number of evaluations.

    Args:
        metrics: The configuration of each metric by its name, as under ``metric`` in ``configs/eval.yaml``.
        sources: What extractors may build themselves from.
        real: The reference.
        held_out: Real images that neither model nor reference has seen, for the floor.
        batch_size: Images at a time; figures do not depend on it beyond rounding.

    Raises:
        ConfigError: an unknown metric or key, or an extractor that cannot serve this data.
        DataError: weights or images that are missing or cannot be trusted.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Any]],
        sources: Sources,
        real: Images,
        held_out: Images | None = None,
        *,
        batch_size: int = 250,
    ) -> None:
        components = {name: find("metric", name) for name in metrics}
        self._configs = {name: check(f"metric.{name}", components[name].config, metrics[name]) for name in metrics}
        self._values = {name: dict(values) for name, values in metrics.items()}
        self._extractors = {
            wanted: build_extractor(wanted, sources)
            for wanted in dict.fromkeys(config.extractor for config in self._configs.values())
        }
        self.batch_size = batch_size
        self.real, self.held_out = real, held_out
        self._device = sources.device
        self._primed = {name: self._built(component) for name, component in components.items()}
        needed = {name: metric for name, metric in self._primed.items() if metric.needs_real}
        self._take(needed, self._kept_features(real, "reference", needed), True)
        self._floors = self._measure_floors()

    def _built(self, component: Component) -> FeatureMetric:
        extractor = self._extractor_of(component.name)
        metric: FeatureMetric = component.build(
            self._configs[component.name],
            extractor.widths[component.build.layer],  # type: ignore[attr-defined]
        )
        # Every process that evaluates here sees all images; joining theirs would count them twice, or wait for one
        # that does not evaluate.
        metric.distributed_available_fn = _alone
        return metric

    def _extractor_of(self, name: str) -> Extractor:
        return self._extractors[self._configs[name].extractor]

    def evaluate(self, fake: Images) -> list[Result]:
        """The figures of generated images, a result for each metric.

        Raises:
            DataError: too few images, images of another size, or figures that are not finite.
        """
        same_shape(fake, self.real)
        floor_n = len(self.held_out) if self.held_out is not None else 0
        matched = copy.deepcopy(self._primed) if 0 < floor_n < len(fake) else {}
        metrics = copy.deepcopy(self._primed)
        seen = 0
        for layers in self._features(fake, "generated", metrics):
            self._update(metrics, layers, False)
            self._update(matched, layers, False, max(0, floor_n - seen))
            seen += min(map(len, layers.values()))
        results = []
        for name, metric in metrics.items():
            score = Score(_figures(name, metric), seen)
            at_floor_n = None
            if matched and self._floors.get(name) is not None:
                at_floor_n = Score(_figures(name, matched[name]), floor_n)
            results.append(self._result(name, metric, score, at_floor_n))
        return results

    def _result(self, name: str, metric: FeatureMetric, score: Score, at_floor_n: Score | None) -> Result:
        extractor, wanted = self._extractor_of(name), self._configs[name].extractor
        return Result(
            metric=name,
            extractor=extractor,
            plain=extractor.canonical and wanted == metric.native,
            better=metric.figures,
            config=self._values[name],
            n_real=len(self.real) if metric.needs_real else 0,
            generated=score,
            floor=self._floors.get(name),
            at_floor_n=at_floor_n,
            notes=tuple(metric.notes()),
        )

    def _measure_floors(self) -> dict[str, Score | None]:
        if self.held_out is None or not len(self.held_out):
            return {}
        same_shape(self.held_out, self.real)
        metrics = copy.deepcopy(self._primed)
        self._take(metrics, self._kept_features(self.held_out, "held-out", metrics), False)
        floors: dict[str, Score | None] = {}
        for name, metric in metrics.items():
            try:
                floors[name] = Score(_figures(name, metric), len(self.held_out))
            except DataError as error:  # too few held-out images must not cost the figure itself
                print(f"aigc: warning: no floor for {name}: {error.message}", file=sys.stderr)
                floors[name] = None
        return floors

    def _take(self, metrics: Mapping[str, FeatureMetric], features: Layers, real: bool) -> None:
        """Hands features in, at most so many rows at a time that copies of them stay small."""
        for start in range(0, len(next(iter(features.values()), ())), 4096):
            self._update(metrics, {key: rows[start : start + 4096] for key, rows in features.items()}, real)

    def _update(
        self, metrics: Mapping[str, FeatureMetric], layers: Layers, real: bool, at_most: int | None = None
    ) -> None:
        for name, metric in metrics.items():
            rows = layers[_key(self._configs[name].extractor, metric.layer)]
            metric.update(rows[:at_most], real)

    def _features(self, images: Images, what: str, metrics: Mapping[str, FeatureMetric]) -> Iterator[Layers]:
        """The layers that the metrics need, a batch at a time, (n, d) float32 on the CPU."""
        wanted = {(self._configs[name].extractor, metric.layer) for name, metric in metrics.items()}
        with progress(len(images), f"{what} images", "images") as bar:
            for batch in images.batches(self.batch_size):
                layers: Layers = {}
                for name in {extractor for extractor, _ in wanted}:
                    found = self._extractors[name](batch)
                    for layer in (layer for extractor, layer in wanted if extractor == name):
                        layers[_key(name, layer)] = check_finite(found[layer], f"the features of {what} images")
                yield layers
                bar.advance(len(batch))

    def _kept_features(self, images: Images, what: str, metrics: Mapping[str, FeatureMetric]) -> Layers:
        """All features of real images, from the cache folder where they were computed before."""
        if not metrics:
            return {}
        sums = sorted(f"{name}={extractor.checksum}" for name, extractor in self._extractors.items())
        layers = sorted({_key(self._configs[name].extractor, metric.layer) for name, metric in metrics.items()})
        parts = ["float32", self._device.type, str(images.key), *sums, *layers]
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        kept = _load(digest, layers, len(images)) if images.key is not None else None
        if kept is None:
            batches = list(self._features(images, what, metrics))
            if not batches:
                raise DataError(f"there are no {what} images", "give at least two")
            kept = {key: torch.cat([batch[key] for batch in batches]) for key in layers}
            if images.key is not None:
                _save(digest, kept)
        return kept


def build_extractor(name: str, sources: Sources) -> Extractor:
    """The registered extractor `name`; a run that validates keeps its random state."""
    component = find("extractor", name)
    config = check("extractor", component.config, {"name": name})
    with torch.random.fork_rng(devices=[]):
        extractor: Extractor = component.build(config, sources)
    return extractor


def _alone() -> bool:
    return False


def _key(extractor: str, layer: str) -> str:
    return f"{extractor}.{layer}"


def _figures(name: str, metric: FeatureMetric) -> dict[str, float]:
    """The metric's figures.

    Raises:
        DataError: one is not finite.
    """
    figures = {key: float(value) for key, value in metric.compute().items()}
    if not all(math.isfinite(value) for value in figures.values()):
        raise DataError(f"{name} is not finite: {figures}", "look at the images: their features are degenerate")
    return figures


def _load(digest: str, layers: list[str], n: int) -> Layers | None:
    from aigc_cli.data.cache import cache_dir

    path = cache_dir() / "features" / f"{digest}.safetensors"
    try:
        kept = load_file(path)
    except (OSError, SafetensorError):
        return None
    whole = set(kept) == set(layers) and all(len(rows) == n for rows in kept.values())
    return kept if whole else None


def _save(digest: str, features: Layers) -> None:
    from aigc_cli.data.cache import cache_dir

    if sum(rows.nbytes for rows in features.values()) > _KEPT_BYTES:
        return
    path = cache_dir() / "features" / f"{digest}.safetensors"
    with suppress(OSError):  # a full disk costs time at the next evaluation, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, save({key: rows.contiguous() for key, rows in features.items()}))
