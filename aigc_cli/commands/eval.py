"""``aigc eval``: scores of a run or of files, a comparison of several runs, or statistics to compare with later."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_cli.commands.sample import GENERATED
from aigc_cli.commands.train import to_continue
from aigc_cli.config.compose import compose
from aigc_cli.config.schema import OF_ALL_DATA, Options, check
from aigc_cli.environment import versions
from aigc_cli.errors import ConfigError, DataError, warn
from aigc_cli.exported_run import ExportedRun, open_exported
from aigc_cli.files import check_writable, path_of, resource_errors
from aigc_cli.metrics.asked import LEARNED, EvalConfig, run_of, with_usual_metrics
from aigc_cli.metrics.base import kind_of, require
from aigc_cli.metrics.extractors.base import FeatureStatistics, summed
from aigc_cli.metrics.items import has_text
from aigc_cli.metrics.record import Record, read_record, saved
from aigc_cli.metrics.report import Keeper, Records, check_comparable, describe, describe_comparison, differences
from aigc_cli.metrics.setting import open_setting
from aigc_cli.metrics.statistics import Statistics, write_statistics
from aigc_cli.metrics.views import Key
from aigc_cli.registry import plugin_words
from aigc_cli.runs import Run, find_run
from aigc_cli.sampling.controls import typed_again
from aigc_cli.training.plan import cut_short
from aigc_cli.training.restore import best_step

SEEDS = 3  # of a comparison; fewer show no spread worth the name
#: The words that features depend on, and that are given again where they are compared.
_REPEATED = ("run", "data", "weights", "backbone", "model", "resize", "dtype")
#: The extractors that are the same whatever the data; one of the user's own may not be.
_WITHOUT_DATA = {"inception", "torchvision"}


def main(config: dict[str, Any], options: Options) -> int:
    """Evaluates, prints the scores, and writes each metric's to a file of its own.

    Raises:
        ConfigError: words that fit nothing.
        DataError: items, weights or a checkpoint that are missing, too few, or cannot be trusted; no score is given.
    """
    if not config.get("metric"):
        raise ConfigError("metric= names no metric", "for example --metric fd,prdc")
    asked: EvalConfig = check("", EvalConfig, {**config, "data": config["data"] or {}})
    if idle := [f"data.{key}=" for key in sorted(OF_ALL_DATA) if asked.data.get(key) is not None]:
        hint = "name a run with run=: one that was trained on codes has its tokenizer"
        raise ConfigError(f"{', '.join(idle)} {'is' if len(idle) == 1 else 'are'} for aigc train", hint)
    if asked.out is not None:
        _check_place(path_of(asked.out), is_file=asked.task == "stats")
    return {"measure": _measure, "compare": _compare, "stats": _write_stats}[asked.task](asked, options)


def _check_place(out: Path, *, is_file: bool) -> None:
    """Refuses an ``out=`` that nothing can be written to, before anything is computed."""
    folder = out.parent if is_file else out
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not there.is_dir() or (is_file and out.is_dir()):
        what = f"{out} is a folder" if there.is_dir() else f"{there} is not a folder"
        raise ConfigError(f"out={out} cannot be written: {what}", "choose another place with out=")


def _measure(asked: EvalConfig, options: Options) -> int:
    """Measures one run, or files."""
    run = None if asked.fake is not None else run_of(asked)
    setting = open_setting(with_usual_metrics(asked, options, [] if run is None else [run]), options, run)
    folder = setting.records_folder()
    failed: list[DataError] = []
    records, keeper = setting.records(failed=failed), Keeper()
    files = [] if folder is None else [file for record in records for file in keeper.keep(record, folder)]
    if options.json:
        plain = [record.plain_json() for record in records]
        print(json.dumps({"results": plain, "files": [str(file) for file in files]}, ensure_ascii=False))
    else:
        print(describe(records, files), flush=True)  # before what is said of files that could not be written
        if setting.run is not None and folder is not None and keeper.failed is None:
            if short := _cut_short(setting.run, asked):
                print(f"note: it was trained for {short}")
            print(f"next: {_next(setting.run, folder, records, options, asked)}")
    keeper.check()
    for error in failed:
        if "metric" in options.given:
            raise error
        warn(str(error))  # nobody asked for what could not be measured
    return 0


def _next(run: Run, folder: Path, records: list[Record], options: Options, asked: EvalConfig) -> str:
    """What to type after a run's scores: the rest of a training that was cut short, whether it copies, which no
    distance shows, a look at what it makes, or where that has been, its best checkpoint, or more training."""
    if _cut_short(run, asked):
        return to_continue(run)
    given = [word for word in options.overrides if not word.lstrip("+").startswith(("run=", "metric", "real="))]
    held_out = any(record.metric in ("fd", "prdc") and record.baseline is not None for record in records)
    if held_out and not any(folder.glob("memorization-*.json")):
        return " ".join(["aigc eval --metric memorization", *map(shlex.quote, given), f"run={run.word}"])
    if (run.path / GENERATED).is_dir() and not isinstance(run, ExportedRun):
        best = best_step(run)
        if asked.step is None and best is not None and best < run.step:
            return " ".join(["aigc eval step=best", *map(shlex.quote, given), f"run={run.word}"])
        return to_continue(run)
    drawn = [*([] if asked.step is None else [f"step={asked.step}"]), *typed_again(run, asked.controls)]
    return " ".join(["aigc sample", *map(shlex.quote, drawn), f"run={run.word}"])


def _cut_short(run: Run, asked: EvalConfig) -> str:
    """What share of a full run the weights in question have had, where its minutes ended it before; else ""."""
    return "" if asked.step is not None or isinstance(run, ExportedRun) else cut_short(run)


# several runs


def _compare(asked: EvalConfig, options: Options) -> int:
    """Evaluates the runs, or reads the records, that ``run=A,B`` names, and prints what differs and by how much."""
    words = list(dict.fromkeys(word.strip() for word in (asked.run or "").split(",") if word.strip()))
    if len(words) < 2:
        found = f"run={asked.run} names one run" if words else "no run is named"
        raise ConfigError(f"aigc eval compare needs several runs: {found}", "name others, such as run=A,B")
    if asked.fake is not None:
        raise ConfigError("aigc eval compare is for runs", "leave fake= out")
    files, keeper = [word for word in words if word.endswith(".json")], Keeper()
    named: list[tuple[str, Records]] = []
    if files:
        if len(files) < len(words):
            raise ConfigError("records and runs cannot be mixed", "name runs alone, or .json files alone")
        idle = ("out", "n", "seed", "seeds", "split", "step", "real", "reference", "held_out")
        replace(asked, metric={}).warn_of_idle(*idle)
        for file in files:
            record = read_record(path_of(file))
            named.append((Path(file).name, {record["metric"]: record}))
    else:
        asked = replace(asked, seeds=asked.seeds or SEEDS)
        named = evaluated(asked, options, [find_run(word, exported=open_exported) for word in words], keeper)
    check_comparable(named)
    rows = differences(named)
    if options.json:
        runs = [{"name": name, "records": list(records.values())} for name, records in named]
        print(json.dumps({"compared": runs, "differences": rows}, ensure_ascii=False))
    else:
        print(describe_comparison(named, rows))
    keeper.check()
    return 0


def evaluated(asked: EvalConfig, options: Options, runs: list[Run], keeper: Keeper) -> list[tuple[str, Records]]:
    """The records of each run: those saved under the very same conditions, and fresh ones, which `keeper` saves."""
    asked = with_usual_metrics(asked, options, runs)
    first, needs_data = runs[0], not has_text(runs[0].spec) and not isinstance(asked.data.get("name"), str)
    for run in runs[1:] if needs_data and asked.compares_with_data() else []:
        for what in ("fingerprint", "shape"):
            own, other = getattr(first.spec, what), getattr(run.spec, what)
            if own != other:
                raise ConfigError(
                    f"{first.name} and {run.name} cannot be compared: the {what} of their data is {own} and {other}",
                    "compare runs on the same data, or name a common reference with data= or real=",
                )
    named: list[tuple[str, Records]] = []
    for run in runs:
        setting = open_setting(asked, options, run)
        folder = setting.records_folder()
        assert folder is not None, "a run has one"
        found: dict[str, Mapping[str, Any]] = {}

        def known(record: Record, folder: Path = folder, found: dict[str, Mapping[str, Any]] = found) -> bool:
            kept = saved(record.plain_json(), folder)
            found |= {} if kept is None else {record.metric: kept}
            return kept is not None

        for record in setting.records(known):
            found[record.metric] = record.plain_json()
            keeper.keep(record, folder)
        called = f"{run.name} ({run.weights})" if isinstance(run, ExportedRun) else run.name
        named.append((called, {name: found[name] for name in asked.metric}))
    return named


# statistics


def _write_stats(asked: EvalConfig, options: Options) -> int:
    """Writes the mean and covariance of the reference's features, of all of it unless ``n=`` says otherwise."""
    if asked.out is None or not asked.out.endswith(".npz"):
        example = "for example aigc eval stats data=cifar10 out=cifar10.npz"
        raise ConfigError("aigc eval stats needs out=, a file that ends with .npz", example)
    path = path_of(asked.out)
    check_writable(path.parent, "with out=")
    hint = "leave it out, or name such items with real=; those of a run aigc sample writes"
    asked.refuse(("fake", "reference"), ": statistics are of a dataset, or of the items that real= names", hint)
    asked.refuse_controls()
    named = _extractor(asked, options)
    setting = open_setting(asked, options)
    items = setting.read("real")
    if isinstance(items, Statistics):
        raise ConfigError(f"real={asked.real} holds statistics already", "name the items themselves")
    if items is None:
        items = setting.items()
        asked.check_number(items)
    if asked.n is not None:
        items = items.take(asked.n)
    views = setting.views()
    if named in LEARNED and setting.splits is None:
        what = "statistics of real= alone cannot be of features that are learnt from it: what they are compared with"
        raise ConfigError(f"{what} could not have the same", "name data= or run= to learn from, or ask for metric=fid")
    name = views.usual_extractor if named == "auto" else named
    (found,) = views.reference(items, "reference", {Key(name, "features"): False}).values()
    statistics = found if isinstance(found, FeatureStatistics) else summed(found)
    require(statistics.n, 2, "real", "a covariance", "give more items")
    extractor = views.extractor(name)
    stamp: dict[str, Any] = {
        "extractor": extractor.name, "extractor_sha256": extractor.checksum,
        "preprocessing": extractor.facts.get("preprocessing"), "dtype": asked.dtype, "images": items.facts,
        "n": statistics.n, "versions": versions(),
    }  # fmt: skip
    with resource_errors(path, "with out="):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_statistics(path, statistics, stamp)
    if options.json:
        print(json.dumps({"file": str(path), **stamp}, ensure_ascii=False))
        return 0
    print(f"statistics of {statistics.n:,} {items.modality.noun[1]}, {extractor.name}: {os.path.relpath(path)}")
    print(f"next: aigc eval {shlex.join(_following(path, named, options))}{plugin_words()}")
    return 0


def _following(path: Path, extractor: str, options: Options) -> list[str]:
    """The words that compare a run with the statistics, in features of the same extractor."""
    usual = extractor in ("auto", "inception")
    words = [f"real={os.path.relpath(path)}", *([] if usual else [f"extractor={extractor}"])]
    given = ((word, word.lstrip("+").partition("=")[0]) for word in options.overrides)
    words += [word for word, key in given if key in _REPEATED or key.startswith("data.")]
    return [*words, "--metric", "fid" if extractor == "inception" else "fd"]


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
