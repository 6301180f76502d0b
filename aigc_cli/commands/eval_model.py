"""The part of ``aigc eval`` that asks a model itself: its reconstructions, likelihood and latents of held-out items."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aigc_cli.commands.drawing import facts_of
from aigc_cli.commands.eval_words import check_no_other_side, check_number
from aigc_cli.config.schema import check
from aigc_cli.data.open import reference_rows
from aigc_cli.errors import ConfigError, warn
from aigc_cli.metrics.latents import measure_active_units
from aigc_cli.metrics.likelihood import measure_likelihood
from aigc_cli.metrics.reconstruction import measure_pairs
from aigc_cli.metrics.report import Items, Sides
from aigc_cli.metrics.result import Result
from aigc_cli.progress import progress
from aigc_cli.registry import find
from aigc_cli.sampling.generate import reconstruct
from aigc_cli.training.restore import Restored, restore_model

if TYPE_CHECKING:
    from aigc_cli.commands.eval_kinds import Kinds
    from aigc_cli.commands.evaluating import Setting
    from aigc_cli.data.base import Dataset, Split

_BATCH = 128


def measure_model(setting: Setting, kinds: Kinds) -> list[tuple[list[Result], Sides]]:
    """Reconstruction, likelihood and latents over the split that the user names, or else the held-out one.

    Raises:
        ConfigError: there is no run, no such data, or the model cannot do it.
        DataError: weights or data that are missing or cannot be trusted.
    """
    asked, run = setting.asked, setting.run
    if run is None or asked.fake is not None:
        what = next(iter(kinds.of_model))
        raise ConfigError(f"{what} asks a model itself, and files come from none", "name a run with run=")
    if asked.seeds is not None:
        warn(f"seeds= changes nothing for {', '.join(kinds.of_model)}")
    if not kinds.features:
        check_no_other_side(asked, "leave it out")
    metrics = {
        name: find("metric", name).build(check(f"metric.{name}", find("metric", name).config, values))
        for name, values in kinds.pairs.items()
    }
    for metric in metrics.values():
        metric.distributed_available_fn = lambda: False
    restored = restore_model(run, step=asked.step, device=asked.device)
    split, dataset = held_out_items(setting)
    check_number(asked.n, len(dataset), f"images in the {split} split", drawn=bool(kinds.features))
    n = min(asked.n or len(dataset), len(dataset))
    rows = reference_rows(dataset, split, n)
    results = _reconstruction(setting, restored, dataset, rows, kinds, metrics) if metrics else []
    results += _figures_of_itself(setting, restored, dataset, rows, kinds)
    model_facts = {**facts_of(restored), "seed": asked.seed, "controls": {}, "reconstructed": split}
    facts = {"data": setting.data, "split": split, "fingerprint": dataset.spec.fingerprint}
    made = f"{split} images of {setting.data} as {_asked_for(kinds)} by {run.name} at step {restored.step}"
    return [(results, Sides(Items(n, model_facts, made), Items(0, facts, "")))]


def _asked_for(kinds: Kinds) -> str:
    """What a model does with held-out images, in words."""
    deeds = {"reconstructed": kinds.pairs, "predicted": kinds.scores, "encoded": kinds.latents}
    return " and ".join(deed for deed, metrics in deeds.items() if metrics)


def _figures_of_itself(
    setting: Setting, restored: Restored, dataset: Dataset, rows: list[int], kinds: Kinds
) -> list[Result]:
    asked, model, device = setting.asked, restored.model, restored.device
    likelihoods = [
        measure_likelihood(
            model,
            dataset,
            rows,
            vars(check(f"metric.{name}", find("metric", name).config, values)),
            seed=asked.seed,
            device=device,
            batch_size=asked.batch_size or _BATCH,
        )
        for name, values in kinds.scores.items()
    ]
    return likelihoods + [
        measure_active_units(model, dataset, rows, device=device, batch_size=asked.batch_size) for _ in kinds.latents
    ]


def held_out_items(setting: Setting) -> tuple[Split, Dataset]:
    """The split that the user names, or else the first that was not trained on.

    Raises:
        ConfigError: there is none.
    """
    from aigc_cli.commands.evaluating import other_splits

    if setting.named_split:
        return setting.asked.split, setting.split(setting.asked.split)
    for split, dataset in other_splits(setting):
        return split, dataset
    raise ConfigError("there are no held-out items to measure on", "name a split, such as split=train")


def _reconstruction(
    setting: Setting, restored: Restored, dataset: Dataset, rows: list[int], kinds: Kinds, metrics: dict[str, Any]
) -> list[Result]:
    model: Any = restored.model
    pairs = reconstruct(model, dataset, rows, device=restored.device, batch_size=setting.asked.batch_size)
    with progress(len(rows), "reconstructing", "images") as bar:

        def counted() -> Any:
            for images, made in pairs:
                yield images, made
                bar.advance(len(images))

        return measure_pairs(metrics, kinds.pairs, counted())
