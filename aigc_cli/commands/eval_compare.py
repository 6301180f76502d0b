"""``aigc eval compare``: several runs on the same reference, or records that were saved before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from aigc_cli.commands.eval_kinds import by_kind
from aigc_cli.commands.eval_model import measure_model
from aigc_cli.commands.eval_text_run import text_records, text_run
from aigc_cli.commands.eval_words import records_folder, warn_of_ignored
from aigc_cli.commands.evaluating import (
    looks_at_nothing_else,
    make_evaluator,
    open_setting,
    open_sides,
    with_extractor,
)
from aigc_cli.config.schema import STRICT, Options
from aigc_cli.errors import ConfigError, DataError
from aigc_cli.files import path_of, read_json
from aigc_cli.metrics.comparison import Records, check_comparable, describe_comparison, differences
from aigc_cli.metrics.report import write
from aigc_cli.metrics.result import averaged
from aigc_cli.metrics.stamp import record, saved
from aigc_cli.runs import find_run

if TYPE_CHECKING:
    from aigc_cli.commands.eval import EvalConfig
    from aigc_cli.commands.eval_kinds import Kinds
    from aigc_cli.commands.evaluating import Setting

SEEDS = 3  # fewer show no spread worth the name


_LENIENT: ConfigDict = {**STRICT, "extra": "ignore"}


@dataclass(config=_LENIENT, frozen=True)
class _Facts:
    per_token: list[str] = field(default_factory=list)


@dataclass(config=_LENIENT, frozen=True)
class _Record:
    """What a comparison reads of a record, which a stranger may have written."""

    metric: str
    figures: dict[str, float]
    spread: dict[str, float] | None = None
    better: dict[str, Literal["lower", "higher", ""]] | None = None
    bounds: dict[str, Literal["<=", ">="]] | None = None
    facts: _Facts | None = None
    generated: dict[str, Any] | None = None
    real: dict[str, Any] | None = None
    held_out: dict[str, Any] | None = None
    extractor: dict[str, Any] | None = None


def compare(asked: EvalConfig, options: Options) -> int:
    """Evaluates the runs, or reads the records, that ``run=A,B`` names, and prints what differs and by how much.

    Raises:
        ConfigError: fewer than two, or conditions under which their figures do not compare.
        DataError: a run or a record that cannot be trusted.
    """
    words = list(dict.fromkeys(word.strip() for word in asked.run.split(",") if word.strip()))
    if len(words) < 2:
        raise ConfigError("aigc eval compare needs several runs", "write for example aigc eval compare run=A,B")
    if asked.fake is not None:
        raise ConfigError("aigc eval compare is for runs", "leave fake= out")
    files = [word for word in words if word.endswith(".json")]
    named: list[tuple[str, Records]] = []
    if files:
        if len(files) < len(words):
            raise ConfigError("records and runs do not go together", "name runs alone, or .json files alone")
        warn_of_ignored(asked, {}, "out", "n", "seed", "seeds", "split", "step", "real", "reference", "held_out")
        named = [(Path(file).name, _read(path_of(file))) for file in files]
    else:
        named = _evaluated(replace(asked, seeds=asked.seeds or SEEDS), options, words)
    check_comparable(named)
    rows = differences(named)
    if options.json:
        runs = [{"name": name, "records": list(records.values())} for name, records in named]
        print(json.dumps({"compared": runs, "differences": rows}, ensure_ascii=False))
    else:
        print(describe_comparison(named, rows))
    return 0


def _evaluated(asked: EvalConfig, options: Options, words: list[str]) -> list[tuple[str, Records]]:
    runs = [find_run(word) for word in words]
    if all(text_run(replace(asked, run=word)) is not None for word in words):
        return list(text_records(runs, asked, options))
    kinds = by_kind(asked.metric)
    of_text = [*kinds.text, *kinds.fills]
    if of_text:
        raise ConfigError(f"{of_text[0]} is for runs of text, and not all of these are", "name such runs")
    settings = [open_setting(replace(asked, run=word), options, run) for word, run in zip(words, runs, strict=True)]
    first = runs[0]
    for run in [] if looks_at_nothing_else(asked) else runs[1:]:
        for what in ("fingerprint", "shape"):
            own, other = getattr(first.spec, what), getattr(run.spec, what)
            if own != other and not isinstance(asked.data.get("name"), str):
                raise ConfigError(
                    f"{first.name} and {run.name} do not compare: the {what} of their data is {own} and {other}",
                    "compare runs on the same data, or name a common reference with data= or real=",
                )
    return [(setting.run.name, _records(setting, kinds)) for setting in settings if setting.run is not None]


def _records(setting: Setting, kinds: Kinds) -> dict[str, Mapping[str, Any]]:
    """The records of a run: those saved under the very same conditions, and fresh ones for the rest."""
    asked, run = setting.asked, setting.run
    assert run is not None
    folder = records_folder(asked, run)
    assert folder is not None, "a run has one"
    found: dict[str, Mapping[str, Any]] = {}
    if kinds.features:
        metrics = with_extractor(asked, kinds.features)
        warn_of_ignored(asked, metrics)
        fakes, sides = open_sides(setting, asked.seeds or 1)
        evaluator = make_evaluator(setting, metrics, sides)
        for result in evaluator.announced(len(sides.fake)):
            kept = saved(record(result, sides, str(setting.device), dtype=asked.dtype), folder)
            if kept is not None:
                found[result.metric] = kept
        if len(found) < len(metrics):
            for result in averaged([evaluator.evaluate(fake) for fake in fakes]):
                found[result.metric] = record(result, sides, str(setting.device), dtype=asked.dtype)
                write(found[result.metric], folder, result.gallery)
    if kinds.of_model:
        for results, sides in measure_model(replace(setting, asked=replace(asked, seeds=None)), kinds):
            for result in results:
                found[result.metric] = record(result, sides, str(setting.device), dtype=asked.dtype)
                write(found[result.metric], folder)
    return {name: found[name] for name in asked.metric}


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    """One record by its metric.

    Raises:
        ConfigError: there is no such file.
        DataError: it holds no record of ours.
    """
    if not path.is_file():
        raise ConfigError(f"there is no record {path}", "name a file from the eval folder of a run")
    try:
        loaded = read_json(path)
        TypeAdapter(_Record).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise _no_record(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise _no_record(path, str(error)) from None
    return {loaded["metric"]: loaded}


def _no_record(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is no record of an evaluation: {reason}", "name a file from a run's eval folder")
