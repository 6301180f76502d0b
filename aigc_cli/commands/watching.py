"""What the trainer looks at while it trains: samples from fixed noise, held-out figures, and the model's own curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aigc_cli.data.base import Dataset
from aigc_cli.data.loader import batches_in_order
from aigc_cli.data.open import Splits, chosen_rows, encoded, items_at
from aigc_cli.errors import ConfigError
from aigc_cli.files import resource_errors
from aigc_cli.modalities.base import Batch, find_writer
from aigc_cli.models.base import Model
from aigc_cli.randomness import Noise
from aigc_cli.runs import Run
from aigc_cli.sampling.controls import usual_controls
from aigc_cli.sampling.generate import generate, prepare
from aigc_cli.sampling.modes import modes_of, plan
from aigc_cli.sampling.request import Request
from aigc_cli.training.settings import TrainerConfig

PER_TOKEN = "_per_token"
#: Samples that a Fréchet distance is measured on, if `trainer.validate_items` does not say.
MOST_SAMPLES = 2048
#: The modes that are looked at, with what the names of their files end in.
_PREVIEWS = {"sample": "", "reconstruct": "-reconstructions", "infill": "-infilled"}
#: Items that a model's own curves are looked at on, of the training set and as many held out.
EXAMINED = 256


@dataclass(frozen=True)
class Watched:
    """A model in training, and the data it may be watched on."""

    model: Model
    dataset: Dataset  # that it trains on
    data: dict[str, Any]  # the section `data` of the configuration
    splits: Splits
    config: TrainerConfig
    device: torch.device

    def controls(self) -> Any:
        """What the model is sampled with, once it is ready for it."""
        controls = usual_controls(self.model, "sample")
        prepare(self.model, lambda: self.dataset, controls, device=self.device)
        return controls


def watch(
    model: Model, dataset: Dataset, data: dict[str, Any], config: TrainerConfig, device: torch.device,
    folder: Path | None = None,
) -> Watched:  # fmt: skip
    """A model that trains on `dataset`, the training split of `data`, whose other splits are opened when needed."""
    return Watched(model, dataset, data, Splits.of_config(data, folder, train=dataset), config, device)


def preview(watched: Watched, run: Run) -> Callable[[int], None]:
    """Draws ``samples/step-N.*`` from the same noise each time, and what becomes of the same held-out items."""
    modes = [mode for mode in _PREVIEWS if mode in modes_of(watched.model)]

    def draw(step: int) -> None:
        for mode in modes:
            _draw(watched, mode, run.path / "samples" / f"step-{step}{_PREVIEWS[mode]}", f"step {step}")

    return draw


def _draw(watched: Watched, mode: str, path: Path, title: str) -> None:
    _, writer = find_writer(watched.model.spec.modality)
    n = watched.config.samples or writer.usual
    controls = watched.controls() if mode == "sample" else usual_controls(watched.model, mode)
    request = Request(
        model=watched.model,
        codec=watched.dataset.codec,
        controls=controls,
        n=None if mode == "sample" else max(1, n // 2),  # of items shown twice, half as many
        usual=n,
        seed=0,
        device=watched.device,
        held_out=partial(watched.splits.held_out, avoid="test"),
        at_most=True,
    )
    drawn = plan(request)
    title = ", ".join(filter(None, [title, drawn.arrangement.summary]))
    path = path.with_name(path.name + writer.preview_suffix)
    with resource_errors(path):
        writer.preview(path, drawn.batches(None), drawn.arrangement, request.codec, title)


def validator(watched: Watched) -> Callable[[], dict[str, float]]:
    """Held-out figures: the model's own score where it has one, else the Fréchet distance of its samples.

    Raises:
        ConfigError: a score is asked for that the model does not have, or samples of one that cannot be sampled.
    """
    has_score = "score" in watched.model.can
    wanted = watched.config.validate_metric
    name = type(watched.model).__name__
    if wanted == "score" and not has_score:
        raise ConfigError(
            f"trainer.validate_metric=score: {name} has no held-out score", "use trainer.validate_metric=fd, or auto"
        )
    if wanted == "fd" or not has_score:
        if "sample" not in modes_of(watched.model):
            raise ConfigError(
                f"trainer.validate_metric={wanted}: {name} has no samples to judge",
                "use trainer.validate_metric=score" if has_score else "leave trainer.validate_every=null",
            )
        return _distance(watched)
    return partial(_mean_score, watched, watched.splits["val"])


def _distance(watched: Watched) -> Callable[[], dict[str, float]]:
    from aigc_cli.metrics.validation import validator  # torchmetrics takes seconds to import

    def samples(batch_size: int) -> Iterator[Tensor]:
        return generate(
            watched.model, watched.dataset.codec, range(n), seed=0, device=watched.device, batch_size=batch_size,
            controls=watched.controls(),
        )  # fmt: skip

    n = watched.config.validate_items or min(len(watched.dataset), MOST_SAMPLES)
    metric = {"name": "fd", "extractor": "classifier"}
    return validator({"fd": metric}, watched.splits, samples, n, device=watched.device)


def _mean_score(watched: Watched, dataset: Dataset) -> dict[str, float]:
    """The means of the model's score; what it draws on the way is each item's own, so that figures are comparable.

    A mean per token is over the tokens of the split, not over its items, which may differ in length.
    """
    config, device = watched.config, watched.device
    totals: dict[str, Tensor] = {}
    count = 0
    for batch in batches_in_order(dataset, config.batch_size, device):
        if config.validate_items is not None:
            batch = batch.take(torch.arange(min(len(batch), config.validate_items - count), device=device))
        noise = Noise(0, range(count, count + len(batch)), device)
        scores = watched.model.score(encoded(batch, dataset.codec), noise)
        for name, values in scores.items():
            totals[name] = totals.get(name, torch.zeros((), dtype=torch.float64, device=device)) + values.double().sum()
        count += len(batch)
        if count == config.validate_items:
            break
    means = {name: float(total) / count for name, total in totals.items()}
    if "tokens" not in totals:
        return means
    tokens = float(totals["tokens"])
    return {name: float(totals[name.removesuffix(PER_TOKEN)]) / tokens for name in means if name.endswith(PER_TOKEN)}


def examiner(watched: Watched) -> Callable[[], dict[str, float]] | None:
    """The model's own curves on a few items that are always the same; None where it has none."""
    if "examine" not in watched.model.can:
        return None
    try:
        held_out = watched.splits["val"]
    except ConfigError:
        held_out = None
    n = min(EXAMINED, len(watched.dataset), len(held_out) if held_out is not None else EXAMINED)
    train = _few(watched, watched.dataset, n)
    others = None if held_out is None else _few(watched, held_out, n)

    def examine() -> dict[str, float]:
        return {name: float(value) for name, value in watched.model.examine(train, others).items()}

    return examine


def _few(watched: Watched, dataset: Dataset, n: int) -> Batch:
    return encoded(items_at(dataset, chosen_rows(dataset, "watched")[:n]).to(watched.device), dataset.codec)
