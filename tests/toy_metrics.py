"""What tests of metrics share: models as subjects without a run, metrics of text by their names, records."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from aigc_cli.config.schema import check
from aigc_cli.data.base import Dataset
from aigc_cli.data.open import Splits
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.items import DatasetItems, has_text
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.record import Record, Score
from aigc_cli.metrics.run_subject import RunSubject
from aigc_cli.metrics.text import TextMetric
from aigc_cli.metrics.text_subject import TextSubject
from aigc_cli.registry import find


def subject_of(model: Any, dataset: Dataset, batch_size: int | None = None, **controls: Any) -> RunSubject:
    """A model as the subject of an evaluation, whose training split is the dataset too; no run holds it."""
    restored: Any = SimpleNamespace(
        run=SimpleNamespace(name="toy", path=Path("toy"), checkpoints=Path("toy")), step=1, checksum="0" * 64,
        weights="raw",
        model=model, codec=dataset.codec, spec=dataset.spec, device=torch.device("cpu"),
    )  # fmt: skip
    splits = Splits("toy", lambda split: dataset)
    kind = type(model).controls
    filling = kind(**model.filling)
    subject = TextSubject if has_text(dataset.spec) else RunSubject
    return subject(restored, kind(**controls), splits, filling, batch_size)


def asked(
    name: str, model: Any, items: DatasetItems, *, seed: int = 0, batch_size: int | None = None, **config: Any
) -> Record:
    """The record of a metric that asks a model about items.

    Raises:
        ConfigError: the model cannot be asked.
    """
    subject = subject_of(model, items.dataset, batch_size)
    subject.source(name)
    (record,) = Evaluation({name: {"name": name, **config}}).ask(subject, items, seed)
    return record


def texts_of(model: Any, dataset: Dataset, kind: str, batch_size: int | None = None) -> Any:
    """What a model makes of the texts of a dataset."""
    return subject_of(model, dataset, batch_size).pairs(kind, Passages(dataset, "test", "toy"), 0)


def text_metric(name: str, **changed: object) -> TextMetric:
    defaults: dict[str, dict[str, object]] = {
        "bleu": {"tokenize": "auto", "lowercase": False},
        "chrf": {"word_order": 0},
        "rouge": {"stemmer": False, "tokenize": "auto"},
        "distinct": {"tokenize": "auto"},
        "repetition": {"n": 4, "tokenize": "auto"},
        "self_bleu": {"items": 1000, "seed": 0, "tokenize": "auto"},
        "copied": {"run": 5},
    }
    component = find("metric", name)
    config = check("", component.config, {"name": name, **defaults[name], **changed})
    return component.build(config)  # type: ignore[no-any-return]


def text_scores(name: str, fake: list[str], real: list[str] | None = None, **changed: object) -> dict[str, float]:
    built = text_metric(name, **changed)
    for start in range(0, max(1, len(fake)), 2):
        built.update("pairs", fake[start : start + 2], [] if real is None else real[start : start + 2])
    return {key: float(value) for key, value in built.compute().items()}


class KnownExtractor:
    name = "inception-v3-compat"
    checksum = "0" * 64
    canonical = True
    widths = {"features": 2048}  # noqa: RUF012
    facts: dict[str, Any] = {"preprocessing": "theirs"}  # noqa: RUF012

    def __call__(self, images: Any) -> Any:
        raise NotImplementedError


CIFAR = {"data": "cifar10", "split": "train", "fingerprint": "f", "original": True}


def record_of(score: float = 3.0, **changed: Any) -> Record:
    values: dict[str, Any] = {
        "metric": "fid",
        "extractor": KnownExtractor(),
        "better": {"fid": "lower"},
        "config": {},
        "n_real": 50_000,
        "generated": Score({"fid": score}, 50_000),
        "made": {"step": 5, "seed": 0},
        "real": CIFAR,
    }
    return Record(**{**values, **changed})


def records_of(score: float, **changed: Any) -> dict[str, dict[str, Any]]:
    return {"fid": record_of(score).plain_json() | changed}


def sets_of(*scores: float) -> list[list[Record]]:
    return [[record_of(score, notes=("the same",))] for score in scores]
