"""What ``aigc eval`` was asked for, and which of its words have no effect."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.compose import compose
from aigc_cli.config.folders import top_level_keys
from aigc_cli.config.schema import STRICT, Options
from aigc_cli.data.base import Split
from aigc_cli.errors import ConfigError, suggest, too_many, warn
from aigc_cli.exported_run import ExportedRun
from aigc_cli.metrics.base import kind_of, usual_metrics
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import model_class

#: The extractors that learn from data, and what stands for one of them.
LEARNED = {"auto", "classifier", "own-ssl"}
#: A word that is left empty names the current folder to Python, which nobody means.
Named = Annotated[str, Field(min_length=1)]
#: What a key is where nobody gave it; the others are null, or hold nulls alone.
_USUAL = {"run": "latest", "seed": 0, "split": "train", "dtype": "float32"}

#: A user who types model= means the run's, and knows of no backbone=, which that is short for.
_BACKBONE = ("model= or backbone", ": it names the network of extractor=torchvision, and a run has its own model")


@dataclass(config=STRICT, frozen=True, kw_only=True)
class EvalConfig:
    """See ``configs/eval.yaml``."""

    task: Literal["measure", "compare", "stats"]
    run: Named | None
    metric: dict[str, dict[str, Any]]
    n: Annotated[int, Field(ge=1)] | None
    seed: Annotated[int, Field(ge=0)]
    seeds: Annotated[int, Field(ge=1)] | None
    split: Split
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    reference: Named | None
    extractor: Named | None
    backbone: Named | None
    weights: Named | None
    resize: Literal["tf_bilinear", "clean"] | None
    dtype: Literal["float32", "bfloat16"]
    fake: Named | None
    real: Named | None
    held_out: Named | None
    out: Named | None
    batch_size: Annotated[int, Field(ge=1)] | None
    device: str
    data: dict[str, Any]
    controls: dict[str, Any]

    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics' configurations, with ``extractor=`` in each that has an extractor, where it is given."""
        changed = {} if self.extractor is None else {"extractor": self.extractor}
        return {name: {**values, **(changed if "extractor" in values else {})} for name, values in self.metric.items()}

    def extractors(self) -> set[str]:
        """The names of the extractors that the metrics look through."""
        return {values["extractor"] for values in self.metrics().values() if "extractor" in values}

    def takes(self, stream: str) -> bool:
        """Whether any of the metrics takes a stream."""
        return any(stream in kind_of(name).takes for name in self.metric)

    def of_text(self) -> bool:
        """Whether any of the metrics measures text."""
        return any(kind_of(name).of_text() for name in self.metric)

    def compares_with_data(self) -> bool:
        """Whether any metric looks at more than what is measured, or through an extractor that learns from data."""
        return self.comparing() is not None or bool(LEARNED & self.extractors())

    def comparing(self) -> str | None:
        """The first of the metrics, if any, that looks at more than what is measured."""
        return next((name for name in self.metric if set(kind_of(name).takes) != {"fake"}), None)

    def refuse(self, keys: Iterable[str], why: str, hint: str) -> None:
        """Raises a :class:`ConfigError` if one of the keys is given."""
        for key in keys:
            if getattr(self, key) is not None:
                raise ConfigError(f"{key}={getattr(self, key)}{why}", hint)

    def refuse_other_side(self) -> None:
        """Refuses what a run would be compared with where it is measured on held-out items of its data."""
        why = " has no effect: a run is measured here on held-out items of its data"
        self.refuse(("real", "reference", "held_out"), why, "leave it out, or name what is measured with fake=")

    def refuse_controls(self) -> None:
        """Refuses words for a model where there is none."""
        for word in self.controls:
            raise ConfigError(f"there is no key {word}", suggest(word, top_level_keys("eval") - {"controls"}))

    def check_number(self, items: DatasetItems, *, drawn: bool = False) -> None:
        """Refuses an ``n=`` of more items than there are; only warns where it is of what is `drawn`, too."""
        if self.n is None or self.n <= len(items):
            return
        error = too_many(self.n, len(items), f"{items.modality.noun[1]} in the {items.split} split")
        if not drawn:
            raise error
        warn(f"{error.message}, all of which are measured")

    def warn_of_idle(self, *idle: str) -> None:
        """Warns of keys that have no effect: those of extractors that nothing looks through, and the `idle` ones."""
        extractors = self.extractors()
        unheard = [] if extractors else ["extractor", "dtype"]
        unheard += [] if extractors - LEARNED else ["weights"]
        unheard += [] if "inception" in extractors else ["resize"]
        unheard += [] if "torchvision" in extractors else ["backbone"]
        for key in dict.fromkeys([*unheard, *idle]):
            value = getattr(self, key)
            parts = value.values() if isinstance(value, dict) else [None if value == _USUAL.get(key) else value]
            if any(part is not None for part in parts):
                named, why = _BACKBONE if key == "backbone" else (key, "")
                warn(f"{named}= has no effect here{why}")


def run_of(asked: EvalConfig) -> Run | None:
    """The run that is evaluated, if there is one; where one is needed, it is said later what is wrong with it."""
    if asked.run is None:
        return None
    with suppress(ConfigError):
        run = find_run(asked.run, exported=True)
        assert run.config  # one that cannot be read is told of before anything that follows from it
        return run
    return None


def _able(run: Run) -> frozenset[str]:
    """What the model of a run can do, or what was exported of it."""
    can: frozenset[str] = model_class(run.config["model"]["name"]).can
    return can & run.can if isinstance(run, ExportedRun) else can


def with_usual_metrics(asked: EvalConfig, options: Options, runs: list[Run]) -> EvalConfig:
    """What was asked for, with the usual metrics of some runs where none are named; of several, those of all."""
    if "metric" in options.given or not runs:
        return asked
    each = [usual_metrics(run.spec.modality, run.spec.source is not None, _able(run)) for run in runs]
    usual = [name for name in each[0] if all(name in others for others in each)]
    if not usual:
        named = " and ".join(f"{run.name} is of {run.spec.modality}" for run in runs)
        raise ConfigError(f"{named}: no metric is usual for both", "compare runs of one kind, or name a metric=")
    if usual == list(asked.metric):
        return asked
    return replace(asked, metric=compose("eval", options.overrides, usual=usual)["metric"])
