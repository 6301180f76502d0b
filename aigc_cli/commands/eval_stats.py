"""``aigc eval stats``: writes the mean and covariance of a dataset's features, to be compared with later."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aigc_cli.commands.eval_kinds import by_kind
from aigc_cli.commands.eval_words import check_no_controls, check_number, warn_of_ignored
from aigc_cli.commands.evaluating import open_setting, open_side, with_extractor
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options
from aigc_cli.errors import ConfigError
from aigc_cli.files import check_writable, path_of, resource_errors
from aigc_cli.metrics.base import require
from aigc_cli.metrics.evaluation import summed
from aigc_cli.metrics.extraction import Extraction, Key, build_extractor
from aigc_cli.metrics.extractors.base import FeatureStatistics
from aigc_cli.metrics.images import DatasetImages, Images
from aigc_cli.metrics.statistics_file import write_statistics
from aigc_cli.modalities.image_files import Drawn, FileImages
from aigc_cli.runs import versions

if TYPE_CHECKING:
    from aigc_cli.commands.eval import EvalConfig

#: The words that features depend on, and that are given again where they are compared.
_REPEATED = ("run", "data", "weights", "backbone", "model", "resize", "dtype")
#: The extractors that are the same whatever the data; one of the user's own may not be.
_WITHOUT_DATA = {"inception", "torchvision"}
_EXAMPLE = "for example aigc eval stats data=cifar10 out=cifar10.npz"


def write_stats(asked: EvalConfig, options: Options) -> int:
    """Writes the statistics of the reference, all of it unless ``n=`` says otherwise.

    Raises:
        ConfigError: ``out=`` names no file, or there is no data, or the metrics look at several extractors, or there
            are words for what a run generates.
        DataError: weights or images that are missing or cannot be trusted.
        ResourceError: nothing can be written to the folder of ``out=``.
    """
    if asked.out is None or not asked.out.endswith(".npz"):
        raise ConfigError("aigc eval stats needs out=, a file that ends with .npz", _EXAMPLE)
    path = path_of(asked.out)
    check_writable(path.parent, "with out=")
    _check_nothing_generated(asked)
    name = _extractor(asked, options)
    setting = open_setting(asked, options)
    images: Images
    if asked.real is not None:
        side = open_side(asked.real, setting.channels())
        if not isinstance(side, FileImages):
            raise ConfigError(f"real={asked.real} holds statistics already", "name a folder or .npz of images")
        images = side if asked.n is None else Drawn(side, asked.n)
    else:
        dataset = setting.split(asked.split)
        check_number(asked.n, len(dataset), f"images in the {asked.split} split")
        images = DatasetImages(dataset, asked.split, setting.data or "", asked.n)
    sources = setting.sources()
    extractor = build_extractor(name, sources)
    extraction = Extraction({name: extractor}, sources.device, asked.batch_size, asked.dtype)
    key = Key(name, "features")
    statistics = extraction.reference(images, "reference", {key: False})[key]
    if not isinstance(statistics, FeatureStatistics):
        statistics = summed(statistics)
    require(statistics.n, 2, "real", "a covariance", "give more images")
    stamp: dict[str, Any] = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.checksum,
        "preprocessing": extractor.facts.get("preprocessing"),
        "dtype": asked.dtype,
        "images": images.facts,
        "n": statistics.n,
        "versions": versions(),
    }
    with resource_errors(path, "with out="):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(path, statistics, stamp)
    if options.json:
        print(json.dumps({"file": str(path), **stamp}, ensure_ascii=False))
        return 0
    print(f"statistics of {statistics.n:,} images, {extractor.name}: {os.path.relpath(path)}")
    print(f"next: aigc eval {shlex.join(_following(path, name, options))}")
    return 0


def _following(path: Path, extractor: str, options: Options) -> list[str]:
    """The words that compare a run with the statistics, in features of the same extractor."""
    metric = {"inception": "fid", "classifier": "fd"}.get(extractor)
    words = [f"real={os.path.relpath(path)}", *([] if metric else [f"extractor={extractor}"])]
    given = ((word, word.lstrip("+").partition("=")[0]) for word in options.overrides)
    words += [word for word, key in given if key in _REPEATED or key.startswith("data.")]
    return [*words, "--metric", metric or "fd"]


def _check_nothing_generated(asked: EvalConfig) -> None:
    for key in ("fake", "reference"):
        if getattr(asked, key) is not None:
            what = f"{key}={getattr(asked, key)}: statistics are of a dataset, or of the images that real= names"
            raise ConfigError(what, "leave it out, or name such images with real=; those of a run aigc sample writes")
    check_no_controls(asked)


def _extractor(asked: EvalConfig, options: Options) -> str:
    """The one extractor of the metrics that were asked for; Inception where none were."""
    metrics = asked.metric
    if not any(word.lstrip("+").startswith("metric=") for word in options.overrides):
        metrics = compose("eval", ["metric=fid"])["metric"]
    kinds = by_kind(metrics)
    for other in (name for name in metrics if name not in kinds.features):
        raise ConfigError(f"{other} looks at no features, and statistics are of nothing else", "leave it out")
    features = with_extractor(asked, kinds.features)
    names = {str(values["extractor"]) for values in features.values()}
    idle = ["held_out", "seeds", "seed", "step"]
    if asked.real is not None and names <= _WITHOUT_DATA:
        idle.append("data")
    elif asked.real is None and "name" in asked.data:
        idle.append("run")
    warn_of_ignored(asked, features, *idle)
    if len(names) != 1:
        raise ConfigError(
            f"statistics are of one extractor, and {', '.join(metrics)} name {len(names)}", "ask for metric=fid, or fd"
        )
    return names.pop()
