"""The scores of items by several metrics at once: each stream is passed over once, whoever looks at it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from aigc_cli.config.schema import check
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.metrics.base import Metric, Stream, kind_of
from aigc_cli.metrics.extractors.base import Extractor, FeatureStatistics, Sources, summed
from aigc_cli.metrics.items import DatasetItems, same_shape
from aigc_cli.metrics.record import Record, Score, finite
from aigc_cli.metrics.statistics import Statistics
from aigc_cli.metrics.subject import Subject
from aigc_cli.metrics.views import Key, Rows, Views, rows_at
from aigc_cli.modalities.base import Items
from aigc_cli.registry import find

_ROWS = 4096  # handed to a metric at a time, so that copies of them stay small
Configs = Mapping[str, Mapping[str, Any]]


class Evaluation:
    """Metrics with all that their scores are held against, taken in once for any number of sets of items.

    Args:
        metrics: The configuration of each by its name, as under ``metric`` in ``configs/eval.yaml``.
        views: What they see of items; None suits where no extractor learns from data, on the CPU.
        reference: None will do where no metric looks at it.
        held_out: Real items that neither model nor reference has seen, for the baseline.
        judges: The same and more of them, for metrics whose scores depend on them; None takes `held_out`.

    Raises:
        ConfigError: an unknown metric or key, an extractor that cannot serve this data, no reference where a metric
            needs one, or statistics where it needs the items themselves.
        DataError: weights or items that are missing or cannot be trusted.
    """

    def __init__(
        self, metrics: Configs, views: Views | None = None, reference: Items | None = None,
        held_out: Items | None = None, judges: Items | None = None,
    ) -> None:  # fmt: skip
        self._views, self.reference, self.held_out = views or Views(Sources()), reference, held_out
        self.kinds = {name: kind_of(name) for name in metrics}
        self._values = {name: dict(values) for name, values in metrics.items()}
        for values in self._values.values():
            if values.get("extractor") == "auto":  # a record says which it was
                values["extractor"] = self._views.usual_extractor
        self._configs = {name: _checked(name, values) for name, values in self._values.items()}
        self.judges = held_out if judges is None else judges
        for name, kind in self.kinds.items():
            self._refuse(name, kind)
        # Features of the reference are taken in here, once: of every sample set it gets a copy that shares them.
        self._primed = {name: self._built(name) for name in metrics}
        self._prime()
        self._baselines = self._measure_baselines()

    def _refuse(self, name: str, kind: type[Metric]) -> None:
        if "real" in kind.takes and self.reference is None:
            raise ConfigError(f"{name} needs items to compare with", "name some with real=, or a dataset with data=")
        if isinstance(self.reference, Statistics) and kind.takes.get("real", ("moments",)) != ("moments",):
            what = f"{name} needs the reference items, and {self.reference.path} holds their statistics only"
            raise ConfigError(what, "name the items with real=, or ask for fid, fd or fd_infinity")
        if "held_out" in kind.takes and not self.held_out:
            raise ConfigError(f"{name} needs held-out real items to compare with", "name some with held_out=")

    def _built(self, name: str) -> Metric:
        extractor, first = self._extractor(name), next(iter(self.kinds[name].takes.values()))[0]
        width = 0
        if extractor is not None:
            layer = "features" if first == "moments" else first
            if layer not in extractor.widths:
                hint = "choose another extractor" if layer == "features" else "ask for fd, kd, prdc or vendi"
                raise ConfigError(f"{name} needs {layer}, and {extractor.name} has none", hint)
            width = extractor.widths[layer]
        metric: Metric = find("metric", name).build(self._configs[name], width)
        return metric

    def _extractor(self, name: str) -> Extractor | None:
        wanted = getattr(self._configs[name], "extractor", None)
        return None if wanted is None else self._views.extractor(wanted)

    def _keys(self, name: str, stream: Stream) -> list[Key]:
        """The views of a stream that a metric takes; moments are summed up here, of features."""
        extractor = getattr(self._configs[name], "extractor", "")
        views = ["features" if view == "moments" else view for view in self.kinds[name].takes.get(stream, ())]
        return [Key(extractor if view in ("features", "logits", "frames") else "", view) for view in views]

    def _prime(self) -> None:
        taking = {name: metric for name, metric in self._primed.items() if "real" in metric.takes}
        if isinstance(self.reference, Statistics):
            for name, metric in taking.items():
                metric.update("real", self._moments(self.reference, name))
        elif self.reference is not None:
            self._take_in(taking, "real", self.reference, "reference")
        judged = {name: metric for name, metric in self._primed.items() if "held_out" in metric.takes}
        if judged:
            assert self.judges is not None
            self._check_shape(self.judges, "held-out")
            self._take_in(judged, "held_out", self.judges, "held-out")

    def _moments(self, statistics: Statistics, name: str) -> FeatureStatistics:
        extractor = self._extractor(name)
        assert extractor is not None, "moments are of features"
        return statistics.moments(extractor, self._views.dtype)

    def _take_in(self, metrics: Mapping[str, Metric], place: Stream, items: Items, what: str) -> None:
        """Hands metrics, in the place of a stream, all of a set of items that is used again and again."""
        wanted: dict[Key, bool] = {}
        for name, metric in metrics.items():
            for key in self._keys(name, place):
                wanted[key] = wanted.get(key, False) or metric.takes[place] != ("moments",)
        kept: dict[Key, Any] = {Key("", "text"): items.texts()}
        if set(wanted) - set(kept):
            kept = self._views.reference(items, what, wanted)
        for name, metric in metrics.items():
            metric.spec = items.spec
            found = [kept[key] for key in self._keys(name, place)]
            if metric.takes[place] == ("moments",):
                metric.update(place, found[0] if isinstance(found[0], FeatureStatistics) else summed(found[0]))
                continue
            for start in range(0, len(found[0]), _ROWS):
                metric.update(place, *(rows[start : start + _ROWS] for rows in found))

    def _check_shape(self, items: Items, what: str) -> None:
        compared = any("real" in metric.takes for metric in self._primed.values())
        if compared and self.reference is not None and not isinstance(self.reference, Statistics):
            same_shape(items, self.reference, what)

    # scores

    def of(self, items: Items, stream: Stream = "fake") -> list[Record]:
        """The scores of the items in question, a record for each metric.

        Args:
            items: Generated ones, or whatever takes their place; for the stream "pairs" each has a source.
            stream: What metrics take them as.

        Raises:
            ConfigError: statistics, of which a metric needs the items.
            DataError: too few items, or features or scores that are not finite.
        """
        if isinstance(items, Statistics):
            return self._of_statistics(items)
        if stream == "fake":
            self._check_shape(items, "generated")
        # What stands beside is often fewer, and several scores depend on the number: they are also given of as many.
        fewest = min([len(other) for other in items.beside.values()] or [len(self.held_out or ())])
        few = items.few(fewest) if 0 < fewest < len(items) else None
        like = () if items.against is None else items.against.texts()
        metrics, matched = self._updated(items, stream, "generated", few, like)
        beside: dict[str, dict[str, Score]] = {name: {} for name in metrics}
        for called, other in items.beside.items():
            for name, metric in self._updated(other, stream, "other", like=like)[0].items():
                beside[name][called] = _scored(name, metric, len(other))
        records = []
        for record in self.announced(items, stream):
            name, at_n, baseline = record.metric, None, self._baselines.get(record.metric)
            if few is not None and (items.beside or (baseline is not None and baseline.n == fewest)):
                at_n = _scored(name, matched[name], fewest)
            score = _scored(name, metrics[name], len(items))
            more = {"at_baseline_n": at_n, "beside": beside[name]}
            records.append(self._complete(record, metrics[name], score, items, **more))
        return records

    def announced(self, items: Items, stream: Stream = "fake") -> list[Record]:
        """The records that :meth:`of` will give of some items, still without scores."""
        paired = stream == "pairs" or items.texts("source")
        return [self._record(name, items, len(items), len(items) if paired else 0) for name in self._primed]

    def _updated(
        self, items: Items, stream: Stream, what: str, few: Tensor | None = None, like: Sequence[str] = ()
    ) -> tuple[dict[str, Metric], dict[str, Metric]]:
        """Metrics that have seen some items, a batch at a time, and such as have seen the `few` of them alone."""
        metrics, matched = _fresh(self._primed), {} if few is None else _fresh(self._primed)
        for metric in (*metrics.values(), *matched.values()):
            metric.like, metric.spec = like, items.spec
        keys = {key for name in metrics for key in self._keys(name, stream)}
        if keys == {Key("", "text")}:
            sides = ["content", "source"] if stream == "pairs" else ["content"]
            passes = iter([{Key("", "text"): tuple(items.texts(side) for side in sides)}])
        else:
            passes = self._views.rows(items, what, keys)
        start = 0
        for rows in passes:
            for name, metric in metrics.items():
                metric.update(stream, *self._arguments(name, stream, rows))
            first = next(iter(rows.values()))
            stop = start + len(first[0] if isinstance(first, tuple) else first)
            own = None if few is None else few[(few >= start) & (few < stop)] - start
            for name, metric in matched.items() if own is not None and len(own) else ():
                metric.update(stream, *self._arguments(name, stream, rows, own))
            start = stop
        return metrics, matched

    def _arguments(self, name: str, stream: Stream, rows: Rows, index: Tensor | None = None) -> list[Any]:
        """What a metric is updated with: its views, of all rows or of those at `index`."""
        found: list[Any] = []
        for key, view in zip(self._keys(name, stream), self.kinds[name].takes[stream], strict=True):
            parts = rows[key] if isinstance(rows[key], tuple) else (rows[key],)
            picked = [part if index is None else rows_at(part, index) for part in parts]
            found += [FeatureStatistics.of(part) for part in picked] if view == "moments" else picked
        return found

    def _of_statistics(self, fake: Statistics) -> list[Record]:
        records = []
        for name, metric in _fresh(self._primed).items():
            if metric.takes.get("fake") != ("moments",):
                what = f"{name} needs the generated items, and {fake.path} holds their statistics only"
                raise ConfigError(what, "name the items with fake=, or ask for fid or fd")
            metric.update("fake", self._moments(fake, name))
            record = self._record(name, fake, fake.n, 0)
            records.append(self._complete(record, metric, _scored(name, metric, fake.n), fake))
        return records

    def ask(self, subject: Subject, items: DatasetItems, seed: int) -> list[Record]:
        """What a model says of held-out items, a record for each metric: each has a view of its own."""
        records = []
        for name, kind in self.kinds.items():
            (view,) = kind.takes["items"]
            metrics: dict[str, Metric] = {}
            for seen in subject.look(view, items, seed, **self._primed[name].options()):
                for whose, told in seen.items():
                    metrics.setdefault(whose, self._built(name)).update("items", told)
            asked = subject.asked(view, items, seed)
            scores = {whose: _scored(name, metric, len(asked)) for whose, metric in metrics.items()}
            record = self._record(name, asked, len(asked), len(asked))
            records.append(self._complete(record, metrics[""], scores.pop(""), asked, beside=scores))
        return records

    def options(self) -> dict[str, Any]:
        """What a model must be told where it makes what these metrics look at."""
        return {key: value for metric in self._primed.values() for key, value in metric.options().items()}

    def _record(self, name: str, items: Items, n: int | None, n_real: int | None) -> Record:
        """All that a metric's scores of some items depend on."""
        metric, extractor, reference = self._primed[name], self._extractor(name), self.reference
        against = reference if items.against is None else items.against
        if "real" in metric.takes and reference is not None and reference.facts:
            n_real = reference.n if isinstance(reference, Statistics) else len(reference)
        canonical = extractor is None or (extractor.canonical and self._configs[name].extractor == metric.native)
        return Record(
            metric=name,
            config=self._values[name],
            better=metric.figures,
            generated=Score({}, n),
            made=items.facts,
            real={} if against is None else against.facts if against is reference else against.where(),
            compares=metric.compares(),
            n_real=n_real,
            called=(items.called, reference.called if against is reference and reference is not None else ""),
            extractor=extractor,
            dtype=self._views.dtype,
            plain=canonical and (extractor is None or self._views.dtype == "float32"),
            baseline_of=self.held_out.facts if self.held_out is not None else {},
            held_out=self.judges if "held_out" in metric.takes else None,
            device=str(self._views.device),
        )

    def _complete(self, record: Record, metric: Metric, score: Score, items: Items, **more: Any) -> Record:
        """The same with the scores, and what the metric says of them."""
        return replace(
            record,
            generated=score,
            better={figure: metric.figures.get(figure, "") for figure in score.figures},
            baseline=self._baselines.get(record.metric),
            bounds=metric.bounds(),
            facts=metric.facts(),
            notes=(*metric.notes(), *items.notes),
            gallery=metric.gallery(),
            **more,
        )

    def _measure_baselines(self) -> dict[str, Score]:
        """The scores of held-out items in the place of generated ones, for the metrics that can give any."""
        if not self.held_out or not any("fake" in kind.takes for kind in self.kinds.values()):
            return {}
        self._check_shape(self.held_out, "held-out")
        metrics = _fresh(self._primed)
        if not self.held_out.spec.classes:
            metrics = {name: metric for name, metric in metrics.items() if "labels" not in metric.takes["fake"]}
        sizes = {name: metric.halve_held_out() for name, metric in metrics.items() if "held_out" in metric.takes}
        others = {name: metric for name, metric in metrics.items() if name not in sizes}
        self._take_in(others, "fake", self.held_out, "held-out")
        scores: dict[str, Score] = {}
        for name, metric in metrics.items():
            try:
                scores[name] = _scored(name, metric, sizes.get(name, len(self.held_out)))
            except DataError as error:  # too few held-out items must not cost the score itself
                warn(f"no baseline for {name}: {error.message}")
        return scores


def _checked(name: str, values: Mapping[str, Any]) -> Any:
    if values.get("name", name) != name:
        raise ConfigError(f"metric.{name}.name={values['name']} is another metric", f"ask for metric={values['name']}")
    return check(f"metric.{name}", find("metric", name).config, values)


def _scored(name: str, metric: Metric, n: int | None) -> Score:
    return Score(finite(name, metric.compute()), n)


def _fresh(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Copies of metrics that share the features they hold already, which nothing changes in place."""
    states = [state for metric in metrics.values() for state in metric.metric_state.values()]
    memo = {id(rows): rows for state in states if isinstance(state, list) for rows in state}
    return copy.deepcopy(dict(metrics), memo)
