"""``aigc eval stats``: writes the mean and covariance of the features of a dataset, to be compared with later."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_cli.commands.eval_config import EvalConfig
from aigc_cli.commands.eval_setting import open_setting
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import Options
from aigc_cli.environment import versions
from aigc_cli.errors import ConfigError
from aigc_cli.files import check_writable, path_of, resource_errors
from aigc_cli.metrics.base import kind_of, require
from aigc_cli.metrics.extractors.base import FeatureStatistics, summed
from aigc_cli.metrics.statistics import Statistics, write_statistics
from aigc_cli.metrics.views import Key

#: The words that features depend on, and that are given again where they are compared.
_REPEATED = ("run", "data", "weights", "backbone", "model", "resize", "dtype")
#: The extractors that are the same whatever the data; one of the user's own may not be.
_WITHOUT_DATA = {"inception", "torchvision"}


def write_stats(asked: EvalConfig, options: Options) -> int:
    """Writes the statistics of the reference, all of it unless ``n=`` says otherwise.

    Raises:
        ConfigError: ``out=`` names no file, or there is no data, or the metrics look through several extractors, or
            there are words for what a run generates.
        DataError: weights or items that are missing or cannot be trusted.
        ResourceError: nothing can be written to the folder of ``out=``.
    """
    path = _check(asked)
    name = _extractor(asked, options)
    setting = open_setting(asked, options)
    items = setting.read(asked.real)
    if isinstance(items, Statistics):
        raise ConfigError(f"real={asked.real} holds statistics already", "name the items themselves")
    if items is None:
        items = setting.items()
        asked.check_number(items)
    if asked.n is not None:
        items = items.take(asked.n)
    views = setting.views()
    (found,) = views.reference(items, "reference", {Key(name, "features"): False}).values()
    statistics = found if isinstance(found, FeatureStatistics) else summed(found)
    require(statistics.n, 2, "real", "a covariance", "give more items")
    extractor = views.extractor(name)
    stamp: dict[str, Any] = {
        "extractor": extractor.name,
        "extractor_sha256": extractor.checksum,
        "preprocessing": extractor.facts.get("preprocessing"),
        "dtype": asked.dtype,
        "images": items.facts,
        "n": statistics.n,
        "versions": versions(),
    }
    with resource_errors(path, "with out="):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(path, statistics, stamp)
    if options.json:
        print(json.dumps({"file": str(path), **stamp}, ensure_ascii=False))
        return 0
    print(f"statistics of {statistics.n:,} {items.modality.noun[1]}, {extractor.name}: {os.path.relpath(path)}")
    print(f"next: aigc eval {shlex.join(_following(path, name, options))}")
    return 0


def _check(asked: EvalConfig) -> Path:
    """The file to write; refuses words for what a run generates."""
    if asked.out is None or not asked.out.endswith(".npz"):
        example = "for example aigc eval stats data=cifar10 out=cifar10.npz"
        raise ConfigError("aigc eval stats needs out=, a file that ends with .npz", example)
    path = path_of(asked.out)
    check_writable(path.parent, "with out=")
    hint = "leave it out, or name such items with real=; those of a run aigc sample writes"
    asked.refuse(("fake", "reference"), ": statistics are of a dataset, or of the items that real= names", hint)
    asked.refuse_controls()
    return path


def _following(path: Path, extractor: str, options: Options) -> list[str]:
    """The words that compare a run with the statistics, in features of the same extractor."""
    metric = {"inception": "fid", "classifier": "fd"}.get(extractor)
    words = [f"real={os.path.relpath(path)}", *([] if metric else [f"extractor={extractor}"])]
    given = ((word, word.lstrip("+").partition("=")[0]) for word in options.overrides)
    words += [word for word, key in given if key in _REPEATED or key.startswith("data.")]
    return [*words, "--metric", metric or "fd"]


def _extractor(asked: EvalConfig, options: Options) -> str:
    """The one extractor of the metrics that were asked for; Inception where none were."""
    if "metric" not in options.given:
        asked = replace(asked, metric=compose("eval", options.overrides, usual=["fid"])["metric"])
    for name in asked.metric:
        if not {"features", "logits", "moments"} & {view for views in kind_of(name).takes.values() for view in views}:
            raise ConfigError(f"{name} uses no features, so it has no statistics to save", "leave it out")
    names = asked.extractors()
    idle = ["held_out", "seeds", "seed", "step"]
    if asked.real is not None and names <= _WITHOUT_DATA:
        idle.append("data")
    elif asked.real is None and "name" in asked.data:
        idle.append("run")
    asked.warn_of_idle(*idle, *(["split"] if asked.real is not None else []))
    if len(names) != 1:
        what = f"statistics are of one extractor, and {', '.join(asked.metric)} name {len(names)}"
        raise ConfigError(what, "ask for metric=fid, or fd")
    return names.pop()
