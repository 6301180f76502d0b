"""What is shown and measured of a model while it trains: previews, held-out scores, and the model's own curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
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
from aigc_cli.modalities.arrays import find_writer
from aigc_cli.modalities.base import Batch
from aigc_cli.models.base import Model
from aigc_cli.randomness import Noise
from aigc_cli.registry import name_of
from aigc_cli.sampling.controls import usual_controls
from aigc_cli.sampling.generate import Request, generate, prepare
from aigc_cli.sampling.modes import MODES, modes_of, plan
from aigc_cli.training.settings import HANDFUL, Hooks, TrainerConfig

PER_TOKEN = "_per_token"
#: Samples that a Fréchet distance is measured on, if `trainer.validate_items` does not say.
MOST_SAMPLES = 2048
_DRAWN = 128  # of them at a time
#: Items of the training set, and as many held out, that a model's own curves are of.
EXAMINED = 256
#: Held-out items that are scored then, if none are validated: about the work of one step.
SCORED = 64


class Monitor:
    """Looks at a model in training, always at the same items and noise, so that what it shows compares over time.

    The trainer calls for it through its hooks, and so knows nothing of how samples are drawn or judged.

    Raises:
        ConfigError: a score is to be validated that the model does not have, or samples of one that cannot be sampled.
        DataError: held-out data is to be looked at, and cannot be read.
    """

    def __init__(self, model: Model, splits: Splits, config: TrainerConfig, device: torch.device) -> None:
        self.model, self.splits, self.config, self.device = model, splits, config, device
        self.train: Dataset = splits["train"]
        self.validate = self._validator() if config.validate_every is not None else None
        self.examine = self._examiner() if config.examine_every is not None else None

    def hooks(self, folder: Path) -> Hooks:
        """What the trainer calls, if it is to; previews go to ``folder/step-N.*``."""
        return Hooks(preview=partial(self.preview, folder), validate=self.validate, examine=self.examine)

    # previews

    def preview(self, folder: Path, step: int) -> None:
        """Draws samples from the same noise each time, and what becomes of the same held-out items."""
        for mode in modes_of(self.model):
            if MODES[mode].preview is not None:
                self._draw(mode, folder / f"step-{step}{MODES[mode].preview}", f"step {step}")

    def _draw(self, mode: str, path: Path, title: str) -> None:
        _, writer = find_writer(self.model.spec.modality)
        n = self.config.samples or writer.usual
        request = Request(
            model=self.model, codec=self.train.codec, controls=usual_controls(self.model, mode), seed=0,
            n=None if mode == "sample" else max(1, n // 2),  # items that are shown twice are half as many
            usual=n, at_most=True, device=self.device, train=lambda: self.train,
            held_out=partial(self.splits.held_out, avoid="test"),
        )  # fmt: skip
        drawn = plan(request)
        title = ", ".join(filter(None, [title, drawn.arrangement.summary]))
        path = path.with_name(path.name + writer.preview_suffix)
        with resource_errors(path):
            writer.preview(path, drawn.batches(None), drawn.arrangement, request.codec, title)

    # held-out scores

    def _validator(self) -> Callable[[], dict[str, float]]:
        """The model's own score where it has one, else the Fréchet distance of its samples to the val split."""
        has_score = "score" in self.model.can
        wanted, name = self.config.validate_metric, f"model={name_of(type(self.model))}"
        if wanted == "score" and not has_score:
            what = f"trainer.validate_metric=score: {name} has no held-out score"
            raise ConfigError(what, "use trainer.validate_metric=fd, or auto")
        if wanted == "fd" or not has_score:
            if "sample" not in modes_of(self.model):
                hint = "use trainer.validate_metric=score" if has_score else "leave trainer.validate_every=null"
                raise ConfigError(f"trainer.validate_metric={wanted}: {name} has no samples to judge", hint)
            return self._frechet_distance()
        return partial(self._mean_score, self.splits["val"], self.config.validate_items)

    def _frechet_distance(self) -> Callable[[], dict[str, float]]:
        from aigc_cli.metrics.class_order import class_order, in_class_order
        from aigc_cli.metrics.evaluation import Evaluation
        from aigc_cli.metrics.extractors.base import Sources
        from aigc_cli.metrics.items import SampledItems
        from aigc_cli.metrics.passages import items_of
        from aigc_cli.metrics.views import Views

        def samples() -> Iterator[Batch]:
            controls = usual_controls(self.model, "sample")
            prepare(self.model, lambda: self.train, controls, device=self.device)  # anew: its weights have changed
            how: dict[str, Any] = {"device": self.device, "batch_size": _DRAWN, "controls": controls}
            with in_class_order(self.model, order):
                yield from map(Batch, generate(self.model, self.train.codec, range(n), seed=0, **how))

        n = self.config.validate_items or min(len(self.train), MOST_SAMPLES)
        order = class_order(self.train, n) if self.model.conditional else ()
        sources = Sources(device=self.device, splits=self.splits)
        real = items_of(self.splits["val"], "val", self.splits.name)  # whose features are computed once
        evaluation = Evaluation({"fd": {"name": "fd", "extractor": "auto"}}, Views(sources), real)

        def measure() -> dict[str, float]:
            (record,) = evaluation.of(SampledItems(samples, n, real.spec))
            return dict(record.labelled())

        return measure

    def _mean_score(self, dataset: Dataset, most: int | None) -> dict[str, float]:
        """The means of the model's score, over `most` items if that is given; what it draws on the way is each item's
        own, so that scores compare.

        A mean per token is over the tokens of the split, not over its items, which may differ in length.
        """
        config, device = self.config, self.device
        totals: dict[str, Tensor] = {}
        count = 0
        for batch in batches_in_order(dataset, config.batch_size, device):
            if most is not None:
                batch = batch.take(torch.arange(min(len(batch), most - count), device=device))
            noise = Noise(0, range(count, count + len(batch)), device)
            scores = self.model.score(encoded(batch, dataset.codec), noise)
            for name, values in scores.items():
                zero = torch.zeros((), dtype=torch.float64, device=device)
                totals[name] = totals.get(name, zero) + values.double().sum()
            count += len(batch)
            if count == most:
                break
        means = {name: float(total) / count for name, total in totals.items()}
        if "tokens" not in totals:
            return means
        tokens = float(totals["tokens"])
        kept = [name for name in means if name.endswith(PER_TOKEN)]
        return {name: float(totals[name.removesuffix(PER_TOKEN)]) / tokens for name in kept}

    # the model's own curves

    def _examiner(self) -> Callable[[], dict[str, float]] | None:
        """The model's own curves, and where nothing validates it, its score on a few items that it does not train on;
        None where there is nothing to look at."""
        looks = list(filter(None, [self._own_curves(), self._few_scored()]))
        return (lambda: {name: value for look in looks for name, value in look().items()}) if looks else None

    def _held_out(self) -> Dataset | None:
        """The val split, if there is enough of it."""
        with suppress(ConfigError):  # nothing is held out
            if len(dataset := self.splits["val"]) >= HANDFUL:
                return dataset
        return None

    def _few_scored(self) -> Callable[[], dict[str, float]] | None:
        dataset = self._held_out() if self.validate is None and "score" in self.model.can else None
        if dataset is None:
            return None

        def measure() -> dict[str, float]:
            name, value = next(iter(self._mean_score(dataset, SCORED).items()))
            return {f"held_out/{name}": value}

        return measure

    def _own_curves(self) -> Callable[[], dict[str, float]] | None:
        """The curves of a few items; None for a model that has none."""
        if "examine" not in self.model.can:
            return None
        if len(self.train) < HANDFUL:
            return None
        held_out_split = self._held_out()
        datasets = [self.train] if held_out_split is None else [self.train, held_out_split]
        n = min(EXAMINED, *map(len, datasets))
        few = [(dataset, items_at(dataset, chosen_rows(dataset, "watched")[:n])) for dataset in datasets]
        train, *others = [encoded(items.to(self.device), dataset.codec) for dataset, items in few]
        held_out = others[0] if others else None
        return lambda: {name: float(value) for name, value in self.model.examine(train, held_out).items()}
