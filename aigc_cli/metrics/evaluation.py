"""One pass over the images serves all metrics that were asked for, and tells what held-out real images would score."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.metrics.extraction import LABELS, PIXELS, Extraction, Key, Layers, build_extractor
from aigc_cli.metrics.extractors.base import Extractor, FeatureStatistics, Sources
from aigc_cli.metrics.images import Images, same_shape
from aigc_cli.metrics.result import Result, Score, finite
from aigc_cli.metrics.statistics_file import StatisticsFile
from aigc_cli.registry import Component, find

if TYPE_CHECKING:  # torchmetrics takes seconds to import
    from aigc_cli.metrics.base import FeatureMetric

_ROWS = 4096  # handed to a metric at a time, so that copies of them stay small
Side = Images | StatisticsFile


class Evaluator:
    """Metrics against one reference, whose features are computed once and serve any number of evaluations.

    Args:
        metrics: The configuration of each metric by its name, as under ``metric`` in ``configs/eval.yaml``.
        sources: What extractors may build themselves from.
        real: The reference; None will do where no metric looks at it.
        held_out: Real images that neither model nor reference has seen, for the floor.
        all_held_out: The same and more of them, for metrics whose figures depend on them; None takes `held_out`.
        batch_size: Images at a time; figures do not depend on it beyond rounding. None suits memory and extractor.
        dtype: What extractors compute in, "float32" or "bfloat16".

    Raises:
        ConfigError: an unknown metric or key, an extractor that cannot serve this data, no reference where a metric
            needs one, or statistics where it needs the images themselves.
        DataError: weights or images that are missing or cannot be trusted.
    """

    def __init__(
        self,
        metrics: Mapping[str, Mapping[str, Any]],
        sources: Sources,
        real: Side | None,
        held_out: Images | None = None,
        all_held_out: Images | None = None,
        *,
        batch_size: int | None = None,
        dtype: str = "float32",
    ) -> None:
        components = {name: find("metric", name) for name in metrics}
        self._configs = {name: check(f"metric.{name}", components[name].config, metrics[name]) for name in metrics}
        self._values = {name: dict(values) for name, values in metrics.items()}
        self.real, self.held_out, self.dtype = real, held_out, dtype
        self.all_held_out = held_out if all_held_out is None else all_held_out
        for name, component in components.items():
            self._refuse(name, component)
        self._extractors = {
            wanted: build_extractor(wanted, sources)
            for wanted in dict.fromkeys(config.extractor for config in self._configs.values())
        }
        self._extraction = Extraction(self._extractors, sources.device, batch_size, dtype)
        self._primed = {name: self._built(component) for name, component in components.items()}
        self._prime()
        self._floors = self._measure_floors()

    def _refuse(self, name: str, component: Component) -> None:
        kind: type[FeatureMetric] = component.build  # type: ignore[assignment]
        if self.real is None and kind.needs_real:
            raise ConfigError(f"{name} needs images to compare with", "name some with real=, or a dataset with data=")
        if isinstance(self.real, StatisticsFile) and kind.needs_real and "real" not in kind.moments_of:
            raise ConfigError(
                f"{name} needs the reference images, and {self.real.path} holds their statistics only",
                "name the images with real=, or ask for fid, fd or fd_infinity",
            )
        if kind.needs_held_out and not (self.held_out is not None and len(self.held_out)):
            raise ConfigError(f"{name} needs held-out real images to compare with", "name some with held_out=")

    def _built(self, component: Component) -> FeatureMetric:
        extractor = self._extractor_of(component.name)
        layer = component.build.layers[0]  # type: ignore[attr-defined]
        if layer not in extractor.widths:
            raise ConfigError(
                f"{component.name} needs {layer}, which {extractor.name} has not", "choose another extractor"
            )
        metric: FeatureMetric = component.build(self._configs[component.name], extractor.widths[layer])
        # Every process that evaluates here sees all images; joining theirs would count them twice, or wait for one
        # that does not evaluate.
        metric.distributed_available_fn = _alone
        return metric

    @property
    def _n_real(self) -> int | None:
        return self.real.n if isinstance(self.real, StatisticsFile) else len(self.real or ())

    def _extractor_of(self, name: str) -> Extractor:
        return self._extractors[self._configs[name].extractor]

    def _keys(self, name: str) -> list[Key]:
        wanted = self._configs[name].extractor
        return [Key("" if layer in (PIXELS, LABELS) else wanted, layer) for layer in self._primed[name].layers]

    def _prime(self) -> None:
        if isinstance(self.real, StatisticsFile):
            for name, metric in self._primed.items():
                if metric.needs_real:
                    metric.take(self.real.statistics_for(self._extractor_of(name), self.dtype), True)
            return
        needed = {name: metric for name, metric in self._primed.items() if metric.needs_real}
        wanted: dict[Key, bool] = {}
        for name, metric in needed.items():
            for key in self._keys(name):
                wanted[key] = wanted.get(key, False) or "real" not in metric.moments_of
        kept = self._extraction.reference(self.real, "reference", wanted) if wanted and self.real is not None else {}
        self._hand_over(needed, kept, "real")
        holding = {name: metric for name, metric in self._primed.items() if metric.needs_held_out}
        if holding:
            assert self.all_held_out is not None
            self._check_shape(self.all_held_out, "held-out")
            wanted = {key: True for name in holding for key in self._keys(name)}
            self._hand_over(holding, self._extraction.reference(self.all_held_out, "held-out", wanted), "held")

    def _hand_over(
        self, metrics: Mapping[str, FeatureMetric], kept: Mapping[Key, Tensor | FeatureStatistics], side: str
    ) -> None:
        """Gives metrics one side: "real", "held" or "fake"."""
        for name, metric in metrics.items():
            found = [kept[key] for key in self._keys(name)]
            if side in metric.moments_of:
                whole = found[0]
                metric.take(whole if isinstance(whole, FeatureStatistics) else summed(whole), side == "real")
                continue
            rows = [layer for layer in found if isinstance(layer, Tensor)]
            for start in range(0, len(rows[0]), _ROWS):
                parts = [layer[start : start + _ROWS] for layer in rows]
                if side == "held":
                    metric.hold_out(*parts)
                else:
                    metric.update(*parts, real=side == "real")

    def evaluate(self, fake: Side) -> list[Result]:
        """The figures of generated images, a result for each metric.

        Raises:
            ConfigError: statistics in the place of images, and a metric that needs the images.
            DataError: too few images, images of another size, or figures that are not finite.
        """
        if isinstance(fake, StatisticsFile):
            return self._evaluate_statistics(fake)
        self._check_shape(fake, "generated")
        floor_n = len(self.held_out) if self.held_out is not None else 0
        matched = _fresh(self._primed) if 0 < floor_n < len(fake) else {}
        few = fake.few(floor_n) if matched else torch.zeros(0)
        metrics = _fresh(self._primed)
        seen = 0
        for layers in self._extraction.layers(fake, "generated", [key for name in metrics for key in self._keys(name)]):
            self._update(metrics, layers)
            count = len(next(iter(layers.values())))
            rows = few[(few >= seen) & (few < seen + count)] - seen
            if len(rows):
                self._update(matched, {key: layer[rows] for key, layer in layers.items()})
            seen += count
        results = []
        for name, metric in metrics.items():
            at_floor_n = None
            floor = self._floors.get(name)
            if matched and floor is not None and floor.n == floor_n:
                at_floor_n = Score(finite(name, matched[name].compute()), floor_n)
            results.append(self._result(name, metric, Score(finite(name, metric.compute()), seen), at_floor_n))
        return results

    def _evaluate_statistics(self, fake: StatisticsFile) -> list[Result]:
        results = []
        for name, metric in _fresh(self._primed).items():
            if "fake" not in metric.moments_of:
                what = f"{name} needs the generated images, and {fake.path} holds their statistics only"
                raise ConfigError(what, "name the images with fake=, or ask for fid or fd")
            metric.take(fake.statistics_for(self._extractor_of(name), self.dtype), False)
            results.append(self._result(name, metric, Score(finite(name, metric.compute()), fake.n), None))
        return results

    def announced(self, n: int) -> list[Result]:
        """The results that :meth:`evaluate` will give of `n` images, still without figures."""
        return [self._result(name, metric, Score({}, n), None, done=False) for name, metric in self._primed.items()]

    def _check_shape(self, images: Images, what: str) -> None:
        compared = any(metric.needs_real for metric in self._primed.values())
        if compared and isinstance(self.real, Images):
            same_shape(images, self.real, what)

    def _update(self, metrics: Mapping[str, FeatureMetric], layers: Layers) -> None:
        for name, metric in metrics.items():
            metric.update(*(layers[key] for key in self._keys(name)), real=False)

    def _result(
        self, name: str, metric: FeatureMetric, score: Score, at_floor_n: Score | None, *, done: bool = True
    ) -> Result:
        extractor, wanted = self._extractor_of(name), self._configs[name].extractor
        return Result(
            metric=name,
            extractor=extractor,
            plain=extractor.canonical and wanted == metric.native and self.dtype == "float32",
            better={figure: way for figure, way in metric.figures.items() if not done or figure in score.figures},
            config=self._values[name],
            n_real=self._n_real if metric.needs_real else 0,
            generated=score,
            floor=self._floors.get(name),
            at_floor_n=at_floor_n,
            notes=tuple(metric.notes()) if done else (),
            facts={"floor": "every second held-out image against the others"} if metric.needs_held_out else {},
            needs_real=metric.needs_real,
            needs_held_out=metric.needs_held_out,
            gallery=metric.gallery() if done else None,
        )

    def _measure_floors(self) -> dict[str, Score | None]:
        if self.held_out is None or not len(self.held_out):
            return {}
        self._check_shape(self.held_out, "held-out")
        metrics = _fresh(self._primed)
        judging = [name for name, metric in metrics.items() if LABELS in metric.layers]
        if judging and self.held_out.labels() is None:
            metrics = {name: metric for name, metric in metrics.items() if name not in judging}
        sizes = {name: metric.halve_held_out() for name, metric in metrics.items() if metric.needs_held_out}
        others = {name: metric for name, metric in metrics.items() if name not in sizes}
        wanted: dict[Key, bool] = {}
        for name, metric in others.items():
            for key in self._keys(name):
                wanted[key] = wanted.get(key, False) or "fake" not in metric.moments_of
        if wanted:
            self._hand_over(others, self._extraction.reference(self.held_out, "held-out", wanted), "fake")
        floors: dict[str, Score | None] = {}
        for name, metric in metrics.items():
            try:
                floors[name] = Score(finite(name, metric.compute()), sizes.get(name, len(self.held_out)))
            except DataError as error:  # too few held-out images must not cost the figure itself
                warn(f"no floor for {name}: {error.message}")
                floors[name] = None
        return floors


def _fresh(metrics: Mapping[str, FeatureMetric]) -> dict[str, FeatureMetric]:
    """Copies of metrics that share the features they hold already, which nothing changes in place."""
    held = [rows for metric in metrics.values() for state in metric.metric_state.values() if isinstance(state, list)
            for rows in state]  # fmt: skip
    memo = {id(rows): rows for rows in held if isinstance(rows, Tensor)}
    return copy.deepcopy(dict(metrics), memo)


def summed(rows: Tensor) -> FeatureStatistics:
    """The statistics of rows (n, d), a part at a time, because each is copied to float64."""
    whole = FeatureStatistics.of(rows[:_ROWS])
    for start in range(_ROWS, len(rows), _ROWS):
        whole = whole.merge(FeatureStatistics.of(rows[start : start + _ROWS]))
    return whole


def _alone() -> bool:
    return False
