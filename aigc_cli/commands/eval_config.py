"""What ``aigc eval`` was asked for, and which of its words have no effect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config.folders import top_level_keys
from aigc_cli.config.schema import STRICT
from aigc_cli.data.base import Split
from aigc_cli.errors import ConfigError, suggest, too_many, warn
from aigc_cli.files import check_writable, path_of
from aigc_cli.metrics.base import kind_of
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.runs import Run, find_run

#: A word that is left empty names the current folder to Python, which nobody means.
Named = Annotated[str, Field(min_length=1)]


@dataclass(config=STRICT, frozen=True, kw_only=True)
class EvalConfig:
    """See ``configs/eval.yaml``."""

    task: Literal["measure", "compare", "stats"]
    run: Named
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

    def compares_with_data(self) -> bool:
        """Whether any metric looks at more than what is measured, or through an extractor that learns from data."""
        alone = all(set(kind_of(name).takes) == {"fake"} for name in self.metric)
        return not alone or "classifier" in self.extractors()

    def extractors(self) -> set[str]:
        """The names of the extractors that the metrics look through."""
        return {values["extractor"] for values in self.metrics().values() if "extractor" in values}


def run_of(asked: EvalConfig) -> Run | None:
    """The run that is evaluated, if there is one; where one is needed, it is said later what is wrong with it."""
    try:
        run = find_run(asked.run)
    except ConfigError:
        return None
    assert run.config  # one that cannot be read is told of before anything that follows from it
    return run


def records_folder(asked: EvalConfig, run: Run | None = None) -> Path | None:
    """Where records are written: ``out=``, or else the run's own folder; None where there is neither.

    Raises:
        ResourceError: nothing can be written there, which is better known before anything is measured.
    """
    own = None if run is None else run.path / "eval"
    folder = own if asked.out is None else path_of(asked.out)
    if folder is not None:
        check_writable(folder, "with out=")
    return folder


#: What a key is where nobody gave it; the others are null, or hold nulls alone.
_USUAL = {"run": "latest", "seed": 0, "split": "train", "dtype": "float32"}


def warn_of_idle(asked: EvalConfig, *idle: str) -> None:
    """Warns of keys that have no effect: those of extractors that nothing looks through, and the `idle` ones."""
    extractors = asked.extractors()
    unheard = {
        "extractor": not extractors,
        "dtype": not extractors,
        "weights": extractors <= {"classifier"},
        "resize": "inception" not in extractors,
        "backbone": "torchvision" not in extractors,
        **dict.fromkeys(idle, True),
    }
    for key in (key for key, is_so in unheard.items() if is_so and _is_given(asked, key)):
        warn(f"{key}= has no effect here")


def _is_given(asked: EvalConfig, key: str) -> bool:
    value = getattr(asked, key)
    return any(part is not None for part in value.values()) if isinstance(value, dict) else value != _USUAL.get(key)


def check_number(n: int | None, items: DatasetItems, *, drawn: bool = False) -> None:
    """Refuses an ``n=`` of more items than there are; only warns where it is of what is `drawn`, too.

    Raises:
        ConfigError: so many are not there.
    """
    if n is None or n <= len(items):
        return
    error = too_many(n, len(items), f"{items.modality.noun[1]} in the {items.split} split")
    if not drawn:
        raise error
    warn(f"{error.message}, all of which are measured")


def check_no_other_side(asked: EvalConfig) -> None:
    """Refuses what a run would be compared with where it is measured on held-out items of its data.

    Raises:
        ConfigError: ``real=``, ``reference=`` or ``held_out=``.
    """
    for key in ("real", "reference", "held_out"):
        if getattr(asked, key) is not None:
            what = f"{key}={getattr(asked, key)} has no effect: a run is measured here on held-out items of its data"
            raise ConfigError(what, "leave it out, or name what is measured with fake=")


def check_no_controls(asked: EvalConfig) -> None:
    """Refuses words for a model where there is none.

    Raises:
        ConfigError: there is such a word.
    """
    if asked.controls:
        word = next(iter(asked.controls))
        raise ConfigError(f"there is no key {word}", suggest(word, top_level_keys("eval") - {"controls"}))
