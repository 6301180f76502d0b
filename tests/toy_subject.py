"""Models as the subject of an evaluation, without a run, a checkpoint or a command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from aigc_cli.data.base import Dataset
from aigc_cli.data.open import Splits
from aigc_cli.metrics.evaluation import Evaluation
from aigc_cli.metrics.items import DatasetItems
from aigc_cli.metrics.passages import Passages
from aigc_cli.metrics.record import Record
from aigc_cli.metrics.run_subject import RunSubject


def subject_of(model: Any, dataset: Dataset, batch_size: int | None = None, **controls: Any) -> RunSubject:
    """A model as the subject of an evaluation, whose training split is the dataset too; no run holds it."""
    restored: Any = SimpleNamespace(
        run=SimpleNamespace(name="toy", path=Path("toy"), checkpoints=Path("toy")), step=1, checksum="0" * 64,
        model=model, codec=dataset.codec, spec=dataset.spec, device=torch.device("cpu"),
    )  # fmt: skip
    splits = Splits("toy", lambda split: dataset)
    kind = type(model).controls
    filling = kind(**model.filling)
    return RunSubject(restored, kind(**controls), splits, filling=filling, batch_size=batch_size)


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
