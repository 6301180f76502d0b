"""What the trainer looks at while it trains: sample grids from fixed noise, and held-out figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from aigc_cli.data import open_dataset
from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import batches_in_order
from aigc_cli.errors import ConfigError
from aigc_cli.files import resource_errors
from aigc_cli.models.base import Model
from aigc_cli.runs import Run
from aigc_cli.sampling.generate import generate
from aigc_cli.sampling.preview import write_preview
from aigc_cli.training.trainer import TrainerConfig

#: Samples that a Fréchet distance is measured on, if `trainer.validate_items` does not say.
MOST_SAMPLES = 2048


def preview(
    run: Run, model: Model, dataset: Dataset, config: TrainerConfig, device: torch.device
) -> Callable[[int], None]:
    """Draws ``samples/step-N.png`` from the same noise each time."""

    def draw(step: int) -> None:
        drawn = torch.cat(list(generate(model, dataset.codec, range(config.samples), seed=0, device=device)))
        path = run.path / "samples" / f"step-{step}.png"
        with resource_errors(path):
            write_preview(path, drawn, title=f"step {step}")

    return draw


def validator(
    config: dict[str, Any], trainer: TrainerConfig, model: Model, dataset: Dataset, device: torch.device
) -> Callable[[], dict[str, float]]:
    """Held-out figures: the model's own score where it has one, else the Fréchet distance of its samples.

    Raises:
        ConfigError: a score is asked for that the model does not have.
    """
    has_score = type(model).score is not Model.score
    wanted = trainer.validate_metric
    if wanted == "score" and not has_score:
        raise ConfigError(
            f"trainer.validate_metric=score: model={config['model']['name']} has no held-out score",
            "use trainer.validate_metric=fd, or auto",
        )
    if wanted == "fd" or not has_score:
        return _distance(config, trainer, model, dataset, device)
    held_out = open_dataset(config["data"], "val")
    return lambda: _mean_score(model, held_out, trainer, device)


def _distance(
    config: dict[str, Any], trainer: TrainerConfig, model: Model, dataset: Dataset, device: torch.device
) -> Callable[[], dict[str, float]]:
    from aigc_cli.metrics.validation import validator  # torchmetrics takes seconds to import

    def samples(batch_size: int) -> Iterator[torch.Tensor]:
        return generate(model, dataset.codec, range(n), seed=0, device=device, batch_size=batch_size)

    n = trainer.validate_items or min(len(dataset), MOST_SAMPLES)
    metric = {"name": "fd", "extractor": "classifier"}
    return validator({"fd": metric}, config["data"], samples, n, device=device, train=dataset)


def _mean_score(model: Model, dataset: Dataset, config: TrainerConfig, device: torch.device) -> dict[str, float]:
    totals: dict[str, torch.Tensor] = {}
    count = 0
    for batch in batches_in_order(dataset, config.batch_size, device):
        if config.validate_items is not None:
            batch = batch.take(torch.arange(min(len(batch), config.validate_items - count), device=device))
        scores = model.score(batch.with_content(dataset.codec.encode(batch.content)))
        assert scores is not None, "the model has a score"
        for name, values in scores.items():
            totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64, device=device)) + values.double().sum()
        count += len(batch)
        if count == config.validate_items:
            break
    return {name: float(total) / count for name, total in totals.items()}
