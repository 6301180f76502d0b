"""``aigc eval``: figures of a run, or of two folders of images, each with its conditions and its floor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from aigc_cli.config import STRICT, Options, check
from aigc_cli.data.base import Dataset, Split
from aigc_cli.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from aigc_cli.metrics.images import Images
    from aigc_cli.metrics.report import Sides
    from aigc_cli.runs import Run

#: The reference is cut to so many images, unless more are generated, and so is what is generated if n= is not given.
MOST = 10_000


@dataclass(config=STRICT, frozen=True, kw_only=True)
class EvalConfig:
    """See ``configs/eval.yaml``."""

    run: str
    metric: dict[str, dict[str, Any]]
    n: Annotated[int, Field(ge=1)] | None
    seed: Annotated[int, Field(ge=0)]
    split: Split
    step: Annotated[int, Field(ge=0)] | Literal["best"] | None
    weights: str | None
    fake: str | None
    real: str | None
    held_out: str | None
    out: str | None
    batch_size: Annotated[int, Field(ge=1)]
    device: str
    data: dict[str, Any]


def main(config: dict[str, Any], options: Options) -> int:
    """Evaluates, prints the figures, and writes each metric's to a file of its own.

    Raises:
        ConfigError: words that fit nothing.
        DataError: images, weights or a checkpoint that are missing, too few, or cannot be trusted; no figure is given.
    """
    asked = check("", EvalConfig, config)
    if not asked.metric:
        raise ConfigError("metric= names no metric", "for example --metric fd,prdc")
    from aigc_cli.metrics.evaluation import Evaluator
    from aigc_cli.metrics.features import Sources
    from aigc_cli.metrics.report import describe, record, write
    from aigc_cli.training.precision import resolve_device

    _warn_of_ignored(asked)
    device = resolve_device(asked.device)
    run = _run_of(asked, options)
    opened = _opener(asked, run) if run is not None else None
    sources = Sources(
        device=device,
        weights=None if asked.weights is None else Path(asked.weights).expanduser(),
        data=None if run is None else run.config["data"]["name"],
        open_split=opened,
    )
    sides = _sides(asked, run, opened, device)
    evaluator = Evaluator(asked.metric, sources, sides.real, sides.held_out, batch_size=asked.batch_size)
    results = evaluator.evaluate(sides.fake)
    records = [record(result, sides, str(device)) for result in results]
    folder = _folder(asked, run)
    files = [] if folder is None else [write(one, folder) for one in records]
    if options.json:
        print(json.dumps({"results": records, "files": [str(file) for file in files]}, ensure_ascii=False))
    else:
        source = None if run is None else run.name
        print(describe(results, sides, source, files))
        print("next: " + ("aigc sample" if run is None else f"aigc sample run={run.word}"))
    return 0


def _warn_of_ignored(asked: EvalConfig) -> None:
    extractors = {values.get("extractor") for values in asked.metric.values()}
    ignored = {
        "weights": asked.weights is not None and "classifier" in extractors and len(extractors) == 1,
        "step": asked.step is not None and asked.fake is not None,
        "seed": asked.seed != 0 and asked.fake is not None,
        "split": asked.split != "train" and asked.real is not None,
    }
    for key in (key for key, is_so in ignored.items() if is_so):
        print(f"aigc: warning: {key}= changes nothing here", file=sys.stderr)


def _run_of(asked: EvalConfig, options: Options) -> Run | None:
    """The run that is evaluated, or whose data is the reference; None where two folders need none."""
    from aigc_cli.runs import find_run

    named = any(word.lstrip("+").startswith("run=") for word in options.overrides)
    if asked.fake is not None and asked.real is not None and not named:
        return None
    return find_run(asked.run)


def _opener(asked: EvalConfig, run: Run) -> Callable[[Split], Dataset]:
    """Opens a split of the run's data once, where the configuration says it lies now."""
    from aigc_cli.data import open_dataset

    moved = {key: value for key, value in asked.data.items() if value is not None}
    values = {**run.config["data"], **moved}

    @cache
    def opened(split: Split) -> Dataset:
        dataset = open_dataset(values, split)
        if split == "train" and dataset.spec.fingerprint != run.spec.fingerprint:
            print(f"aigc: warning: the data differs from what {run.name} was trained on", file=sys.stderr)
        return dataset

    return opened


def _sides(
    asked: EvalConfig, run: Run | None, opened: Callable[[Split], Dataset] | None, device: torch.device
) -> Sides:
    from aigc_cli.metrics.images import DatasetImages, First, open_images
    from aigc_cli.metrics.report import Sides

    channels = run.spec.shape[0] if run is not None and run.spec.modality == "image" else None
    given: dict[str, Images | None] = {}
    for key in ("fake", "real", "held_out"):
        word = getattr(asked, key)
        given[key] = None if word is None else open_images(Path(word).expanduser(), channels)
    fake, real, held_out = given["fake"], given["real"], given["held_out"]
    name = "" if run is None else run.config["data"]["name"]
    if fake is not None and asked.n is not None:
        fake = First(fake, asked.n)
    size = len(real) if real is not None else 0
    if real is None:
        assert opened is not None
        size = len(opened(asked.split))
    n = len(fake) if fake is not None else asked.n or min(size, MOST)
    if real is None:
        assert opened is not None
        real = DatasetImages(opened(asked.split), asked.split, name, max(n, MOST))
    if held_out is None and asked.real is None:
        assert opened is not None
        held_out = _other_split(asked.split, opened, name, n)
    if fake is None:
        assert run is not None
        fake = _generated(asked, run, n, device)
    return Sides(fake, real, None if held_out is None else First(held_out, min(n, len(held_out))))


def _other_split(split: Split, opened: Callable[[Split], Dataset], name: str, n: int) -> Images | None:
    """At most `n` images of the first split that is not the reference and is not empty."""
    from aigc_cli.metrics.images import DatasetImages

    others: tuple[Split, ...] = ("test", "val", "train")
    for other in others:
        if other == split:
            continue
        try:
            dataset = opened(other)
        except ConfigError:  # a dataset without such a split
            continue
        except DataError as error:
            print(f"aigc: warning: no floor on the {other} split: {error.message}", file=sys.stderr)
            continue
        if len(dataset):
            return DatasetImages(dataset, other, name, n)
    return None


def _generated(asked: EvalConfig, run: Run, n: int, device: torch.device) -> Images:
    from aigc_cli.metrics.images import GeneratedImages
    from aigc_cli.sampling.generate import generate
    from aigc_cli.training.checkpoint import restore_model

    restored = restore_model(run, step=asked.step, device=asked.device)
    if restored.spec.modality != "image":
        raise ConfigError(
            f"the metrics here judge images, and {run.name} generates {restored.spec.modality}",
            "name a run on images with run=",
        )

    def stream(batch_size: int) -> Iterator[Tensor]:
        return generate(restored.model, restored.codec, range(n), seed=asked.seed, device=device, batch_size=batch_size)

    facts = {"run": str(run.path), "step": restored.step, "checkpoint": restored.checksum, "seed": asked.seed}
    return GeneratedImages(stream, n, restored.spec.shape, facts)


def _folder(asked: EvalConfig, run: Run | None) -> Path | None:
    if asked.out is not None:
        return Path(asked.out).expanduser()
    return None if run is None else run.path / "eval"
